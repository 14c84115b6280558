//! Debian's etcd (package etcd-server) on ports of its own, that can be stopped, killed, emptied and started again.

use futures_util::{FutureExt, future::BoxFuture};
use kvstore::{
    Etcd, StoreOptions,
    etcd::{Dial, DialError, Follower},
    proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// A running etcd; killed when dropped, and when the test is.
pub(crate) struct Server {
    child: Child,
    name: String,
    client: String,
    peer: String,
    /// `name=address` of the members that it does not know from its disk.
    members: String,
    data: tempfile::TempDir,
}

/// Dials without TLS.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Vec<String>);

impl Dial for Plain {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn name(&self, endpoint: usize) -> String {
        self.0[endpoint].clone()
    }

    fn dial(&self, endpoint: usize) -> BoxFuture<'_, Result<Channel, DialError>> {
        let address = format!("http://{}", self.0[endpoint]);
        async move { Ok(Endpoint::from_shared(address)?.connect_timeout(Duration::from_secs(2)).connect().await?) }
            .boxed()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let peer = free_address();
        let server = Self::member("one", &peer, &format!("one=http://{peer}"));
        server.answers().await;
        server
    }

    /// A cluster of three members that answers.
    pub(crate) async fn three() -> [Self; 3] {
        let named = ["one", "two", "three"].map(|name| (name, free_address()));
        let members = named.each_ref().map(|(name, peer)| format!("{name}=http://{peer}")).join(",");
        let servers = named.map(|(name, peer)| Self::member(name, &peer, &members));
        for server in &servers {
            server.answers().await;
        }
        servers
    }

    fn member(name: &str, peer: &str, members: &str) -> Self {
        let data = tempfile::tempdir().expect("temporary directory");
        let client = free_address();
        let child = spawn(name, &client, peer, members, data.path());
        let (name, peer, members) = (name.to_owned(), peer.to_owned(), members.to_owned());
        Self { child, name, client, peer, members, data }
    }

    /// SIGKILL; what it has acknowledged is on disk.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again where it was, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.name, &self.client, &self.peer, &self.members, self.data.path());
        self.answers().await;
    }

    /// Forgets everything, as if the disk had been lost. It must not run.
    pub(crate) fn empty(&mut self) {
        self.data = tempfile::tempdir().expect("temporary directory");
    }

    /// Other addresses of its own: etcd derives its cluster id from that of its peer port.
    pub(crate) fn rename(&mut self) {
        self.peer = free_address();
        self.members = format!("{}=http://{}", self.name, self.peer);
    }

    /// Stops it as it stands (SIGSTOP): connections stay, nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn dial(&self) -> Plain {
        Plain(vec![self.client.clone()])
    }

    pub(crate) fn address(&self) -> &str {
        &self.client
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.dial().dial(0).await.expect("connect"))
    }

    /// Puts a key and returns the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> u64 {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let answer = self.kv().await.put(request).await.expect("put").into_inner();
        answer.header.expect("a header").revision.unsigned_abs()
    }

    /// Opens it as a store, with a follower that runs until the returned task is dropped.
    pub(crate) async fn open(&self) -> (Etcd, Following) {
        let opened = timeout(Duration::from_secs(20), Etcd::open(self.dial(), StoreOptions::default()));
        let (etcd, follower) = opened.await.expect("within 20 s").expect("a store");
        (etcd, Following::start(follower))
    }

    fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("run kill");
        assert!(sent.success(), "kill {signal}: {sent}");
    }

    async fn answers(&self) {
        let begin = Instant::now();
        loop {
            let ask = async {
                let mut kv = KvClient::new(self.dial().dial(0).await.map_err(|error| error.to_string())?);
                let request = RangeRequest { key: "ready".into(), ..RangeRequest::default() };
                kv.range(request).await.map(drop).map_err(|status| status.to_string())
            };
            match timeout(Duration::from_secs(2), ask).await {
                Ok(Ok(())) => return,
                last => assert!(begin.elapsed() < Duration::from_secs(40), "etcd is not ready: {last:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A follower at work.
pub(crate) struct Following {
    task: tokio::task::JoinHandle<(Follower, Option<String>)>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Following {
    pub(crate) fn start(mut follower: Follower) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                ended = follower.run() => match ended {
                    Ok(never) => match never {},
                    Err(error) => Some(error.to_string()),
                },
                _ = stopped => None,
            };
            (follower, ended)
        });
        Self { task, stop: Some(stop) }
    }

    /// Ends it and gives it back.
    pub(crate) async fn stop(mut self) -> Follower {
        drop(self.stop.take());
        let (follower, failed) = self.task.await.expect("no panic");
        assert_eq!(failed, None);
        follower
    }

    /// Waits until it fails, and says why.
    pub(crate) async fn failure(self) -> String {
        let (_, failed) =
            timeout(Duration::from_secs(30), self.task).await.expect("within 30 s").expect("no panic");
        failed.expect("not stopped")
    }
}

/// Waits until the condition holds; fails with what was seen after `secs` seconds.
pub(crate) async fn until<T: std::fmt::Debug>(
    what: &str,
    secs: u64,
    mut look: impl FnMut() -> Result<(), T>,
) {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(()) => return,
            Err(seen) => {
                assert!(begin.elapsed() < Duration::from_secs(secs), "{what}: {seen:?} after {secs} s")
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn spawn(name: &str, client: &str, peer: &str, members: &str, data: &std::path::Path) -> Child {
    // Its life ends with the thread that starts it, also if the test is killed.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd", "--data-dir"])
        .arg(data)
        .args(["--listen-client-urls", &format!("http://{client}")])
        .args(["--advertise-client-urls", &format!("http://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
        .args(["--name", name, "--initial-cluster", members])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start etcd (Debian package etcd-server; `cargo xtask setup` installs it)")
}

/// A loopback address that nobody listened on a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}
