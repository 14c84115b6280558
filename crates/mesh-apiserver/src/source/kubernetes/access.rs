//! How the API server is reached: as a pod does it, or by a kubeconfig.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::contact::{Contact, ContactLayer};
use crate::election::Permit;
use crate::election::permit::PermitLayer;

/// Where the address and the credentials of the API server are.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Kubeconfig files, as in `KUBECONFIG`: the first that says something wins. None: the pod's service account.
    pub kubeconfig: Option<OsString>,
    /// The context to use, instead of the current one.
    pub context: Option<String>,
    /// Whether this process may write there.
    pub permit: Permit,
}

/// The API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not in a pod.
    #[error(
        "--source kubernetes without --kubeconfig uses the pod's service account, and there is none: run as a pod with a \
         service account token, or name a kubeconfig"
    )]
    NotInCluster(#[source] InClusterError),
    /// A context of nothing.
    #[error("--kube-context {context:?} needs a kubeconfig: give --kubeconfig or KUBECONFIG")]
    ContextAlone {
        /// As given.
        context: String,
    },
    /// A kubeconfig that cannot be read.
    #[error("read the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// A kubeconfig that says nothing usable.
    #[error("use the kubeconfig {files:?}")]
    Unusable {
        /// The files.
        files: OsString,
        /// Why.
        source: KubeconfigError,
    },
    /// Certificates, keys or a proxy that cannot be used.
    #[error("prepare a client for the API server {server}")]
    Client {
        /// Its address.
        server: String,
        /// Why.
        source: kube::Error,
    },
}

impl Access {
    /// Reads the configuration. The API server is not asked.
    pub async fn read(&self) -> Result<Config, AccessError> {
        let files = self.kubeconfig.as_ref().filter(|files| !files.is_empty());
        let mut config = match (files, &self.context) {
            (None, Some(context)) => {
                return Err(AccessError::ContextAlone { context: context.clone() });
            }
            (None, None) => Config::incluster().map_err(AccessError::NotInCluster)?,
            (Some(files), context) => {
                let mut merged = Kubeconfig::default();
                for path in std::env::split_paths(files).filter(|path| !path.as_os_str().is_empty()) {
                    let unreadable = |source| AccessError::Kubeconfig { path: path.clone(), source };
                    let next = Kubeconfig::read_from(&path).map_err(unreadable)?;
                    merged = merged.merge(next).map_err(unreadable)?;
                }
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(merged, &options).await;
                config.map_err(|source| AccessError::Unusable { files: files.clone(), source })?
            }
        };
        // Retries are the follower's, which counts them and shows them.
        config.default_retry = false;
        Ok(config)
    }
}

/// A client of its own for one kind, which is observed.
pub fn client(config: &Config, contact: &Arc<Contact>) -> Result<Client, AccessError> {
    let failed = |source| AccessError::Client { server: config.cluster_url.to_string(), source };
    let builder = ClientBuilder::try_from(config.clone()).map_err(failed)?;
    Ok(builder.with_layer(&ContactLayer(Arc::clone(contact))).build())
}

/// A client that writes, for as long as it is permitted.
pub fn writer(config: &Config, permit: &Permit) -> Result<Client, AccessError> {
    let failed = |source| AccessError::Client { server: config.cluster_url.to_string(), source };
    let builder = ClientBuilder::try_from(config.clone()).map_err(failed)?;
    let builder = builder.with_layer(&ContactLayer(Arc::default()));
    Ok(builder.with_layer(&PermitLayer(permit.clone())).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}, {name: d, cluster: {server: 'http://127.0.0.1:2'}}]\n\
        users: [{name: u, user: {}}]\n\
        contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: d, user: u}}]\n";

    #[tokio::test]
    async fn a_kubeconfig_and_its_contexts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        std::fs::write(&file, KUBECONFIG).expect("write");
        let access = |context: Option<&str>| Access {
            kubeconfig: Some(file.clone().into_os_string()),
            context: context.map(str::to_owned),
            ..Access::default()
        };
        let url = async |context| access(context).read().await.map(|config| config.cluster_url.to_string());
        assert_eq!(url(None).await.expect("the current context"), "http://127.0.0.1:1/");
        assert_eq!(url(Some("b")).await.expect("a context"), "http://127.0.0.1:2/");
        assert!(matches!(url(Some("z")).await, Err(AccessError::Unusable { .. })));
        let absent =
            Access { kubeconfig: Some(folder.path().join("no").into_os_string()), ..Access::default() };
        assert!(matches!(absent.read().await, Err(AccessError::Kubeconfig { .. })));
        let alone = Access { context: Some("b".to_owned()), ..Access::default() };
        assert!(matches!(alone.read().await, Err(AccessError::ContextAlone { .. })));
    }
}
