//! The echo servers: HTTP and UDP, on both address families, answering with who they are and whom they saw.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::BufStream;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http;
use crate::tally::Speaker;

/// How long a kept connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// Most connections at once.
const CONNECTIONS: usize = 4096;

/// Names a backend: `cluster/node/pod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    cluster: String,
    node: String,
    pod: String,
}

impl Identity {
    fn saw(&self, saw: SocketAddr) -> Speaker {
        let Self { cluster, node, pod } = self.clone();
        Speaker { cluster, node, pod, saw }
    }
}

impl FromStr for Identity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [cluster, node, pod] = parts.as_slice() else {
            bail!("name {text:?}: expected CLUSTER/NODE/POD");
        };
        Ok(Self { cluster: (*cluster).into(), node: (*node).into(), pod: (*pod).into() })
    }
}

/// Serves until killed. Prints `ready` when every port is bound.
pub async fn serve(identity: Identity, http_ports: &[u16], udp_ports: &[u16]) -> Result<()> {
    let identity = Arc::new(identity);
    let mut tasks = tokio::task::JoinSet::new();
    for port in http_ports {
        // Port 0.0.0.0 is covered too: an IPv6 socket takes IPv4 clients unless told otherwise.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
            .await
            .with_context(|| format!("bind TCP port {port}"))?;
        tasks.spawn(accept(listener, identity.clone()));
    }
    for port in udp_ports {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))
            .await
            .with_context(|| format!("bind UDP port {port}"))?;
        tasks.spawn(echo(socket, identity.clone()));
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush()).context("say ready")?;
    match tasks.join_next().await {
        Some(ended) => ended.context("a server ended")?,
        None => std::future::pending().await,
    }
}

async fn accept(listener: TcpListener, identity: Arc<Identity>) -> Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.context("connection slot")?;
        // A connection that is gone before it is accepted is its client's affair.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let identity = identity.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, client, &identity).await {
                eprintln!("{client}: {error:#}");
            }
            drop(slot);
        });
    }
}

async fn answer(stream: TcpStream, client: SocketAddr, identity: &Identity) -> Result<()> {
    stream.set_nodelay(true).context("set no delay")?;
    let mut stream = BufStream::new(stream);
    let body = serde_json::to_vec(&identity.saw(client)).context("encode answer")?;
    loop {
        let Ok(request) = timeout(IDLE, http::read_request(&mut stream)).await else { return Ok(()) };
        let Some((_, keep_alive)) = request? else { return Ok(()) };
        timeout(IDLE, http::respond(&mut stream, 200, &body, keep_alive)).await.context("send answer")??;
        if !keep_alive {
            return Ok(());
        }
    }
}

async fn echo(socket: UdpSocket, identity: Arc<Identity>) -> Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // An error here is about an earlier datagram (its sender is gone), not about this socket.
        let Ok((_, client)) = socket.recv_from(&mut buffer).await else { continue };
        let body = serde_json::to_vec(&identity.saw(client)).context("encode answer")?;
        if let Err(error) = socket.send_to(&body, client).await {
            eprintln!("{client}: {error}");
        }
    }
}
