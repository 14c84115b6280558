//! What each part publishes: a function of the objects, and of who has which address and identity.

use std::net::IpAddr;

use topology::ServiceName;
use topology::record::config::ClusterConfig;
use topology::record::key;

use super::Exporter;
use crate::export::annotation::Sharing;
use crate::export::{Output, Part, cilium, local, namespace, node, pod, service, slice};
use crate::finding::{Finding, Reason};
use crate::identity::Numbering;
use crate::index::owner;

impl Exporter {
    /// What a part publishes now.
    pub(super) fn compute(&self, part: &Part) -> Output {
        match part {
            Part::Config => self.config(),
            Part::Foreign => self.foreign(),
            Part::Node(name) if self.numbering == Numbering::Cilium => match self.index.cilium_node(name) {
                Some(object) => cilium::node_record(&self.cluster, name, object),
                None => Output::default(),
            },
            Part::Identity(identity) if self.numbering == Numbering::Cilium => {
                self.cilium_identity(*identity)
            }
            Part::Node(name) => match self.index.node(name) {
                Some(object) => node::record(&self.cluster, name, object),
                None => Output::default(),
            },
            Part::Identity(identity) => match self.identities.labels(*identity) {
                Some(labels) if self.users.contains_key(identity) => {
                    pod::identity_record(&self.cluster, *identity, labels)
                }
                _ => Output::default(),
            },
            Part::Address(address) => self.address(*address),
            Part::Pod(namespace, name) => self.pod_findings(namespace, name),
            Part::Service(namespace, name) => self.service(namespace, name),
            Part::Slice(namespace, name) => self.slice(namespace, name),
        }
    }

    fn config(&self) -> Output {
        let mut output = Output::default();
        let config = ClusterConfig::of_hub(self.cluster.id, self.cluster.max);
        output.publish(key::cluster_config(&self.cluster.name), config.encode());
        output
    }

    fn address(&self, address: IpAddr) -> Output {
        let mut claims = self.claims.get(&address).into_iter().flatten();
        let Some((first, identity)) = claims.next() else { return Output::default() };
        let mut output = if self.numbering == Numbering::Cilium {
            match self.index.cilium_endpoint(&first.namespace, &first.name) {
                Some(endpoint) => cilium::address_record(&self.cluster, address, endpoint),
                None => return Output::default(),
            }
        } else {
            let Some(pod) = self.index.pod(&first.namespace, &first.name) else { return Output::default() };
            let node = pod.node.as_deref().and_then(|name| self.index.node(name));
            let node = node.map(|node| &**node);
            pod::address_record(&self.cluster, address, *identity, first, pod, node)
        };
        for (other, _) in claims {
            output.findings.push(
                Finding::error(Reason::AddressClaimedTwice, format_args!("Pod {}/{}", other.namespace, other.name))
                    .found(format_args!(
                        "claims address {address}, which Pod {}/{} has",
                        first.namespace, first.name
                    ))
                    .expected("each address to belong to one pod")
                    .so("the older pod, else the one whose name comes first, keeps the address; correct status.podIPs"),
            );
        }
        output
    }

    fn pod_findings(&self, namespace: &str, name: &str) -> Output {
        let Some(object) = self.index.pod(namespace, name).filter(|_| self.numbering != Numbering::Cilium)
        else {
            return Output::default();
        };
        let space = self.index.space(namespace).and_then(|space| space.object());
        let (facts, mut findings) = pod::facts(&self.cluster, &self.filter, namespace, name, object, space);
        let identity = self.pods.get(&(namespace.to_owned(), name.to_owned())).and_then(|pod| pod.identity);
        if facts.is_some() && identity.is_none() {
            let (_, all) = self.identities.usage();
            findings.push(
                Finding::error(Reason::IdentitiesExhausted, format_args!("Pod {namespace}/{name}"))
                    .found(format_args!(
                        "its labels have no identity, and all {all} of the cluster are in use"
                    ))
                    .expected("fewer distinct sets of labels")
                    .so("published as unknown (identity 0)"),
            );
        }
        Output { findings, ..Output::default() }
    }

    fn service(&self, namespace: &str, name: &str) -> Output {
        let mut output = Output::default();
        let Some(space) = self.index.space(namespace) else { return output };
        let Some(object) = space.services().get(name) else { return output };
        if service::is_external_name(object) {
            return output;
        }
        let Ok(service_name) = ServiceName::new(namespace, name) else { return output };
        let label = format!("Service {service_name}");
        let sharing = Sharing::of(object, &label, &mut output.findings);
        let published = self.is_published(namespace, sharing);
        if published {
            let value = service::value(&self.cluster, namespace, name, object, space.slices_of(name));
            output.publish(key::service(&self.cluster.name, &service_name), value.encode());
        } else if sharing.shared {
            output.findings.push(
                Finding::info(Reason::NothingExported, &label)
                    .found(format_args!(
                        "the service is global, but namespace {namespace} takes no part in the mesh"
                    ))
                    .so(format_args!(
                        "its backends are not published; annotate the namespace {}=true",
                        namespace::GLOBAL
                    )),
            );
        }
        let own = space.slices_of(name);
        let value = local::value(service_name, object, sharing, published, own, &mut output.findings);
        // Where Cilium runs, pods are not read.
        let tells = self.numbering != Numbering::Cilium && value.backends.is_empty();
        if let Some(selector) = service::selector(object).filter(|_| tells) {
            let has_endpoints =
                space.slices_of(name).any(|(_, slice)| slice.endpoints.iter().flatten().next().is_some());
            if !has_endpoints && !service::selects_any(selector, space.pods().values().map(|pod| &**pod)) {
                output.findings.push(
                    Finding::info(Reason::SelectorMatchesNothing, &label)
                        .found(format_args!("selector {} matches no pod", service::selector_text(selector)))
                        .expected(format_args!(
                            "a pod of namespace {namespace} with these labels, or endpoint slices"
                        ))
                        .so("the service has no backends in this cluster"),
                );
            }
        }
        output.publish(key::local_service(&value.name), value.encode());
        output
    }

    fn slice(&self, namespace: &str, name: &str) -> Output {
        let Some(object) = self.index.slice(namespace, name) else { return Output::default() };
        let Some(service_name) = owner(object).filter(|_| service::is_exported(object)) else {
            return Output::default();
        };
        let Some(service) = self.index.service(namespace, service_name) else {
            let finding =
                Finding::info(Reason::ServiceMissing, format_args!("EndpointSlice {namespace}/{name}"))
                    .found(format_args!("it names Service {namespace}/{service_name}, which is not there"))
                    .so("not used");
            return Output { findings: vec![finding], ..Output::default() };
        };
        let sharing = Sharing::of(service, "", &mut Vec::new());
        match self.is_published(namespace, sharing) && !service::is_external_name(service) {
            true => slice::record(&self.cluster, namespace, name, object),
            false => Output::default(),
        }
    }

    fn is_published(&self, namespace: &str, sharing: Sharing) -> bool {
        let object = self.index.space(namespace).and_then(|space| space.object());
        sharing.shared && namespace::is_global(&self.cluster, object)
    }
}
