use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use proptest::prelude::*;
use serde_json::{Value, json};
use topology::record::service::{RemoteBackend, RemoteService};
use topology::snapshot::Member;

use super::*;
use crate::export::annotation::Sharing;
use crate::export::local;

const SETTINGS: Settings = Settings { profile: Profile::Agents, per_slice: 3 };

fn service(extra: &Value) -> GlobalService {
    let mut object = json!({
        "metadata": {"name": "cart", "namespace": "shop", "uid": "u1", "labels": {"app": "cart"},
            "annotations": {"service.cilium.io/global": "true"}},
        "spec": {"clusterIP": "None", "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80}]},
    });
    for (member, value) in extra.as_object().into_iter().flatten() {
        object[member]
            .as_object_mut()
            .expect("an object")
            .extend(value.as_object().cloned().unwrap_or_default());
    }
    let object: Service = serde_json::from_value(object).expect("a service");
    let sharing = Sharing::of(&object, "", &mut Vec::new());
    let local = local::value(name(), &object, sharing, true, std::iter::empty(), &mut Vec::new());
    GlobalService { object: Arc::new(object), local }
}

fn name() -> ServiceName {
    "shop/cart".parse().expect("a name")
}

fn peers(offered: &[(&str, Option<Vec<u8>>)]) -> Peers {
    let member = |(cluster, numbers): &(&str, Option<Vec<u8>>)| {
        let cluster: ClusterName = cluster.parse().expect("a name");
        let member = numbers.as_ref().map(|numbers| {
            let mut member = Member::unknown(cluster.clone());
            let backend = |n: &u8| RemoteBackend {
                address: IpAddr::from([10, 2, 0, *n]),
                port: 8080,
                protocol: Protocol::Tcp,
                port_names: vec!["http".to_owned()],
                zone: Some("z1".to_owned()),
                hostname: Some(format!("pod-{n}")),
            };
            let backends = numbers.iter().map(backend).collect();
            member.services.insert(name(), Arc::new(RemoteService { name: name(), backends }));
            Arc::new(member)
        });
        (cluster, member)
    };
    offered.iter().map(member).collect()
}

/// An API server of one service's slices.
#[derive(Default)]
struct Server {
    slices: Slices,
    revision: u64,
}

impl Server {
    fn make(&mut self, plan: &Plan) {
        for write in &plan.writes {
            self.revision += 1;
            match write {
                Write::Create(slice) | Write::Update(slice) => {
                    let before = self.slices.get(write.name());
                    let revision = before.and_then(|before| before.metadata.resource_version.clone());
                    assert_eq!(slice.metadata.resource_version, revision, "{write:?}");
                    let mut slice = slice.clone();
                    slice.metadata.resource_version = Some(self.revision.to_string());
                    self.slices.insert(write.name().to_owned(), Arc::new(*slice));
                }
                Write::Delete { name, .. } => drop(self.slices.remove(name).expect("it is there")),
            }
        }
    }

    fn plan(&self, service: Option<&GlobalService>, peers: &Peers) -> Plan {
        Plan::new(SETTINGS, &name(), service, &self.slices, peers, &BTreeSet::new())
    }

    /// Makes the plan, and shows that there is nothing left to do.
    fn settle(&mut self, service: Option<&GlobalService>, peers: &Peers) -> Plan {
        let plan = self.plan(service, peers);
        self.make(&plan);
        let again = self.plan(service, peers);
        assert_eq!(again.writes, [], "the second plan");
        assert_eq!((again.slices, again.endpoints), (plan.slices, plan.endpoints));
        plan
    }

    fn addresses(&self, cluster: &str) -> BTreeSet<u8> {
        let of = self.slices.values().filter(|slice| label(slice, SOURCE_CLUSTER) == Some(cluster));
        let addresses = of.flat_map(|slice| addresses(slice));
        addresses.map(|a| if let IpAddr::V4(a) = a { a.octets()[3] } else { 0 }).collect()
    }
}

fn verbs(plan: &Plan) -> Vec<&'static str> {
    plan.writes.iter().map(Write::verb).collect()
}

#[test]
fn a_slice_as_it_is_written() {
    let mut server = Server::default();
    server.settle(Some(&service(&json!({}))), &peers(&[("tokyo", Some(vec![1]))]));
    let slice = server.slices.values().next().expect("a slice");
    let found = serde_json::to_value(&**slice).expect("JSON");
    let name = slice.metadata.name.as_deref().expect("a name");
    assert!(name.starts_with("cart-tokyo-") && name.len() == "cart-tokyo-".len() + 13, "{name}");
    let expected = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "1",
            "labels": {
                "app": "cart",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io",
                "isthmus.dev/written-by": "mesh-apiserver",
                "kubernetes.io/service-name": "cart",
                "multicluster.kubernetes.io/source-cluster": "tokyo",
                "service.kubernetes.io/headless": "",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "cart", "uid": "u1", "controller": true}],
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.2.0.1"], "hostname": "pod-1", "nodeName": "tokyo", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    assert_eq!(found, expected);
}

#[test]
fn hints_where_clients_prefer_their_zone() {
    let mut server = Server::default();
    let service = service(&json!({"spec": {"trafficDistribution": "PreferSameZone"}}));
    server.settle(Some(&service), &peers(&[("tokyo", Some(vec![1]))]));
    let slice = serde_json::to_value(&**server.slices.values().next().expect("a slice")).expect("JSON");
    assert_eq!(slice["endpoints"][0]["hints"], json!({"forZones": [{"name": "z1"}]}));
}

#[test]
fn only_what_changed_is_written() {
    let mut server = Server::default();
    let service = service(&json!({}));
    let plan = server.settle(Some(&service), &peers(&[("tokyo", Some((0..8).collect()))]));
    assert_eq!(verbs(&plan), ["create"; 3]);
    assert_eq!((plan.slices, plan.endpoints), (3, 8));
    let plan = server.settle(Some(&service), &peers(&[("tokyo", Some((0..9).collect()))]));
    assert_eq!(verbs(&plan), ["update"], "there is room");
    let plan =
        server.settle(Some(&service), &peers(&[("tokyo", Some((0..9).filter(|n| *n != 4).collect()))]));
    assert_eq!(verbs(&plan), ["update"]);
    let plan = server.settle(Some(&service), &peers(&[("tokyo", Some(vec![]))]));
    assert_eq!(verbs(&plan), ["delete"; 3]);
}

#[test]
fn what_replaces_a_slice_is_there_first() {
    let mut server = Server::default();
    server.settle(Some(&service(&json!({}))), &peers(&[("tokyo", Some(vec![1]))]));
    let renamed =
        service(&json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "web", "port": 81}]}}));
    let mut told = peers(&[("tokyo", Some(vec![1]))]);
    for member in told.values_mut().flatten() {
        let mut changed = (**member).clone();
        let mut remote = (**changed.services.get(&name()).expect("a service")).clone();
        remote.backends[0].port_names.push("web".to_owned());
        changed.services.insert(name(), Arc::new(remote));
        *member = Arc::new(changed);
    }
    let plan = server.settle(Some(&renamed), &told);
    assert_eq!(verbs(&plan), ["create", "delete"]);
}

#[test]
fn who_is_silent_keeps_what_there_is_and_who_is_gone_does_not() {
    let mut server = Server::default();
    let service = service(&json!({}));
    server.settle(Some(&service), &peers(&[("osaka", Some(vec![9])), ("tokyo", Some(vec![1, 2]))]));
    let plan = server.settle(Some(&service), &peers(&[("osaka", None), ("tokyo", Some(vec![2]))]));
    assert_eq!((server.addresses("osaka"), server.addresses("tokyo")), ([9].into(), [2].into()));
    assert_eq!((plan.slices, plan.endpoints), (2, 2), "what stays is counted");
    server.settle(Some(&service), &peers(&[("tokyo", Some(vec![2]))]));
    assert_eq!(server.addresses("osaka"), BTreeSet::new());
    server.settle(None, &peers(&[("tokyo", None)]));
    assert_eq!(server.slices.len(), 0, "a service that is no longer global has none, whatever peers say");
}

#[test]
fn an_owner_that_was_made_anew_and_labels_of_others() {
    let mut server = Server::default();
    let told = peers(&[("tokyo", Some(vec![1]))]);
    server.settle(Some(&service(&json!({}))), &told);
    let anew = service(&json!({"metadata": {"uid": "u2"}}));
    assert_eq!(verbs(&server.settle(Some(&anew), &told)), ["update"]);
    let slice = server.slices.values_mut().next().expect("a slice");
    Arc::make_mut(slice).metadata.labels.get_or_insert_default().insert("theirs".to_owned(), String::new());
    assert_eq!(server.settle(Some(&anew), &told).writes, [], "labels of others stay");
    let slice = server.slices.values_mut().next().expect("a slice");
    Arc::make_mut(slice).endpoints = Some(Vec::new());
    assert_eq!(verbs(&server.settle(Some(&anew), &told)), ["update"], "a change by others is put right");
}

#[test]
fn another_controller_is_left_alone() {
    let mut server = Server::default();
    let (service, told) = (service(&json!({})), peers(&[("tokyo", Some(vec![1]))]));
    server.settle(Some(&service), &told);
    let mut theirs = (**server.slices.values().next().expect("a slice")).clone();
    theirs.metadata.name = Some("theirs".to_owned());
    theirs.metadata.labels.get_or_insert_default().remove(WRITTEN_BY.0);
    server.slices.insert("theirs".to_owned(), Arc::new(theirs));
    let plan = server.settle(Some(&service), &told);
    assert_eq!(verbs(&plan), ["delete"]);
    assert_eq!(plan.findings.len(), 1, "{:?}", plan.findings);
    assert_eq!(server.slices.keys().collect::<Vec<_>>(), ["theirs"]);
}

#[test]
fn names_do_not_collide() {
    let cluster = |text: &str| text.parse::<ClusterName>().expect("a name");
    let service = |text: &str| ServiceName::new("shop", text).expect("a name");
    let mut used = BTreeSet::new();
    let first = new_name(&service("a-b"), &cluster("c"), &mut used);
    let other = new_name(&service("a"), &cluster("b-c"), &mut used);
    assert_eq!(first[..5], other[..5]);
    assert_ne!(first, other);
    assert_ne!(new_name(&service("a-b"), &cluster("c"), &mut used), first, "taken");
    assert_eq!(new_name(&service("a-b"), &cluster("c"), &mut BTreeSet::new()), first, "the same again");
    let long = new_name(&service(&"x".repeat(253)), &cluster("c"), &mut used);
    assert_eq!(long.len(), 253);
}

proptest! {
    /// Whatever peers tell, in whatever order, the slices end as told, and the limit holds.
    #[test]
    fn slices_follow_what_is_told(
        steps in prop::collection::vec((prop::option::of(prop::collection::btree_set(1u8..30, 0..20)), prop::collection::btree_set(1u8..30, 0..20)), 1..8),
    ) {
        let mut server = Server::default();
        let service = service(&json!({}));
        let mut osaka_last = BTreeSet::new();
        for (osaka, tokyo) in steps {
            let numbers = |set: &BTreeSet<u8>| set.iter().copied().collect::<Vec<_>>();
            let told = peers(&[("osaka", osaka.as_ref().map(numbers)), ("tokyo", Some(numbers(&tokyo)))]);
            server.settle(Some(&service), &told);
            // Of two clusters that offer an address, each has it in slices of its own.
            osaka_last = osaka.unwrap_or(osaka_last);
            prop_assert_eq!(&server.addresses("osaka"), &osaka_last);
            prop_assert_eq!(server.addresses("tokyo"), tokyo);
            prop_assert!(server.slices.values().all(|slice| slice.endpoints.as_ref().is_some_and(|e| (1..=3).contains(&e.len()))));
        }
    }
}
