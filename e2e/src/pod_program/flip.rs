//! How long until a change of a file is a change of the kernel's maps: one process renames the file and calls `connect()`
//! until its result is another one. No clock of two processes is compared.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What `connect()` to a service says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It has a backend.
    Connected,
    /// It has none.
    Refused,
}

/// Holds one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// From the rename to the first `connect()` with the expected result, in microseconds.
    pub took_us: u64,
}

/// Renames `staged` to `target`, then waits until a UDP `connect()` to the service has this result. Fails if it had it
/// before already, or still has another one after `deadline`.
pub fn flip(
    staged: &Path,
    target: &Path,
    service: SocketAddr,
    expected: Verdict,
    deadline: Duration,
) -> Result<Flip> {
    ensure!(verdict(service)? != expected, "{service} is {expected:?} before the change");
    let begun = Instant::now();
    fs::rename(staged, target).with_context(|| format!("rename {}", staged.display()))?;
    loop {
        if verdict(service)? == expected {
            let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            return Ok(Flip { took_us });
        }
        if begun.elapsed() > deadline {
            bail!("{service} is not {expected:?} within {deadline:?} after the change");
        }
        // Leaves the processor to those who bring the change: there may be two of them for everybody.
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn verdict(service: SocketAddr) -> Result<Verdict> {
    let local: SocketAddr = match service {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).context("bind")?;
    match socket.connect(service) {
        Ok(()) => Ok(Verdict::Connected),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Verdict::Refused),
        Err(error) => Err(error).with_context(|| format!("connect {service}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_has_the_result_before_is_refused_as_a_measurement() {
        // UDP to loopback always connects.
        let service = SocketAddr::from(([127, 0, 0, 1], 9));
        let (from, to) = (Path::new("/nonexistent/a"), Path::new("/nonexistent/b"));
        let error =
            flip(from, to, service, Verdict::Connected, Duration::ZERO).expect_err("no change to see");
        assert!(error.to_string().contains("before the change"), "{error}");
        let error = flip(from, to, service, Verdict::Refused, Duration::ZERO).expect_err("no such file");
        assert!(error.to_string().contains("rename /nonexistent/a"), "{error}");
    }
}
