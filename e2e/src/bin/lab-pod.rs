//! The program of the lab's pods: an echo server, a client, and small tools that must run inside a namespace.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use e2e::http::{self, Url};
use e2e::pod_program::connect_cost::SocketKind;
use e2e::pod_program::flip::Verdict;
use e2e::pod_program::{Identity, Pattern, Target, ask, connect_cost, flip, serve};
use serde::Serialize;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Echo server and client for pods of the lab.
#[derive(Parser)]
#[command(name = "lab-pod")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers HTTP and UDP with who it is. Prints `ready` when all ports are bound.
    Serve {
        /// Who it is: CLUSTER/NODE/POD.
        #[arg(long)]
        name: Identity,
        /// TCP port of the HTTP server; may be repeated.
        #[arg(long)]
        http: Vec<u16>,
        /// UDP port of the echo server; may be repeated.
        #[arg(long)]
        udp: Vec<u16>,
    },
    /// Asks one request after the other; prints a line of JSON an answer.
    Request {
        #[command(flatten)]
        target: TargetArgs,
        /// How many requests; 0 is without end.
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// Milliseconds between the beginnings of two requests.
        #[arg(long, default_value_t = 0)]
        interval: u64,
        /// Milliseconds until a request is given up.
        #[arg(long, default_value_t = 2000)]
        timeout: u64,
        /// Use one socket for all requests.
        #[arg(long)]
        keep: bool,
    },
    /// Asks at a constant rate whether answers come or not; prints a line of JSON an answer.
    Load {
        #[command(flatten)]
        target: TargetArgs,
        /// Requests a second.
        #[arg(long, default_value_t = 50)]
        rate: u32,
        /// Milliseconds until a request is given up.
        #[arg(long, default_value_t = 1000)]
        timeout: u64,
    },
    /// Prints the body of an HTTP answer; exit code 1 unless the status is 200.
    Get {
        /// http://ADDRESS:PORT/PATH
        url: Url,
        /// Milliseconds until it is given up.
        #[arg(long, default_value_t = 5000)]
        timeout: u64,
    },
    /// Times `connect()`; prints JSON with nanoseconds.
    ConnectCost {
        /// Which sockets.
        kind: SocketKind,
        /// ADDRESS:PORT to connect to.
        address: SocketAddr,
        /// How many calls.
        #[arg(long, default_value_t = 5000)]
        count: u64,
    },
    /// Renames a file and times until a UDP `connect()` to a service has another result; prints JSON.
    Flip {
        /// The file.
        staged: PathBuf,
        /// Its new name.
        target: PathBuf,
        /// ADDRESS:PORT of the service.
        service: SocketAddr,
        /// The result to wait for.
        expected: Verdict,
        /// Milliseconds until it is given up.
        #[arg(long, default_value_t = 10_000)]
        timeout: u64,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// HTTP address to ask.
    #[arg(long)]
    url: Option<Url>,
    /// UDP address to ask, from unconnected sockets.
    #[arg(long)]
    udp: Option<SocketAddr>,
    /// UDP address to ask, on connected sockets.
    #[arg(long)]
    connected_udp: Option<SocketAddr>,
}

impl TargetArgs {
    fn target(self) -> Result<Target> {
        let Self { url, udp, connected_udp } = self;
        let url = url.map(Target::Http);
        let datagram = udp.map(Target::Udp).or_else(|| connected_udp.map(Target::ConnectedUdp));
        url.or(datagram).context("no target")
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve { name, http, udp } => serve::serve(name, &http, &udp).await,
        Command::Request { target, count, interval, timeout, keep } => {
            let (interval, timeout) = (Duration::from_millis(interval), Duration::from_millis(timeout));
            ask::ask(target.target()?, Pattern { count, interval, timeout, overlap: false, keep }).await
        }
        Command::Load { target, rate, timeout } => {
            let (interval, timeout) = (Duration::from_secs(1) / rate.max(1), Duration::from_millis(timeout));
            ask::ask(target.target()?, Pattern { count: 0, interval, timeout, overlap: true, keep: false })
                .await
        }
        Command::Get { url, timeout } => get(&url, Duration::from_millis(timeout)).await,
        Command::ConnectCost { kind, address, count } => print(&connect_cost::measure(kind, address, count)?),
        Command::Flip { staged, target, service, expected, timeout } => {
            print(&flip::flip(&staged, &target, service, expected, Duration::from_millis(timeout))?)
        }
    }
}

fn print(measured: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured).context("encode")?);
    Ok(())
}

async fn get(url: &Url, limit: Duration) -> Result<()> {
    let fetch = async {
        let stream =
            TcpStream::connect(url.address).await.with_context(|| format!("connect {}", url.address))?;
        http::get(&mut BufStream::new(stream), url, false).await
    };
    let response = timeout(limit, fetch).await.with_context(|| format!("no answer within {limit:?}"))??;
    std::io::stdout().write_all(&response.body).context("print the body")?;
    ensure!(response.status == 200, "HTTP status {}", response.status);
    Ok(())
}
