//! `meshctl uninstall`: takes away what is labelled ours, and nothing else, in an order that cuts no traffic it need not.
//!
//! ```text
//!   nodes    programs and maps off, when the agent there has ended      new connections stay in the cluster from now on
//!   hub      ended; agents of peers keep what they know of it
//!   the rest service, roles, accounts, Secrets, volume
//!   last     definitions without objects, the namespace if nothing else is in it
//! ```
//! Established connections go on: the address of a socket is chosen when it connects. A second run goes on where the
//! first one ended.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Error, Resource, ResourceExt};
use tokio::time::Instant;

use crate::cluster::access::Access;
use crate::cluster::apply::How;
use crate::cluster::{Cluster, until};
use crate::exit::print;
use crate::install::render::{AGENT, CLEANUP, MANAGED_BY, MANAGER, Target, cleanup};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "First take this cluster out of its peers, so that they send it nothing more (docs/install.md).\n\n\
    What is not labelled app.kubernetes.io/managed-by=meshctl is left: Secrets of your own, a namespace that was there, \
    a Helm release."
)]
pub(crate) struct Args {
    /// Namespace of the installation
    #[arg(short, long, default_value = "isthmus")]
    namespace: String,
    /// Keep the volume of the hub's embedded store and the MeshIdentity objects: the numbers of identities
    #[arg(long)]
    keep_data: bool,
    /// Keep definitions of custom resources, and with them their objects
    #[arg(long)]
    keep_definitions: bool,
    /// Delete definitions of custom resources also if there are objects of them, which go with them
    #[arg(long, conflicts_with = "keep_definitions")]
    delete_objects: bool,
    /// Leave programs and maps on the nodes: global services keep the backends that they have now, until somebody removes them
    #[arg(long)]
    leave_nodes: bool,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for each step: a number and s, m or h
    #[arg(long, default_value = "5m", value_parser = crate::install::parse_wait)]
    timeout: Duration,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    crate::cluster::block_on(async {
        let cluster = args.access.connect().await?;
        let removal =
            Removal { args, cluster, target: Target { namespace: &args.namespace, manager: MANAGER } };
        removal.run().await
    })
}

/// One uninstallation.
struct Removal<'a> {
    args: &'a Args,
    cluster: Cluster,
    target: Target<'a>,
}

impl Removal<'_> {
    async fn run(&self) -> Result<()> {
        let mut deleted = self.agents().await?;
        deleted += self.delete::<StatefulSet>(true).await?;
        deleted += self.delete::<Deployment>(true).await?;
        self.until_no_pods("hub").await?;
        deleted += self.slices().await?;
        deleted += self.delete::<Service>(true).await?;
        deleted += self.delete::<NetworkPolicy>(true).await?;
        deleted += self.delete::<PodDisruptionBudget>(true).await?;
        deleted += self.delete::<ConfigMap>(true).await?;
        deleted += self.delete::<Secret>(true).await?;
        deleted += self.delete::<Lease>(true).await?;
        if !self.args.keep_data {
            deleted += self.delete::<PersistentVolumeClaim>(true).await?;
        }
        deleted += self.delete::<RoleBinding>(true).await?;
        deleted += self.delete::<Role>(true).await?;
        deleted += self.delete::<ServiceAccount>(true).await?;
        deleted += self.delete::<ClusterRoleBinding>(false).await?;
        deleted += self.delete::<ClusterRole>(false).await?;
        if !self.args.keep_definitions {
            deleted += self.definitions().await?;
        }
        deleted += self.namespace().await?;
        let verb = if self.args.dry_run { "would be deleted" } else { "deleted" };
        print(&format!("{deleted} objects {verb}"))
    }

    /// Ends agents, and takes programs and maps off their nodes. Deleting the agents alone would leave global services with
    /// the backends of that moment for ever.
    async fn agents(&self) -> Result<usize> {
        let api: Api<DaemonSet> = Api::namespaced(self.cluster.client.clone(), self.target.namespace);
        let found = api.get_opt(AGENT).await.context("look for the agents")?;
        let found = found.filter(|set| set.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER));
        let deadline = Instant::now() + self.args.timeout;
        let mut cleaning = api.get_opt(CLEANUP).await.context("look for an earlier cleanup")?.is_some();
        if let Some(agents) = &found
            && !self.args.leave_nodes
            && !self.args.dry_run
        {
            // It waits on each node for the agent's end, so it can be there before: a run that is broken off after the
            // agents are gone leaves what the next one needs.
            let set =
                cleanup(agents, self.target).context("the DaemonSet of the agents has no containers")?;
            self.cluster.apply(&set, How { dry_run: false, force: true }).await?;
            cleaning = true;
        }
        let mut deleted = match found {
            Some(_) => self.delete_one::<DaemonSet>(true, AGENT, "").await?,
            None => 0,
        };
        if cleaning && !self.args.leave_nodes && !self.args.dry_run {
            let kind = ApiResource::erase::<DaemonSet>(&());
            let done = self.cluster.rolled_out(&kind, self.target.namespace, CLEANUP, deadline).await;
            done.context(
                "programs and maps are not off all nodes; mend what is named here and run again, or leave them with --leave-nodes",
            )?;
            self.delete_one::<DaemonSet>(true, CLEANUP, "").await?;
            eprintln!("programs and maps are off all nodes that have an agent");
        }
        deleted += self.delete::<DaemonSet>(true).await?;
        Ok(deleted)
    }

    async fn until_no_pods(&self, component: &str) -> Result<()> {
        if self.args.dry_run {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), self.target.namespace);
        let labels = format!("{SELECTOR},app.kubernetes.io/component={component}");
        let selected = ListParams::default().labels(&labels);
        until(Instant::now() + self.args.timeout, &format!("the end of the {component}"), async || {
            let pods = api.list_metadata(&selected).await.context("list pods")?.items;
            let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
            Ok((!names.is_empty()).then(|| format!("pods {}", names.join(", "))))
        })
        .await
    }

    /// EndpointSlices that the hub wrote, in all namespaces: nobody would keep them in step any more.
    async fn slices(&self) -> Result<usize> {
        let api: Api<EndpointSlice> = Api::all(self.cluster.client.clone());
        let found = api.list_metadata(&ListParams::default().labels(WRITTEN)).await;
        let mut deleted = 0;
        for slice in found.context("list EndpointSlices")?.items {
            let (namespace, uid) = (slice.namespace().unwrap_or_default(), slice.uid().unwrap_or_default());
            deleted += self.delete_in::<EndpointSlice>(Some(&namespace), &slice.name_any(), &uid).await?;
        }
        Ok(deleted)
    }

    /// Definitions that are ours, and of which there are no objects, or that are to go in any case.
    async fn definitions(&self) -> Result<usize> {
        let api: Api<CustomResourceDefinition> = Api::all(self.cluster.client.clone());
        let found = api.list(&ListParams::default().labels(SELECTOR)).await.context("list definitions")?;
        let mut deleted = 0;
        for definition in found.items {
            let spec = &definition.spec;
            let version = spec.versions.iter().find(|version| version.storage);
            let version = version.map(|version| version.name.as_str()).unwrap_or_default();
            let kind = GroupVersionKind::gvk(&spec.group, version, &spec.names.kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
            let objects =
                self.cluster.api(&resource, None).list_metadata(&ListParams::default().limit(1)).await;
            let objects = objects.with_context(|| format!("list {}", definition.name_any()))?;
            let name = definition.name_any();
            // The hub's own, which are to it what its volume is.
            let is_data = name == IDENTITIES;
            if is_data && self.args.keep_data {
                eprintln!("left: definition {name}");
            } else if objects.items.is_empty() || is_data || self.args.delete_objects {
                let uid = definition.uid().unwrap_or_default();
                deleted += self.delete_one::<CustomResourceDefinition>(false, &name, &uid).await?;
            } else {
                eprintln!(
                    "left: definition {name}, since there are objects of it; --delete-objects takes both"
                );
            }
        }
        Ok(deleted)
    }

    /// The namespace, if we made it and nobody put anything into it.
    async fn namespace(&self) -> Result<usize> {
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        let name = self.target.namespace;
        let Some(found) = api.get_metadata_opt(name).await.context("look for the namespace")? else {
            return Ok(0);
        };
        if found.labels().get(MANAGED_BY).is_none_or(|by| by != MANAGER) {
            eprintln!("left: namespace {name}, which was there before");
            return Ok(0);
        }
        let mut others = Vec::new();
        others.extend(self.others::<Pod>().await?);
        others.extend(self.others::<Service>().await?);
        others.extend(self.others::<Secret>().await?);
        others.extend(self.others::<ConfigMap>().await?);
        others.extend(self.others::<PersistentVolumeClaim>().await?);
        if !others.is_empty() && !self.args.dry_run {
            eprintln!("left: namespace {name}, since there are {}", others.join(", "));
            return Ok(0);
        }
        self.delete_one::<Namespace>(false, name, &found.uid().unwrap_or_default()).await
    }

    /// What is in the namespace and is not there by itself.
    async fn others<K>(&self) -> Result<Vec<String>>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = self.cluster.api(&ApiResource::erase::<K>(&()), Some(self.target.namespace));
        let found = api.list_metadata(&ListParams::default()).await;
        let found = found.with_context(|| format!("list {}", K::plural(&())))?;
        let names = found.items.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
        let names = names.map(ResourceExt::name_any).filter(|name| name != "kube-root-ca.crt");
        Ok(names.map(|name| format!("{} {name}", K::kind(&()))).collect())
    }

    /// Deletes what is ours of a kind.
    async fn delete<K>(&self, namespaced: bool) -> Result<usize>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        let api = self.cluster.api(&resource, namespaced.then_some(self.target.namespace));
        let found = match api.list_metadata(&ListParams::default().labels(SELECTOR)).await {
            Ok(found) => found.items,
            // A namespace that is gone, or a kind that this cluster does not have.
            Err(Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("list {}", resource.plural)),
        };
        let mut deleted = 0;
        for object in found.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            let uid = object.uid().unwrap_or_default();
            deleted += self.delete_one::<K>(namespaced, &object.name_any(), &uid).await?;
        }
        Ok(deleted)
    }

    /// Deletes one object, if it still is the one that was seen (empty: any), with its dependents after it. The absent is
    /// no error.
    async fn delete_one<K>(&self, namespaced: bool, name: &str, uid: &str) -> Result<usize>
    where
        K: Resource<DynamicType = ()>,
    {
        self.delete_in::<K>(namespaced.then_some(self.target.namespace), name, uid).await
    }

    async fn delete_in<K>(&self, namespace: Option<&str>, name: &str, uid: &str) -> Result<usize>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        let place = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        if self.args.dry_run {
            eprintln!("would delete {} {place}{name}", resource.kind);
            return Ok(1);
        }
        let mut params = DeleteParams::background();
        if !uid.is_empty() {
            params.preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        }
        let api = self.cluster.api(&resource, namespace);
        match api.delete(name, &params).await {
            Ok(_) => {
                eprintln!("deleted {} {place}{name}", resource.kind);
                Ok(1)
            }
            Err(Error::Api(status)) if status.code == 404 => Ok(0),
            Err(Error::Api(status)) if status.code == 409 => {
                bail!(
                    "{} {place}{name} was made anew meanwhile: {}; run again",
                    resource.kind,
                    status.message
                )
            }
            Err(error) => Err(error).with_context(|| format!("delete {} {place}{name}", resource.kind)),
        }
    }
}

/// The label of slices that a hub wrote (docs/endpoint-slices.md).
const WRITTEN: &str = "isthmus.dev/written-by=mesh-apiserver";
/// The definition of the numbers of identities that hubs keep as objects.
const IDENTITIES: &str = "meshidentities.isthmus.dev";
/// What is ours.
const SELECTOR: &str = "app.kubernetes.io/managed-by=meshctl,app.kubernetes.io/name=isthmus";
