//! How the hub is reached, and by whom.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ETCD_PORT, HUB, HUB_ADMIN_PORT, Object, Part, Target, metadata, selector};
use crate::install::checked::Checked;
use crate::install::values::ServiceType;

pub(super) fn objects(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let mut objects = vec![Object::new(Part::Ground, &service(values, target))];
    if values.hub.network_policy.enabled {
        objects.push(Object::new(Part::Ground, &policy(values, target)));
    }
    objects
}

fn service(values: &Checked, target: Target<'_>) -> Service {
    let from = &values.hub.service;
    let balanced = from.kind == ServiceType::LoadBalancer;
    let mut annotations = BTreeMap::new();
    if balanced {
        let of_cloud = from.cloud.annotations().iter();
        annotations.extend(of_cloud.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }
    annotations.extend(from.annotations.clone());
    let mut metadata = metadata(target, HUB, COMPONENT);
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let kind = match from.kind {
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::NodePort => "NodePort",
        ServiceType::ClusterIP => "ClusterIP",
    };
    let ranges = &from.load_balancer_source_ranges;
    let port = ServicePort {
        name: Some("etcd".to_owned()),
        port: ETCD_PORT,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String("etcd".to_owned())),
        node_port: (from.node_port != 0).then(|| from.node_port.into()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some(kind.to_owned()),
        selector: Some(selector(COMPONENT).into_iter().collect()),
        ports: Some(vec![port]),
        load_balancer_source_ranges: (balanced && !ranges.is_empty()).then(|| ranges.clone()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), ..Service::default() }
}

/// Ingress alone: where the API server, DNS and peers are is not known here. Probes of the kubelet always pass.
fn policy(values: &Checked, target: Target<'_>) -> NetworkPolicy {
    let from = &values.hub.network_policy;
    let port = |port| {
        let port = NetworkPolicyPort {
            port: Some(IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        };
        Some(vec![port])
    };
    let clients = from.clients.iter().map(|block| NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: block.clone(), except: None }),
        ..NetworkPolicyPeer::default()
    });
    let clients: Vec<_> = clients.collect();
    let mut ingress = vec![NetworkPolicyIngressRule {
        from: (!clients.is_empty()).then_some(clients),
        ports: port(ETCD_PORT),
    }];
    if !from.metrics_namespace.is_empty() {
        let name = ("kubernetes.io/metadata.name".to_owned(), from.metrics_namespace.clone());
        let namespace =
            LabelSelector { match_labels: Some([name].into_iter().collect()), ..LabelSelector::default() };
        let reader =
            NetworkPolicyPeer { namespace_selector: Some(namespace), ..NetworkPolicyPeer::default() };
        ingress.push(NetworkPolicyIngressRule { from: Some(vec![reader]), ports: port(HUB_ADMIN_PORT) });
    }
    let selected = LabelSelector {
        match_labels: Some(selector(COMPONENT).into_iter().collect()),
        ..LabelSelector::default()
    };
    NetworkPolicy {
        metadata: metadata(target, HUB, COMPONENT),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selected),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}

const COMPONENT: Option<&str> = Some("hub");
