//! `meshctl ca`: certificates.

mod attest;
mod audit;
mod enroll;
mod enrolled;
mod export_bundle;
mod init;
mod leaf;
mod list;
mod output;
mod renew;
mod request;
mod revoke;
mod show;

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use pki::key::KeyKind;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new mesh: a root key, its certificate, and the ledger of what it signs
    Init(init::Args),
    /// Make a cluster's key where it will stay, and a request to be signed elsewhere
    Request(request::Args),
    /// Sign a cluster's passport, unless its name, id or addresses collide with another's
    Enroll(Box<enroll::Args>),
    /// Sign a new passport for an enrolled cluster, with what it has
    Renew(renew::Args),
    /// Sign the addresses of a passport that an organisation's own authority signed
    Attest(Box<attest::Args>),
    /// Sign a certificate for a hub, a node's agent or an operator with a cluster's passport
    Leaf(leaf::Args),
    /// Show which clusters are enrolled, with their addresses
    List(list::Args),
    /// Show one cluster: what it has, each of its passports, what was revoked
    Show(show::Args),
    /// Deny a cluster's passports, or one certificate
    Revoke(revoke::Args),
    /// Check that the ledger can be what happened; no key needed
    Audit(audit::Args),
    /// Print the root certificate, or write all that members need to go by this authority
    ExportBundle(export_bundle::Args),
}

/// Which algorithm new keys are for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KeyType {
    /// ECDSA on P-256
    P256,
    /// Ed25519
    Ed25519,
}

impl From<KeyType> for KeyKind {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::P256 => Self::P256,
            KeyType::Ed25519 => Self::Ed25519,
        }
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Request(args) => request::run(args),
        Command::Enroll(args) => enroll::run(*args),
        Command::Renew(args) => renew::run(&args),
        Command::Attest(args) => attest::run(*args),
        Command::Leaf(args) => leaf::run(args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Revoke(args) => revoke::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::ExportBundle(args) => export_bundle::run(&args),
    }
}

/// Reads `90m`, `24h` or `30d`; one minute to ten years.
fn parse_life(text: &str) -> Result<Duration, String> {
    let fail = || format!("{text:?}: expected a number and m, h or d, from 1m to 3650d, such as 24h");
    let unit = text.chars().last().ok_or_else(fail)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(fail()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_error| fail())?;
    let life = number.checked_mul(seconds).filter(|life| (60..=3650 * 24 * 60 * 60).contains(life));
    life.map(Duration::from_secs).ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_a_unit_and_bounds() {
        assert_eq!(parse_life("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_life("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "d", "0d", "1dd", "3651d", "10", "1y", "-1d", "99999999999999999999d", "é"] {
            assert!(parse_life(bad).is_err(), "{bad}");
        }
    }
}
