//! Values that can be installed: what a schema cannot say, and what it says, with reasons.

use std::fmt;
use std::ops::Deref;

use ipnet::IpNet;
use topology::ClusterName;

use super::values::{ServiceType, Values};

/// Values in which nothing is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked(Values);

/// Everything that is wrong with some values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unusable(pub Vec<String>);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "these values cannot be installed: {}", self.0.join("; "))
    }
}

impl Deref for Checked {
    type Target = Values;

    fn deref(&self) -> &Values {
        &self.0
    }
}

impl Checked {
    /// Fails with all that is wrong.
    pub fn new(values: Values) -> Result<Self, Unusable> {
        let wrong = problems(&values);
        if wrong.is_empty() { Ok(Self(values)) } else { Err(Unusable(wrong)) }
    }
}

fn problems(values: &Values) -> Vec<String> {
    let mut wrong = Vec::new();
    let cluster = &values.cluster;
    if let Err(error) = cluster.name.parse::<ClusterName>() {
        wrong.push(format!("cluster.name: {error}"));
    }
    let max = cluster.max_connected_clusters;
    if ![255, 511].contains(&max) {
        wrong.push(format!("cluster.maxConnectedClusters is {max}, expected 255 or 511"));
    }
    if cluster.id == 0 || cluster.id > max {
        wrong.push(format!("cluster.id is {}, expected 1 to {max}", cluster.id));
    }
    let image = &values.image;
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/[]@".contains(&byte))
    };
    if !plain(&image.registry) || image.registry.ends_with('/') {
        wrong.push(format!(
            "image.registry is {:?}, expected where the archives of `cargo xtask image` were pushed to, such as registry.example/isthmus",
            image.registry
        ));
    }
    if !plain(&image.tag) {
        wrong.push(format!("image.tag is {:?}, expected a tag such as 0.1.0", image.tag));
    }
    one_of("image.pullPolicy", &image.pull_policy, &["Always", "IfNotPresent", "Never"], &mut wrong);
    let hub = &values.hub;
    one_of("hub.bindAddress", &hub.bind_address, &["[::]", "0.0.0.0"], &mut wrong);
    if !(1..=9).contains(&hub.replicas) {
        wrong.push(format!("hub.replicas is {}, expected 1 to 9", hub.replicas));
    }
    for endpoint in &hub.store.etcd {
        let rest = endpoint.strip_prefix("https://");
        if !rest.is_some_and(|rest| rest.contains(':') && plain(rest) && !rest.contains('/')) {
            wrong.push(format!("hub.store.etcd has {endpoint:?}, expected https://HOST:PORT"));
        }
    }
    let service = &hub.service;
    for (name, blocks) in [
        ("hub.networkPolicy.clients", &hub.network_policy.clients),
        ("hub.service.loadBalancerSourceRanges", &service.load_balancer_source_ranges),
    ] {
        for block in blocks.iter().filter(|block| block.parse::<IpNet>().is_err()) {
            wrong.push(format!("{name} has {block:?}, expected a CIDR such as 10.0.0.0/8"));
        }
    }
    if service.node_port != 0 && service.kind == ServiceType::ClusterIP {
        wrong.push("hub.service.nodePort is for the types LoadBalancer and NodePort".to_owned());
    }
    let agent = &values.agent;
    one_of("agent.seccompProfile", &agent.seccomp_profile, &["RuntimeDefault", "Unconfined"], &mut wrong);
    if !agent.cgroup_root.starts_with('/') || agent.cgroup.split('/').any(|part| part == "..") {
        wrong.push("agent.cgroupRoot must be an absolute path, and agent.cgroup one below it".to_owned());
    }
    for (name, secret) in [
        ("hub.tlsSecret", &hub.tls_secret),
        ("hub.store.tlsSecret", &hub.store.tls_secret),
        ("agent.localTlsSecret", &agent.local_tls_secret),
        ("agent.remoteTlsSecret", &agent.remote_tls_secret),
        ("agent.peersSecret", &agent.peers_secret),
    ] {
        if secret.is_empty() {
            wrong.push(format!("{name} is empty, expected the name of a Secret"));
        }
    }
    for (name, tolerations) in
        [("hub.tolerations", &hub.tolerations), ("agent.tolerations", &agent.tolerations)]
    {
        for toleration in tolerations {
            if let Err(error) = super::render::toleration(toleration) {
                wrong.push(format!("{name}: {error}"));
            }
        }
    }
    wrong
}

fn one_of(name: &str, found: &str, expected: &[&str], wrong: &mut Vec<String>) {
    if !expected.contains(&found) {
        wrong.push(format!("{name} is {found:?}, expected {}", expected.join(" or ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_named() {
        let Unusable(wrong) = Checked::new(Values::default()).expect_err("nothing is set");
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        let mut values = Values::default();
        values.cluster.name = "paris".to_owned();
        values.cluster.id = 300;
        values.image.registry = "r.example/i".to_owned();
        values.hub.store.etcd = vec!["http://a:1".to_owned()];
        values.hub.network_policy.clients = vec!["10.0.0.0/33".to_owned()];
        values.agent.cgroup = "../x".to_owned();
        let Unusable(wrong) = Checked::new(values.clone()).expect_err("four faults");
        assert_eq!(wrong.len(), 4, "{wrong:#?}");
        values.cluster.max_connected_clusters = 511;
        values.hub.store.etcd = vec!["https://a.svc:2379".to_owned()];
        values.hub.network_policy.clients = vec!["10.0.0.0/8".to_owned()];
        values.agent.cgroup = "kubepods.slice".to_owned();
        Checked::new(values).expect("sound");
    }
}
