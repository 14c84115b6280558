//! Policies, as far as they are looked at today: whether each could be enforced as it is written. Pure.
//!
//! Nothing is enforced yet. A policy that cannot be right is worth knowing all the same: whoever enforces it refuses the
//! whole object, and what its author wanted closed stays open. Features that an enforcer may lack are no faults.
//!
//! * [`network`]: NetworkPolicy of `networking.k8s.io/v1`.
//! * [`cilium`]: CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

pub mod cilium;
mod cilium_ports;
pub mod network;

use std::fmt;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Why a policy cannot be enforced as it is written: the first fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct Broken {
    path: String,
    fault: String,
}

impl Broken {
    fn new(path: impl fmt::Display, fault: impl fmt::Display) -> Self {
        Self { path: path.to_string(), fault: fault.to_string() }
    }
}

/// A selector: `In` and `NotIn` need values, `Exists` and `DoesNotExist` have none.
fn selector(path: &str, selector: Option<&LabelSelector>) -> Result<(), Broken> {
    for (at, requirement) in selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).enumerate() {
        let values = requirement.values.as_ref().map_or(0, Vec::len);
        let expected = match requirement.operator.as_str() {
            "In" | "NotIn" if values == 0 => "values",
            "Exists" | "DoesNotExist" if values > 0 => "no values",
            "In" | "NotIn" | "Exists" | "DoesNotExist" => continue,
            _ => "one of In, NotIn, Exists, DoesNotExist",
        };
        let (key, operator) = (&requirement.key, &requirement.operator);
        let path = format!("{path}.matchExpressions[{at}]");
        return Err(Broken::new(
            path,
            format_args!("{key} {operator} with {values} values, expected {expected}"),
        ));
    }
    Ok(())
}

/// A block of addresses, with those that are taken out of it.
fn block<'a>(path: &str, text: &str, except: impl Iterator<Item = &'a str>) -> Result<(), Broken> {
    let parse = |path: &str, text: &str| {
        let parsed = text.parse::<IpNet>();
        parsed.map_err(|_error| Broken::new(path, format_args!("{text:?} is no block such as 10.1.0.0/16")))
    };
    let whole = parse(&format!("{path}.cidr"), text)?;
    for (at, text) in except.enumerate() {
        let path = format!("{path}.except[{at}]");
        if !whole.contains(&parse(&path, text)?) {
            return Err(Broken::new(path, format_args!("{text} is not within {whole}")));
        }
    }
    Ok(())
}

/// Whether a text can name a port: 1 to 15 letters, digits and single hyphens, with a letter, as IANA wants it (RFC 6335, 5.1).
fn is_port_name(text: &str) -> bool {
    let known = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let hyphens = text.starts_with('-') || text.ends_with('-') || text.contains("--");
    (1..=15).contains(&text.len()) && known && !hyphens && text.chars().any(|c| c.is_ascii_alphabetic())
}

/// What a table of tests says of a fault: path and a part of the text.
#[cfg(test)]
fn assert_broken<T: fmt::Debug>(found: Result<T, Broken>, path: &str, part: &str, case: &str) {
    let broken = found.expect_err(case);
    assert!(broken.path == path && broken.fault.contains(part), "{case}: {broken}");
}
