//! Certificates and keys that are no files: those of Kubernetes objects, which are never written to disk here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::HubConfig;

/// Contents by the path under which a configuration names them. Keys may be among them: nothing prints them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<PathBuf, Arc<[u8]>>);

impl Held {
    /// Takes a content under a path; gives the path.
    pub fn hold(&mut self, path: impl Into<PathBuf>, content: Vec<u8>) -> PathBuf {
        let path = path.into();
        self.0.insert(path.clone(), content.into());
        path
    }

    /// The content under a path; `None` if that is a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.get(path).map(|content| content.to_vec())
    }
}

impl HubConfig {
    /// With the certificates and keys that `content` has by file name, wherever the configuration says they are: in a Secret
    /// of ClusterMesh's layout they lie beside it.
    #[must_use]
    pub fn holding(mut self, content: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        for path in [&self.trusted_ca_file, &self.cert_file, &self.key_file] {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(content) = name.and_then(&content) {
                self.held.hold(path, content);
            }
        }
        self
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_not_printed() {
        let mut held = Held::default();
        held.hold("tokyo/tls.key", b"secret".to_vec());
        assert_eq!(format!("{held:?}"), r#"{"tokyo/tls.key"}"#);
        assert_eq!(held.content(Path::new("tokyo/tls.key")).as_deref(), Some(&b"secret"[..]));
    }
}
