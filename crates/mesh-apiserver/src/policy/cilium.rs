//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: what Cilium itself refuses (`pkg/policy/api/rule_validation.go`).
//! One bad rule spoils the whole object. What this version of Cilium does not know (members of a later one) is no fault.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::cilium_ports::{Icmps, ToPorts};
use super::{Broken, block, selector};

/// Members of a policy of Cilium, as far as they are checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CiliumPolicy {
    spec: Option<Rule>,
    specs: Option<Vec<Rule>>,
}

/// Whether nodes may be its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A CiliumNetworkPolicy.
    Namespace,
    /// A CiliumClusterwideNetworkPolicy.
    Cluster,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    endpoint_selector: Option<LabelSelector>,
    node_selector: Option<LabelSelector>,
    ingress: Option<Vec<Element>>,
    ingress_deny: Option<Vec<Element>>,
    egress: Option<Vec<Element>>,
    egress_deny: Option<Vec<Element>>,
}

/// One element of a direction: with whom, and on which ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Element {
    to_ports: Option<Vec<ToPorts>>,
    icmps: Option<Vec<Icmps>>,
    #[serde(flatten)]
    members: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CidrRule {
    cidr: Option<String>,
    cidr_group_ref: Option<String>,
    cidr_group_selector: Option<LabelSelector>,
    except: Option<Vec<String>>,
}

/// Fails if Cilium would refuse the policy.
pub fn check(policy: &CiliumPolicy, scope: Scope) -> Result<(), Broken> {
    let one = policy.spec.iter().map(|rule| ("spec".to_owned(), rule));
    let more = policy.specs.iter().flatten().enumerate().map(|(at, rule)| (format!("specs[{at}]"), rule));
    let mut rules = one.chain(more).peekable();
    if rules.peek().is_none() {
        return Err(Broken::new("spec", "neither spec nor specs"));
    }
    rules.try_for_each(|(path, rule)| rule.check(&path, scope))
}

impl Rule {
    fn check(&self, path: &str, scope: Scope) -> Result<(), Broken> {
        match (&self.endpoint_selector, &self.node_selector) {
            (None, None) => return Err(Broken::new(path, "neither endpointSelector nor nodeSelector")),
            (Some(_), Some(_)) => return Err(Broken::new(path, "both endpointSelector and nodeSelector")),
            (None, Some(_)) if scope == Scope::Namespace => {
                let fault = "only a CiliumClusterwideNetworkPolicy selects nodes";
                return Err(Broken::new(format_args!("{path}.nodeSelector"), fault));
            }
            (pods, nodes) => {
                selector(&format!("{path}.endpointSelector"), pods.as_ref())?;
                selector(&format!("{path}.nodeSelector"), nodes.as_ref())?;
            }
        }
        let directions = [
            ("ingress", &self.ingress),
            ("ingressDeny", &self.ingress_deny),
            ("egress", &self.egress),
            ("egressDeny", &self.egress_deny),
        ];
        if directions.iter().all(|(_, elements)| elements.is_none()) {
            return Err(Broken::new(path, "none of ingress, ingressDeny, egress, egressDeny"));
        }
        for (direction, elements) in directions {
            for (at, element) in elements.iter().flatten().enumerate() {
                element.check(&format!("{path}.{direction}[{at}]"))?;
            }
        }
        Ok(())
    }
}

impl Element {
    fn check(&self, path: &str) -> Result<(), Broken> {
        let mut peers =
            self.members.iter().filter(|(name, value)| PEERS.contains(&name.as_str()) && !value.is_null());
        if let (Some((one, _)), Some((other, _))) = (peers.next(), peers.next()) {
            return Err(Broken::new(path, format_args!("{one} and {other} cannot be combined")));
        }
        for (name, value) in &self.members {
            peer(&format!("{path}.{name}"), name, value)?;
        }
        let (ports, icmps) = (self.to_ports.iter().flatten(), self.icmps.iter().flatten());
        if ports.clone().next().is_some() && icmps.clone().next().is_some() {
            return Err(Broken::new(path, "icmps beside toPorts"));
        }
        for (at, ports) in ports.enumerate() {
            ports.check(&format!("{path}.toPorts[{at}]"))?;
        }
        icmps.enumerate().try_for_each(|(at, icmps)| icmps.check(&format!("{path}.icmps[{at}]")))
    }
}

/// One member that says with whom.
fn peer(path: &str, name: &str, value: &Value) -> Result<(), Broken> {
    match name {
        "fromEndpoints" | "toEndpoints" | "fromNodes" | "toNodes" => {
            each::<LabelSelector>(path, value, |path, found| selector(path, Some(&found)))
        }
        "fromEntities" | "toEntities" => {
            each::<String>(path, value, |path, entity| match ENTITIES.contains(&entity.as_str()) {
                true => Ok(()),
                false => Err(Broken::new(
                    path,
                    format_args!("{entity:?}, expected one of {}", ENTITIES.join(", ")),
                )),
            })
        }
        "fromCIDR" | "toCIDR" => each::<String>(path, value, |path, text| {
            // A single address will do.
            let is_address = topology::block::parse_address(&text).is_some();
            if is_address { Ok(()) } else { block(path, &text, std::iter::empty()) }
        }),
        "fromCIDRSet" | "toCIDRSet" => each(path, value, cidr_rule),
        "fromRequires" | "toRequires" => each::<Value>(path, value, |path, _| {
            Err(Broken::new(
                path,
                "Cilium has no such requirements any more; put the labels into the selector",
            ))
        }),
        _ => Ok(()),
    }
}

fn cidr_rule(path: &str, rule: CidrRule) -> Result<(), Broken> {
    let except = || rule.except.iter().flatten().map(String::as_str);
    match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
        (Some(cidr), None, None) => block(path, cidr, except()),
        (None, Some(_), None) => Ok(()),
        (None, None, Some(found)) => selector(&format!("{path}.cidrGroupSelector"), Some(found)),
        _ => Err(Broken::new(path, "expected one of cidr, cidrGroupRef and cidrGroupSelector")),
    }
}

/// Does something with each element of a list.
fn each<T: serde::de::DeserializeOwned>(
    path: &str,
    value: &Value,
    mut check: impl FnMut(&str, T) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let elements = match value {
        Value::Null => return Ok(()),
        Value::Array(elements) => elements,
        _ => return Err(Broken::new(path, "expected a list")),
    };
    for (at, element) in elements.iter().enumerate() {
        let path = format!("{path}[{at}]");
        match T::deserialize(element) {
            Ok(element) => check(&path, element)?,
            Err(error) => return Err(Broken::new(path, error)),
        }
    }
    Ok(())
}

/// The members of an element that say with whom; at most one of them stands in one.
const PEERS: [&str; 16] = [
    "fromEndpoints",
    "fromRequires",
    "fromCIDR",
    "fromCIDRSet",
    "fromEntities",
    "fromGroups",
    "fromNodes",
    "toEndpoints",
    "toRequires",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    "toServices",
    "toFQDNs",
    "toGroups",
    "toNodes",
];

/// Cilium `pkg/policy/api/entity.go`.
const ENTITIES: [&str; 13] = [
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
];

#[cfg(test)]
mod tests;
