//! Certificates in a folder, as Secrets. Never printed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use pki::files::{DENY_LISTS, STATEMENTS};

use super::{Object, Part, Target, metadata};
use crate::install::checked::Checked;
use crate::install::values::Profile;

/// A Secret that an installation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: String,
    /// The role of the leaf in it, and the name of its folder.
    pub(crate) role: &'static str,
    /// Whether programs start without it.
    pub(crate) optional: bool,
    /// The component that mounts it.
    component: &'static str,
}

/// The Secrets that these values name.
pub(crate) fn wanted(values: &Checked) -> Vec<Wanted> {
    let (hub, agent) = (&values.hub, &values.agent);
    let wanted =
        |name: &String, role, optional, component| Wanted { name: name.clone(), role, optional, component };
    let mut all = vec![wanted(&hub.tls_secret, "hub", false, "hub")];
    if !hub.store.etcd.is_empty() {
        all.push(wanted(&hub.store.tls_secret, "store", false, "hub"));
    }
    if values.profile == Profile::Agent {
        all.push(wanted(&agent.local_tls_secret, "local", false, "agent"));
    }
    if values.profile == Profile::Agent || values.hub_follows_peers() {
        all.push(wanted(&agent.remote_tls_secret, "remote", true, "agent"));
    }
    all
}

impl Wanted {
    /// Where `meshctl ca leaf --out` is expected to have written it.
    pub(crate) fn folder(&self, below: &Path) -> PathBuf {
        below.join(self.role)
    }

    /// Reads it from its folder, with what an authority has signed beside its roots; none if there is no such folder. Fails if a
    /// file is missing or not PEM.
    pub(crate) fn read(&self, below: &Path, target: Target<'_>) -> Result<Option<Object>> {
        let folder = self.folder(below);
        if !folder.is_dir() {
            return Ok(None);
        }
        let mut data = std::collections::BTreeMap::new();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            let path = folder.join(name);
            let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            if !content.starts_with(b"-----BEGIN ") || content.len() > MAX_FILE {
                bail!("{}: expected a PEM file as `meshctl ca leaf` writes it", path.display());
            }
            data.insert(name.to_owned(), ByteString(content));
        }
        for name in [DENY_LISTS, STATEMENTS] {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            if !content.starts_with(b"{") || content.len() > MAX_FILE {
                bail!(
                    "{}: expected signed documents as `meshctl ca export-bundle` writes them",
                    path.display()
                );
            }
            data.insert(name.to_owned(), ByteString(content));
        }
        let secret = Secret {
            metadata: metadata(target, &self.name, Some(self.component)),
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        Ok(Some(Object::new(Part::Ground, &secret)))
    }
}

const MAX_FILE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_documents_go_with_the_certificates() {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = dir.path().join("hub");
        std::fs::create_dir(&hub).expect("made");
        let pem = "-----BEGIN CERTIFICATE-----\n";
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::fs::write(hub.join(name), pem).expect("written");
        }
        let wanted = Wanted { name: "tls".to_owned(), role: "hub", optional: false, component: "hub" };
        let target = Target { namespace: "isthmus", manager: "test" };
        let keys = || -> Vec<String> {
            let secret = wanted.read(dir.path(), target).expect("usable").expect("there");
            secret.value["data"].as_object().expect("data").keys().cloned().collect()
        };
        assert_eq!(keys(), ["ca.crt", "tls.crt", "tls.key"]);
        std::fs::write(hub.join(DENY_LISTS), "{}\n").expect("written");
        assert_eq!(keys(), ["ca.crt", "deny-list.jsonl", "tls.crt", "tls.key"]);
        std::fs::write(hub.join(STATEMENTS), pem).expect("written");
        let error = wanted.read(dir.path(), target).map(drop).expect_err("another file").to_string();
        assert!(error.contains("block-statements.jsonl: expected signed documents"), "{error}");
    }
}
