//! The small Kubernetes API server for tests, as a process of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::kube_api::{SmallApi, SmallOptions};
use tokio::signal::unix::{SignalKind, signal};

/// A small Kubernetes API server for tests. It says in its documentation what it does not do.
#[derive(Parser)]
#[command(name = "lab-kube-api")]
struct Cli {
    /// Where it listens; port 0: any.
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Address that clients use, for the certificate and the kubeconfig; default: that of --listen.
    #[arg(long)]
    advertise: Option<IpAddr>,
    /// Plain HTTP instead of HTTPS; then no token is needed unless one is given.
    #[arg(long)]
    plain: bool,
    /// File with the token that clients must show; without it, a new one is made for HTTPS.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Where to write a kubeconfig, for its owner alone.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Changes of each kind that are kept for watches.
    #[arg(long, default_value_t = SmallOptions::default().history_limit)]
    history: usize,
    /// Most watches at a time.
    #[arg(long, default_value_t = SmallOptions::default().watch_limit)]
    watches: usize,
    /// Seconds between bookmarks.
    #[arg(long, default_value_t = SmallOptions::default().bookmark_interval.as_secs())]
    bookmark_secs: u64,
    /// Behave as a server from before streaming lists.
    #[arg(long)]
    no_streaming_lists: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter()).init();
    let cli = Cli::parse();
    let token = match &cli.token_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
    };
    let api = SmallApi::start(SmallOptions {
        listen: cli.listen,
        advertise: cli.advertise,
        tls: !cli.plain,
        token,
        history_limit: cli.history.max(1),
        watch_limit: cli.watches,
        bookmark_interval: Duration::from_secs(cli.bookmark_secs.max(1)),
        streaming_lists: !cli.no_streaming_lists,
    })
    .await?;
    if let Some(path) = &cli.kubeconfig {
        api.access().write_kubeconfig(path)?;
    }
    println!("{}", api.access().url);
    let mut terminated = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        ended = api.run() => ended,
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for SIGINT"),
    }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into())
}
