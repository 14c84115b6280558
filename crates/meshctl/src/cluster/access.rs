//! Which cluster, with what credentials: as `kubectl` finds it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Cluster;

/// How an API server is reached.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// Kubeconfig file [default: KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long)]
    context: Option<String>,
}

impl Access {
    /// Reads the configuration, and asks the API server for its version. Fails if it does not answer.
    pub(crate) async fn connect(&self) -> Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("read the kubeconfig {}", path.display()))?;
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.with_context(|| format!("use the kubeconfig {}", path.display()))?
            }
            (None, Some(context)) => {
                let config = Config::from_kubeconfig(&options).await;
                config.with_context(|| format!("use the context {context} of the kubeconfig"))?
            }
            (None, None) => Config::infer().await.context(
                "find an API server: name a kubeconfig with --kubeconfig or KUBECONFIG, or print with -o yaml",
            )?,
        };
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).with_context(|| format!("prepare a client for {server}"))?;
        client.apiserver_version().await.with_context(|| format!("ask the API server {server}"))?;
        Ok(Cluster { client, server })
    }
}
