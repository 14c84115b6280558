//! The API over a loopback connection, without TLS.

mod contract;
mod etcdctl;
mod following;
mod limits;
mod mirrored;
mod permissions;
mod python;
mod views;

use super::{Calls, Grants, Limits, serve};
use kvstore::{Store, StoreOptions};
use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};

/// Our server on a port of its own; ends when dropped.
struct Server {
    address: SocketAddr,
    store: Store,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(grants: Grants) -> Self {
        Self::with(Store::in_memory(StoreOptions::default()), grants, Limits::default()).await
    }

    async fn with(store: Store, grants: Grants, limits: Limits) -> Self {
        let calls = Calls::new(store.clone(), limits);
        Self::serving(calls, store, grants, limits).await
    }

    async fn serving(calls: Calls, store: Store, grants: Grants, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let grants = Arc::new(grants);
        let maintained = store.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let accept = async {
                while let Ok((io, _)) = listener.accept().await {
                    connections.spawn(serve(io, calls.clone(), grants.clone(), limits));
                }
            };
            tokio::select! {
                // Neither ends but by an error, and then the test does, too.
                () = accept => {}
                never = maintained.maintain() => match never {},
            }
        });
        Self { address, store, task }
    }

    async fn channel(&self) -> Channel {
        connect(&self.address.to_string()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Debian's etcd on ports of its own, with its data in a temporary folder; killed when dropped.
struct Etcd {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("temporary directory");
        let (client, peer) = (free_address(), free_address());
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start etcd (Debian package etcd-server; `cargo xtask setup` installs it)");
        let etcd = Self { child, address: client, _data: data };
        let begin = tokio::time::Instant::now();
        loop {
            let client = kvstore::Client::new(connect(&etcd.address).await);
            match tokio::time::timeout(Duration::from_secs(1), client.get("ready")).await {
                Ok(Ok(_)) => return etcd,
                last => assert!(begin.elapsed() < Duration::from_secs(30), "etcd is not ready: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let begin = tokio::time::Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(last) => assert!(begin.elapsed() < Duration::from_secs(30), "cannot connect: {last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A loopback address that nobody listened on a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

/// Fails the test if `future` takes longer than ten seconds.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(10), future).await;
    done.unwrap_or_else(|_elapsed| panic!("{what}: nothing within 10 s"))
}
