//! Service objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Makes a service global (Cilium `pkg/annotation`).
pub const GLOBAL: &str = "service.cilium.io/global";
/// Whether this cluster's backends are offered to the others.
pub const SHARED: &str = "service.cilium.io/shared";
/// Which clusters' backends are preferred.
pub const AFFINITY: &str = "service.cilium.io/affinity";

/// A Service that is being described. Its selector is `app: <name>` unless another is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceManifest {
    namespace: String,
    name: String,
    vips: Vec<(Family, String)>,
    ports: Vec<Port>,
    selector: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    internal_policy: Option<String>,
}

/// An address family, as EndpointSlices name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Port name.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The port of the frontend.
    pub port: u16,
    /// The port of the backends.
    pub target: u16,
}

impl Family {
    /// `IPv4` or `IPv6`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl ServiceManifest {
    /// A service without address, port or annotation.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            vips: Vec::new(),
            ports: Vec::new(),
            selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            annotations: BTreeMap::new(),
            internal_policy: None,
        }
    }

    /// Adds an IPv4 ClusterIP.
    pub fn vip4(mut self, address: &str) -> Self {
        self.vips.push((Family::V4, address.to_owned()));
        self
    }

    /// Adds an IPv6 ClusterIP.
    pub fn vip6(mut self, address: &str) -> Self {
        self.vips.push((Family::V6, address.to_owned()));
        self
    }

    /// Adds the TCP port `http`, which leads to port 8080 of the pods.
    pub fn port(self, port: u16) -> Self {
        self.port_to("http", "TCP", port, 8080)
    }

    /// Adds the UDP port `echo`, which leads to port 9000 of the pods.
    pub fn udp_port(self, port: u16) -> Self {
        self.port_to("echo", "UDP", port, 9000)
    }

    /// Adds a port.
    pub fn port_to(mut self, name: &str, protocol: &'static str, port: u16, target: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), protocol, port, target });
        self
    }

    /// Replaces the selector.
    pub fn selector(mut self, labels: &[(&str, &str)]) -> Self {
        self.selector = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        self
    }

    /// Sets an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes an annotation away.
    pub fn without_annotation(mut self, key: &str) -> Self {
        self.annotations.remove(key);
        self
    }

    /// Makes it global.
    pub fn global(self) -> Self {
        self.annotation(GLOBAL, "true")
    }

    /// Sets `internalTrafficPolicy`.
    pub fn internal_traffic_policy(mut self, policy: &str) -> Self {
        self.internal_policy = Some(policy.to_owned());
        self
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The families that it has addresses of.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().filter(|family| self.vips.iter().any(|(vip, _)| vip == family))
    }

    /// Its ports.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Whether it selects a pod with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The object.
    pub fn object(&self) -> Value {
        let vips: Vec<&str> = self.vips.iter().map(|(_, vip)| vip.as_str()).collect();
        let families: Vec<&str> = self.vips.iter().map(|(family, _)| family.name()).collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                json!({ "name": port.name, "protocol": port.protocol, "port": port.port, "targetPort": port.target })
            })
            .collect();
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": self.namespace, "name": self.name, "annotations": self.annotations },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": vips.first().copied().unwrap_or("None"),
                "clusterIPs": vips,
                "ipFamilies": families,
                "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
                "ports": ports,
                "selector": self.selector,
            },
        });
        if let Some(policy) = &self.internal_policy {
            object["spec"]["internalTrafficPolicy"] = json!(policy);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_selector_selects_nothing() {
        let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
        assert!(ServiceManifest::new("shop", "echo").selects(&labels));
        assert!(!ServiceManifest::new("shop", "echo").selector(&[]).selects(&labels));
        assert!(
            !ServiceManifest::new("shop", "echo").selector(&[("app", "echo"), ("v", "2")]).selects(&labels)
        );
    }

    #[test]
    fn both_families() {
        let object =
            ServiceManifest::new("shop", "echo").vip4("10.96.0.10").vip6("fd00:96::10").port(80).object();
        assert_eq!(object["spec"]["clusterIPs"], json!(["10.96.0.10", "fd00:96::10"]));
        assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(object["spec"]["ports"][0]["targetPort"], 8080);
    }
}
