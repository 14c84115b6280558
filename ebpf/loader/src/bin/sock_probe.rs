//! Talks to an address as an ordinary program would, and says what it saw.
//!
//! ```text
//! sock_probe [--cgroup DIR] [--times N] tcp|udp|udp-connected|cost ADDRESS:PORT
//! ```
//!
//! One line an exchange: the peer's address as the socket shows it, and the first line of the answer; or `error`
//! and its kind. With `--cgroup` it first moves itself into that cgroup. `udp` uses one unconnected socket for all
//! exchanges, the others a new socket each. `--times` is 1 unless given. The exit code is 0 if all were answered.
//!
//! `cost` sends nothing: it times `connect` of a new UDP socket each time, which is the way through the kernel with
//! the least besides our program in it, and prints one line: `p50 NANOSECONDS p99 NANOSECONDS`.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Holds what the command line asked for.
struct Request {
    cgroup: Option<PathBuf>,
    times: u32,
    way: Way,
    address: SocketAddr,
}

/// How to talk.
#[derive(Clone, Copy)]
enum Way {
    Tcp,
    Udp,
    UdpConnected,
    Cost,
}

/// What `--help` would say.
const USAGE: &str = "usage: sock_probe [--cgroup DIR] [--times N] tcp|udp|udp-connected|cost ADDRESS:PORT";

fn main() -> ExitCode {
    let request = match parse(std::env::args().skip(1)) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(cgroup) = &request.cgroup
        && let Err(error) = enter(cgroup)
    {
        eprintln!("cannot enter cgroup {}: {error}", cgroup.display());
        return ExitCode::from(2);
    }
    if let Way::Cost = request.way {
        return match cost(request.address, request.times) {
            Ok((p50, p99)) => {
                println!("p50 {} p99 {}", p50.as_nanos(), p99.as_nanos());
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("error {:?}", error.kind());
                ExitCode::FAILURE
            }
        };
    }
    let mut code = ExitCode::SUCCESS;
    let socket = open_udp(request.address);
    for _ in 0..request.times {
        let seen = match request.way {
            Way::Tcp => tcp(request.address),
            Way::Udp => socket.as_ref().map_err(copy).and_then(|socket| udp(socket, request.address)),
            Way::UdpConnected | Way::Cost => udp_connected(request.address),
        };
        match seen {
            Ok((peer, answer)) => println!("{peer} {answer}"),
            Err(error) => {
                println!("error {:?}", error.kind());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Request, String> {
    let (mut cgroup, mut times) = (None, 1);
    loop {
        let word = args.next().ok_or("a way to talk is missing")?;
        let way = match word.as_str() {
            "--cgroup" => {
                cgroup = Some(PathBuf::from(args.next().ok_or("--cgroup wants a directory")?));
                continue;
            }
            "--times" => {
                let value = args.next().ok_or("--times wants a number")?;
                times = value.parse().map_err(|error| format!("--times {value}: {error}"))?;
                continue;
            }
            "tcp" => Way::Tcp,
            "udp" => Way::Udp,
            "udp-connected" => Way::UdpConnected,
            "cost" => Way::Cost,
            other => return Err(format!("{other} is none of tcp, udp, udp-connected, cost")),
        };
        let text = args.next().ok_or("an address is missing")?;
        let address = text.parse().map_err(|error| format!("{text}: {error}"))?;
        return Ok(Request { cgroup, times, way, address });
    }
}

fn enter(cgroup: &Path) -> io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")
}

fn tcp(address: SocketAddr) -> io::Result<(SocketAddr, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((peer, answer))
}

fn udp_connected(address: SocketAddr) -> io::Result<(SocketAddr, String)> {
    let socket = open_udp(address)?;
    socket.connect(address)?;
    let peer = socket.peer_addr()?;
    socket.send(b"who")?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    Ok((peer, text(&answer, length)))
}

fn udp(socket: &UdpSocket, address: SocketAddr) -> io::Result<(SocketAddr, String)> {
    socket.send_to(b"who", address)?;
    let mut answer = [0; 512];
    let (length, from) = socket.recv_from(&mut answer)?;
    Ok((from, text(&answer, length)))
}

/// Median and 99th percentile of the time that `connect` takes.
#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "it measures the kernel, not tokio's clock"
)]
fn cost(address: SocketAddr, times: u32) -> io::Result<(Duration, Duration)> {
    let mut taken = Vec::new();
    for _ in 0..times.max(1) {
        let socket = open_udp(address)?;
        let start = std::time::Instant::now();
        socket.connect(address)?;
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    let at = |percent: usize| taken.get(taken.len() * percent / 100).copied().unwrap_or_default();
    Ok((at(50), at(99)))
}

/// A socket of the address's family; an IPv4-mapped address takes an IPv6 socket.
fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn text(answer: &[u8], length: usize) -> String {
    String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned()
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::from(error.kind())
}
