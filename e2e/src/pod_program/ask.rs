//! The clients: requests one after the other, or a constant load; one line of JSON an answer.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::BufStream;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::http::{self, Url};
use crate::tally::{Answer, Speaker};

/// Most requests of a load that wait for an answer at once.
const IN_FLIGHT: usize = 4096;

/// Names whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// HTTP GET.
    Http(Url),
    /// A datagram from an unconnected socket (`sendmsg`, `recvmsg`).
    Udp(SocketAddr),
    /// A datagram on a connected socket (`connect`, `send`, `recv`).
    ConnectedUdp(SocketAddr),
}

/// Holds how often to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Stop after this many requests; 0 is never.
    pub count: u64,
    /// Begin a request this long after the last one began.
    pub interval: Duration,
    /// Give one request up after this long.
    pub timeout: Duration,
    /// Begin requests on time even while earlier ones have no answer (a load), instead of one after the other.
    pub overlap: bool,
    /// Use one socket for all requests, instead of a new one each.
    pub keep: bool,
}

/// Holds a socket that is used again.
#[derive(Default)]
struct Kept {
    http: Option<BufStream<TcpStream>>,
    udp: Option<UdpSocket>,
}

/// Asks as the pattern says and prints each answer as a line of JSON. Ends when the count is reached or nobody reads.
pub async fn ask(target: Target, pattern: Pattern) -> Result<()> {
    ensure!(!(pattern.overlap && pattern.keep), "overlapping requests cannot share one socket");
    let target = Arc::new(target);
    let begun = Instant::now();
    // At least 1 µs, because a tokio interval cannot be empty; "no interval" asks as fast as answers come.
    let mut ticks = interval(pattern.interval.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if pattern.overlap {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    }
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let kept = Arc::new(Mutex::new(Kept::default()));
    let unread = Arc::new(AtomicBool::new(false));
    let mut seq = 0;
    while (pattern.count == 0 || seq < pattern.count) && !unread.load(Ordering::Relaxed) {
        if !pattern.interval.is_zero() {
            ticks.tick().await;
        }
        let slot = slots.clone().acquire_owned().await.context("request slot")?;
        let (target, kept, unread) = (target.clone(), kept.clone(), unread.clone());
        let request = async move {
            let asked = Instant::now();
            let outcome = if pattern.keep {
                let mut kept = kept.lock().await;
                let outcome = timed(pattern.timeout, once(&target, &mut kept, true)).await;
                if outcome.is_err() {
                    *kept = Kept::default();
                }
                outcome
            } else {
                timed(pattern.timeout, once(&target, &mut Kept::default(), false)).await
            };
            let (from, peer, error) = match outcome {
                Ok((from, peer)) => (Some(from), Some(peer), None),
                Err(error) => (None, None, Some(format!("{error:#}"))),
            };
            drop(slot);
            let answer = Answer {
                seq,
                asked_us: micros(asked - begun),
                took_us: micros(asked.elapsed()),
                from,
                peer,
                error,
            };
            print(&answer).inspect_err(|_| unread.store(true, Ordering::Relaxed))
        };
        if pattern.overlap {
            drop(tokio::spawn(request));
        } else {
            request.await?;
        }
        seq += 1;
    }
    // Wait for those still under way.
    let _all = slots.acquire_many(IN_FLIGHT as u32).await.context("wait for the last answers")?;
    Ok(())
}

async fn timed<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => bail!("timeout"),
    }
}

async fn once(target: &Target, kept: &mut Kept, keep: bool) -> Result<(Speaker, SocketAddr)> {
    match target {
        Target::Http(url) => {
            let mut stream = match kept.http.take() {
                Some(stream) => stream,
                None => BufStream::new(TcpStream::connect(url.address).await.context("connect")?),
            };
            let peer = stream.get_ref().peer_addr().context("getpeername")?;
            let response = http::get(&mut stream, url, keep).await?;
            ensure!(response.status == 200, "HTTP status {}", response.status);
            if keep {
                kept.http = Some(stream);
            }
            Ok((speaker(&response.body)?, peer))
        }
        Target::Udp(address) | Target::ConnectedUdp(address) => {
            let connected = matches!(target, Target::ConnectedUdp(_));
            let socket = match kept.udp.take() {
                Some(socket) => socket,
                None => udp_socket(*address, connected).await?,
            };
            let mut buffer = [0; 2048];
            let (length, peer) = if connected {
                socket.send(b"who").await.context("send")?;
                let length = socket.recv(&mut buffer).await.context("recv")?;
                (length, socket.peer_addr().context("getpeername")?)
            } else {
                socket.send_to(b"who", address).await.context("sendmsg")?;
                socket.recv_from(&mut buffer).await.context("recvmsg")?
            };
            if keep {
                kept.udp = Some(socket);
            }
            Ok((speaker(buffer.get(..length).unwrap_or_default())?, peer))
        }
    }
}

async fn udp_socket(address: SocketAddr, connected: bool) -> Result<UdpSocket> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await.context("bind")?;
    if connected {
        socket.connect(address).await.context("connect")?;
    }
    Ok(socket)
}

fn speaker(body: &[u8]) -> Result<Speaker> {
    serde_json::from_slice(body).with_context(|| format!("answer {:?}", String::from_utf8_lossy(body)))
}

fn print(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_string(answer).context("encode answer")?;
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).context("print answer")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
