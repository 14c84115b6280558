//! Server-side apply: what was applied by us before and is not any more goes, what others wrote stays.

use anyhow::{Context, Result, bail};
use kube::Error;
use kube::api::{DynamicObject, Patch, PatchParams};

use super::Cluster;
use crate::install::render::{MANAGED_BY, MANAGER, Object};

/// How to apply.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// The API server checks everything, and nothing is written.
    pub(crate) dry_run: bool,
    /// Fields that others wrote are taken over.
    pub(crate) force: bool,
}

/// What applying did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Created,
    Changed,
    Unchanged,
}

impl Done {
    /// For a line of progress.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Who manages an object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: it is not there.
    Absent,
    /// We.
    Ours,
    /// Somebody else, called so if the label says it.
    Other(String),
}

impl Cluster {
    /// Who manages the object that has this one's kind and name.
    pub(crate) async fn owner(&self, object: &Object) -> Result<Owner> {
        let api = self.api(&object.resource, object.namespace());
        let found = api.get_metadata_opt(object.name()).await;
        Ok(match found.with_context(|| format!("look for {}", object.describe()))? {
            None => Owner::Absent,
            Some(found) => match found.metadata.labels.unwrap_or_default().remove(MANAGED_BY) {
                Some(manager) if manager == MANAGER => Owner::Ours,
                other => Owner::Other(other.unwrap_or_default()),
            },
        })
    }

    /// Applies an object. Fails with the fields if another manager wrote some of them with other values.
    pub(crate) async fn apply(&self, object: &Object, how: How) -> Result<Done> {
        let api = self.api(&object.resource, object.namespace());
        let what = || format!("apply {}", object.describe());
        let before = api.get_opt(object.name()).await.with_context(what)?;
        let mut params = PatchParams::apply(MANAGER);
        params.dry_run = how.dry_run;
        params.force = how.force;
        let after = match api.patch(object.name(), &params, &Patch::Apply(&object.value)).await {
            Ok(after) => after,
            Err(Error::Api(status)) if status.code == 409 => {
                bail!("{}: {}; with --force-conflicts these fields become ours", what(), status.message)
            }
            Err(error) => return Err(error).with_context(what),
        };
        Ok(match before {
            None => Done::Created,
            Some(before) if same(&before, &after) => Done::Unchanged,
            Some(_) => Done::Changed,
        })
    }
}

/// Whether only what a server notes about the change itself differs; a dry run has a new version of nothing.
fn same(before: &DynamicObject, after: &DynamicObject) -> bool {
    let plain = |object: &DynamicObject| {
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        object.metadata.resource_version = None;
        object.metadata.generation = None;
        object
    };
    before.metadata.resource_version == after.metadata.resource_version || plain(before) == plain(after)
}
