//! What one `connect()` costs, on fresh sockets.
//!
//! On a UDP socket the kernel only looks up the route and sets the peer, so nearly all of the difference with and without
//! `sock_lb` is `sock_lb`. On a TCP socket the handshake is in it, too: what an application waits for.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::net::sockopt::set_socket_linger;
use serde::{Deserialize, Serialize};

/// Which sockets are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketKind {
    /// TCP, handshake included.
    Tcp,
    /// UDP.
    Udp,
}

/// Holds the distribution of a measurement, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectCost {
    /// How many calls were measured.
    pub count: u64,
    /// Half of the calls took at most this long.
    pub median_ns: u64,
    /// 99 of 100 calls took at most this long.
    pub p99_ns: u64,
}

/// Connects `count` sockets to the address, one after the other, and times each `connect()`.
pub fn measure(kind: SocketKind, address: SocketAddr, count: u64) -> Result<ConnectCost> {
    ensure!(count > 0, "count 0: expected at least 1");
    let mut samples = Vec::new();
    // A tenth more for warming up caches, not counted.
    let warm_up = count / 10;
    for round in 0..count + warm_up {
        let took = match kind {
            SocketKind::Tcp => connect_tcp(address)?,
            SocketKind::Udp => connect_udp(address)?,
        };
        if round >= warm_up {
            samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    samples.sort_unstable();
    let at = |part: usize| samples.get((samples.len() - 1) * part / 100).copied().unwrap_or_default();
    Ok(ConnectCost { count, median_ns: at(50), p99_ns: at(99) })
}

/// Making the socket is in it: the standard library makes and connects in one call.
fn connect_tcp(address: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    let stream = TcpStream::connect(address).context("connect")?;
    let took = begun.elapsed();
    // Reset instead of TIME_WAIT: thousands of waiting sockets to one address make the kernel's search for a free port,
    // which is part of connect(), several times as long as all the rest.
    set_socket_linger(&stream, Some(Duration::ZERO)).context("set linger")?;
    Ok(took)
}

fn connect_udp(address: SocketAddr) -> Result<Duration> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).context("bind")?;
    let begun = Instant::now();
    socket.connect(address).context("connect")?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_something() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        for kind in [SocketKind::Tcp, SocketKind::Udp] {
            let cost = measure(kind, address, 100).expect("loopback");
            assert!(cost.count == 100 && cost.median_ns > 0 && cost.median_ns <= cost.p99_ns, "{cost:?}");
        }
    }
}
