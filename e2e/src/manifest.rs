//! Kubernetes objects as YAML files in the folder that a hub watches. Written as ordinary manifests, one object a file,
//! each replaced in one step.

pub mod node;
pub mod pod;
pub mod service;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub use service::ServiceManifest;

/// A folder of manifests, and where new files are written before they appear in it.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
    staging: PathBuf,
}

impl Manifests {
    /// Makes the folder below a cluster's directory.
    pub fn create(cluster_dir: &Path) -> Result<Self> {
        let (dir, staging) = (cluster_dir.join("manifests"), cluster_dir.join("staging"));
        for path in [&dir, &staging] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(Self { dir, staging })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the file `<name>.yaml`, whole or not at all: it is written elsewhere on the same file system and renamed.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let (staged, path) = (self.staging.join(name), self.path(name)?);
        fs::write(&staged, text).with_context(|| format!("write {}", staged.display()))?;
        fs::rename(&staged, &path).with_context(|| format!("rename to {}", path.display()))?;
        Ok(path)
    }

    /// Removes the file; fails if there is none.
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Whether the file exists.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).is_ok_and(|path| path.exists())
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        ensure!(plain, "manifest name {name:?}: expected letters, digits, dots and dashes");
        Ok(self.dir.join(format!("{name}.yaml")))
    }
}

/// The text of an object.
pub fn yaml(object: &Value) -> Result<String> {
    serde_yaml_ng::to_string(object).context("write YAML")
}

/// A Namespace with these annotations.
pub fn namespace(name: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "annotations": annotations },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let manifests = Manifests { dir: "/m".into(), staging: "/s".into() };
        for name in ["", "../x", "a/b"] {
            assert!(manifests.path(name).is_err(), "{name:?}");
        }
        assert_eq!(
            manifests.path("shop.service.echo").expect("plain"),
            Path::new("/m/shop.service.echo.yaml")
        );
    }
}
