//! The rules of global services, one by one, over an API server: which services and backends peers see, and what the own
//! agents are told. Each test is a table; all rows of a table are objects of one cluster at the same time.
//!
//! | rule (Cilium's documentation and sources) | here |
//! |---|---|
//! | `global`, its alias, which wins, what counts as true | [`what_makes_a_service_global`] |
//! | `shared`, its alias, its default; the matrix of both, export side | [`what_makes_a_service_shared`] |
//! | `affinity` and its alias; ignored unless global; unknown values | [`what_prefers_backends`] |
//! | annotations about balancing do not cross the mesh | [`annotations_about_balancing_stay_at_home`] |
//! | hints of zones travel | [`hints_of_zones_travel`] |
//! | namespaces that take part, both defaults, live | [`a_namespace_takes_part_or_not`] |
//! | ports keep name and number; several names of one port | [`ports_are_offered_by_name_with_numbers_of_their_own`] |
//! | ExternalName is never merged; headless has no frontends | [`what_a_service_is_decides_what_is_offered`] |
//! | conditions of endpoints, in both forms | [`conditions_decide_who_takes_traffic`] |
//! | which forms a cluster says it exports | [`a_cluster_says_which_forms_it_exports`] |
//! | `global-sync-endpoint-slices` | `remote_slices.rs` |
//!
//! Not for the source and the export to show, but for those who read: that names must be equal and both sides global, the
//! matrix's import side, services without a local one, and which of two equal addresses wins (`peering`, `topology` and the
//! lab's `tests/sharing.rs`, `tests/affinity.rs`); the addresses that the own kernel has (`mesh-agent`). The modes in which
//! only slices are exported do not exist here. `source clustermesh`, weights and states are Cilium's own tables.

use anyhow::{Context, Result, ensure};
use e2e::kube_api::{KubeApi, SmallOptions};
use e2e::status::expect_finding;
use serde_json::{Map, Value, json};

use crate::ground::{Ground, Hub, Records};
use crate::objects::{namespace, node, pod, service, slice};

const GLOBAL: &str = "service.cilium.io/global";
const GLOBAL_ALIAS: &str = "io.cilium/global-service";
const SHARED: &str = "service.cilium.io/shared";
const SHARED_ALIAS: &str = "io.cilium/shared-service";
const AFFINITY: &str = "service.cilium.io/affinity";
const AFFINITY_ALIAS: &str = "io.cilium/service-affinity";

/// Annotations of a service, and what is expected of it.
type Row<T> = (&'static [(&'static str, &'static str)], T);

/// A service of namespace `shop` with these annotations alone, and a slice with one backend.
fn annotated(number: usize, annotations: &[(&str, &str)]) -> [Value; 2] {
    let name = format!("s{number}");
    let mut service = service(&name, &format!("10.96.4.{}", number + 1));
    let annotations: Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    service["metadata"]["annotations"] = Value::Object(annotations);
    [service, slice(&name, &format!("{name}-a"), &[format!("10.1.4.{}", number + 1)])]
}

/// A hub of services with the annotations of the rows, and its records.
async fn hub_of<T>(rows: &[Row<T>]) -> Result<(Ground, Hub, Records)> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([namespace("shop", true)]).await?;
    for (number, (annotations, _)) in rows.iter().enumerate() {
        ground.apply(annotated(number, annotations)).await?;
    }
    let hub = ground.hub("rules")?;
    hub.ready().await?;
    let records = hub.records().await?;
    Ok((ground, hub, records))
}

fn key(kind: &str, name: &str) -> String {
    format!("cilium/state/{kind}/v1/paris/shop/{name}")
}

/// What peers see of a service; `None` if nothing.
fn offered(records: &Records, name: &str) -> Result<Option<Value>> {
    let record = records.get(&key("services", name));
    Ok(record.map(|record| serde_json::from_str(&record.value)).transpose()?)
}

/// What the own agents are told of a service.
fn told(records: &Records, name: &str) -> Result<Value> {
    let record = records.get(&format!("isthmus/v1/local/services/shop/{name}"));
    Ok(serde_json::from_str(&record.with_context(|| format!("agents know no {name}"))?.value)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_service_global() -> Result<()> {
    let rows: [Row<bool>; 11] = [
        (&[], false),
        (&[(GLOBAL, "true")], true),
        (&[(GLOBAL, "TRUE")], true),
        (&[(GLOBAL, "false")], false),
        (&[(GLOBAL, "yes")], false),
        (&[(GLOBAL, "1")], false),
        (&[(GLOBAL, "")], false),
        (&[(GLOBAL_ALIAS, "True")], true),
        (&[(GLOBAL_ALIAS, "false")], false),
        (&[(GLOBAL, "true"), (GLOBAL_ALIAS, "false")], true),
        (&[(GLOBAL, "false"), (GLOBAL_ALIAS, "true")], false),
    ];
    let (ground, hub, records) = hub_of(&rows).await?;
    for (number, (annotations, global)) in rows.iter().enumerate() {
        let name = format!("s{number}");
        let told = told(&records, &name)?;
        ensure!(told["global"] == *global, "{annotations:?}: {told}");
        let offered = offered(&records, &name)?;
        ensure!(offered.is_some() == *global, "{annotations:?}: {offered:?}");
        let slice = records.contains_key(&key("endpointslices", &format!("{name}-a")));
        ensure!(slice == *global, "{annotations:?}: the slice {slice}");
    }
    for odd in ["s4", "s5", "s6"] {
        let status = hub.status().await?;
        expect_finding(&status["findings"], &["annotation-value", &format!("shop/{odd}"), GLOBAL])?;
    }
    // A service that is global no longer is taken back, and so are its slices.
    ground.apply(annotated(1, &[])).await?;
    hub.publishes("the service is taken back", |records| {
        ensure!(offered(records, "s1")?.is_none(), "still there");
        ensure!(!records.contains_key(&key("endpointslices", "s1-a")), "the slice is still there");
        Ok(())
    })
    .await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_service_shared() -> Result<()> {
    let rows: [Row<bool>; 10] = [
        (&[(GLOBAL, "true")], true),
        (&[(GLOBAL, "true"), (SHARED, "true")], true),
        (&[(GLOBAL, "true"), (SHARED, "True")], true),
        (&[(GLOBAL, "true"), (SHARED, "false")], false),
        (&[(GLOBAL, "true"), (SHARED, "no")], false),
        (&[(GLOBAL, "true"), (SHARED, "")], false),
        (&[(GLOBAL, "true"), (SHARED_ALIAS, "false")], false),
        (&[(GLOBAL, "true"), (SHARED, "true"), (SHARED_ALIAS, "false")], true),
        (&[(SHARED, "true")], false),
        (&[(GLOBAL, "false"), (SHARED, "true")], false),
    ];
    let (ground, hub, records) = hub_of(&rows).await?;
    for (number, (annotations, shared)) in rows.iter().enumerate() {
        let name = format!("s{number}");
        let told = told(&records, &name)?;
        ensure!(told["shared"] == *shared, "{annotations:?}: {told}");
        let global = annotations.contains(&(GLOBAL, "true"));
        ensure!(told["global"] == global, "what is not shared imports all the same: {annotations:?}: {told}");
        ensure!(told["backends"].as_array().is_some_and(|backends| backends.len() == 1), "{told}");
        match offered(&records, &name)? {
            Some(value) if *shared => ensure!(value["shared"] == true, "{value}"),
            found => ensure!(found.is_none() && !shared, "{annotations:?}: {found:?}"),
        }
    }
    ground.apply(annotated(0, &[(GLOBAL, "true"), (SHARED, "false")])).await?;
    hub.publishes("its backends are taken back", |records| {
        ensure!(offered(records, "s0")?.is_none(), "still there");
        ensure!(told(records, "s0")?["global"] == true, "it imports no longer");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prefers_backends() -> Result<()> {
    let rows: [Row<&str>; 11] = [
        (&[(GLOBAL, "true")], "none"),
        (&[(GLOBAL, "true"), (AFFINITY, "local")], "local"),
        (&[(GLOBAL, "true"), (AFFINITY, "Local")], "local"),
        (&[(GLOBAL, "true"), (AFFINITY, "remote")], "remote"),
        (&[(GLOBAL, "true"), (AFFINITY, "none")], "none"),
        (&[(GLOBAL, "true"), (AFFINITY, "")], "none"),
        (&[(GLOBAL, "true"), (AFFINITY, "nearest")], "none"),
        (&[(GLOBAL, "true"), (AFFINITY_ALIAS, "remote")], "remote"),
        (&[(GLOBAL, "true"), (AFFINITY, "local"), (AFFINITY_ALIAS, "remote")], "local"),
        (&[(AFFINITY, "local")], "none"),
        (&[(GLOBAL, "false"), (AFFINITY, "remote")], "none"),
    ];
    let (_ground, hub, records) = hub_of(&rows).await?;
    for (number, (annotations, affinity)) in rows.iter().enumerate() {
        let told = told(&records, &format!("s{number}"))?;
        ensure!(told["affinity"] == *affinity, "{annotations:?}: {told}");
    }
    // It is for the own cluster to say: peers see nothing of it.
    let values: Vec<Value> = [0, 1, 3]
        .into_iter()
        .map(|number| offered(&records, &format!("s{number}"))?.context("offered"))
        .collect::<Result<_>>()?;
    ensure!(values.iter().all(|value| !value.to_string().contains("ffinity")), "{values:?}");
    let status = hub.status().await?;
    expect_finding(&status["findings"], &["annotation-value", "shop/s6", "nearest", "treated as none"])
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_about_balancing_stay_at_home() -> Result<()> {
    let rows: [Row<()>; 9] = [
        (&[(GLOBAL, "true")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/lb-algorithm", "maglev")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/type", "LoadBalancer")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/node", "n1")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/node-selector", "a=b")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/src-ranges-policy", "deny")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/proxy-delegation", "delegate-if-local")], ()),
        (&[(GLOBAL, "true"), ("service.cilium.io/forwarding-mode", "snat")], ()),
        (&[(GLOBAL, "true"), ("service.kubernetes.io/topology-mode", "Auto")], ()),
    ];
    let (_ground, _hub, records) = hub_of(&rows).await?;
    for (number, (annotations, ())) in rows.iter().enumerate() {
        let value = offered(&records, &format!("s{number}"))?.context("offered")?;
        let members: Vec<&String> = value.as_object().context("an object")?.keys().collect();
        let usual = [
            "backends",
            "cluster",
            "clusterID",
            "frontends",
            "includeExternal",
            "labels",
            "name",
            "namespace",
            "selector",
            "shared",
        ];
        ensure!(members.iter().all(|member| usual.contains(&member.as_str())), "{annotations:?}: {value}");
        ensure!(members.len() == usual.len(), "{annotations:?}: {value}");
        ensure!(value["labels"] == json!({"app": format!("s{number}")}), "{value}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_of_zones_travel() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    let mut hinted = slice("cart", "cart-a", &[]);
    hinted["endpoints"] = json!([
        {"addresses": ["10.1.4.1"], "zone": "a", "hints": {"forZones": [{"name": "a"}, {"name": "b"}]}},
        {"addresses": ["10.1.4.2"], "zone": "b"},
        {"addresses": ["10.1.4.3"]},
    ]);
    ground.apply([namespace("shop", true), service("cart", "10.96.4.1"), hinted]).await?;
    let hub = ground.hub("zones")?;
    hub.ready().await?;
    let records = hub.records().await?;
    let value = offered(&records, "cart")?.context("offered")?;
    let expected = json!({
        "10.1.4.1": {"zone": "a", "forZones": [{"name": "a"}, {"name": "b"}]},
        "10.1.4.2": {"zone": "b", "forZones": []},
    });
    ensure!(value["zones"] == expected, "{value}");
    ensure!(value["backends"].as_object().is_some_and(|backends| backends.len() == 3), "{value}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_takes_part_or_not() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    // Namespace, its annotation, whether it takes part by default, and without a default.
    let rows = [
        ("plain", None, true, false),
        ("yes", Some("true"), true, true),
        ("loud", Some("TRUE"), true, true),
        ("no", Some("false"), false, false),
        ("odd", Some("yes"), false, false),
        ("empty", Some(""), false, false),
    ];
    ground.load([node(1)])?;
    for (at, (name, annotation, ..)) in rows.iter().enumerate() {
        let mut space = namespace(name, true);
        space["metadata"]["annotations"] = match annotation {
            Some(text) => json!({"clustermesh.cilium.io/global": text}),
            None => json!({}),
        };
        let mut objects = vec![service("s", &format!("10.96.4.{}", at + 1))];
        objects.push(slice("s", "s-a", &[format!("10.1.4.{}", at + 1)]));
        objects.push(pod("p", &format!("app-{name}"), &format!("10.1.5.{}", at + 1)));
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(name);
        }
        ground.load([space])?;
        ground.load(objects)?;
    }
    let ours = |name: &str, at: usize| {
        [
            format!("cilium/state/services/v1/paris/{name}/s"),
            format!("cilium/state/endpointslices/v1/paris/{name}/s-a"),
            format!("cilium/state/ip/v1/default/10.1.5.{}", at + 1),
        ]
    };
    let check = |records: &Records, by_default: bool| -> Result<()> {
        for (at, (name, annotation, with, without)) in rows.iter().enumerate() {
            let wanted = if by_default { *with } else { *without };
            for key in ours(name, at) {
                ensure!(
                    records.contains_key(&key) == wanted,
                    "{name} {annotation:?}: {key}, expected {wanted}"
                );
            }
            let identity = records.iter().any(|(key, r)| {
                key.contains("/identities/v1/id/") && r.value.contains(&format!("=app-{name};"))
            });
            ensure!(identity == wanted, "{name} {annotation:?}: identity {identity}, expected {wanted}");
            let told = format!("isthmus/v1/local/services/{name}/s");
            ensure!(records.contains_key(&told), "own agents know all services: {told}");
        }
        ensure!(records.contains_key("cilium/state/nodes/v1/paris/n1"), "nodes are always exported");
        Ok(())
    };
    let open = ground.hub("open")?;
    open.ready().await?;
    check(&open.records().await?, true)?;
    let closed = ground.hub_with("closed", vec!["--global-namespaces-by-default=false".to_owned()])?;
    closed.ready().await?;
    check(&closed.records().await?, false)?;

    // Leaving takes everything back, deletions meanwhile included; joining brings what is there.
    ground.load([namespace("yes", false)])?;
    let gone = |records: &Records| -> Result<()> {
        for key in ours("yes", 1) {
            ensure!(!records.contains_key(&key), "{key} is still there");
        }
        ensure!(records.contains_key("cilium/state/nodes/v1/paris/n1"), "nodes stay");
        Ok(())
    };
    open.publishes("the namespace is taken back", gone).await?;
    closed.publishes("the namespace is taken back", gone).await?;
    let mut slice = slice("s", "s-a", &[]);
    slice["metadata"]["namespace"] = json!("yes");
    ground.delete(&slice).await?;
    ground.load([namespace("yes", true)])?;
    let back = |records: &Records| -> Result<()> {
        let [service, slice, address] = ours("yes", 1);
        ensure!(records.contains_key(&service) && records.contains_key(&address), "not yet");
        ensure!(!records.contains_key(&slice), "what was deleted meanwhile stays away");
        Ok(())
    };
    open.publishes("what is left is back", back).await?;
    closed.publishes("what is left is back", back).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_offered_by_name_with_numbers_of_their_own() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    let mut cart = service("cart", "10.96.4.1");
    cart["spec"]["ports"] = json!([
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "web", "port": 81, "targetPort": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    ]);
    let mut backends = slice("cart", "cart-a", &["10.1.4.1".to_owned()]);
    backends["ports"] = json!([
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "web", "port": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
    ]);
    let mut plain = service("plain", "10.96.4.2");
    plain["spec"]["ports"] = json!([{"port": 90, "protocol": "TCP"}]);
    let mut unnamed = slice("plain", "plain-a", &["10.1.4.2".to_owned()]);
    unnamed["ports"] = json!([{"name": "", "port": 9090, "protocol": "TCP"}]);
    ground.apply([namespace("shop", true), cart, backends, plain, unnamed]).await?;
    let hub = ground.hub("ports")?;
    hub.ready().await?;
    let records = hub.records().await?;
    let tcp = |port: u16| json!({"Protocol": "TCP", "Port": port});
    let udp = |port: u16| json!({"Protocol": "UDP", "Port": port});
    let value = offered(&records, "cart")?.context("offered")?;
    let frontends = json!({"10.96.4.1": {"dns": udp(53), "http": tcp(80), "web": tcp(81)}});
    ensure!(value["frontends"] == frontends, "{value}");
    let backends = json!({"10.1.4.1": {"dns": udp(5353), "http": tcp(8080), "web": tcp(8080)}});
    ensure!(value["backends"] == backends, "{value}");
    let value = offered(&records, "plain")?.context("offered")?;
    ensure!(value["frontends"] == json!({"10.96.4.2": {"": tcp(90)}}), "{value}");
    ensure!(value["backends"] == json!({"10.1.4.2": {"": tcp(9090)}}), "{value}");
    // Several names of one port are one backend for the own agents, with all names.
    let told = told(&records, "cart")?;
    let names: Vec<&Value> =
        told["backends"].as_array().into_iter().flatten().map(|backend| &backend["portNames"]).collect();
    ensure!(names == [&json!(["dns"]), &json!(["http", "web"])], "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_is_decides_what_is_offered() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    let mut headless = service("headless", "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let mut elsewhere = service("elsewhere", "");
    elsewhere["spec"] = json!({"type": "ExternalName", "externalName": "db.example"});
    let mut manual = service("manual", "10.96.4.2");
    manual["spec"].as_object_mut().context("an object")?.remove("selector");
    let mut at_home = service("at-home", "10.96.4.3");
    at_home["spec"]["internalTrafficPolicy"] = json!("Local");
    let services = [service("usual", "10.96.4.1"), headless, elsewhere, manual, at_home];
    ground.apply([namespace("shop", true), service("alone", "10.96.4.9")]).await?;
    for (at, service) in services.into_iter().enumerate() {
        let name = service["metadata"]["name"].as_str().context("a name")?.to_owned();
        ground.apply([service, slice(&name, &format!("{name}-a"), &[format!("10.1.4.{}", at + 1)])]).await?;
    }
    let hub = ground.hub("types")?;
    hub.ready().await?;
    let records = hub.records().await?;
    // Name, frontends, backends.
    for (name, expected) in [
        ("usual", Some((1, 1))),
        ("headless", Some((0, 1))),
        ("elsewhere", None),
        ("manual", Some((1, 1))),
        ("at-home", Some((1, 1))),
        ("alone", Some((1, 0))),
    ] {
        let value = offered(&records, name)?;
        let count = |value: &Value| value.as_object().map_or(0, Map::len);
        let found = value.as_ref().map(|value| (count(&value["frontends"]), count(&value["backends"])));
        ensure!(found == expected, "{name}: {value:?}");
    }
    ensure!(told(&records, "elsewhere").is_err(), "a name elsewhere is nothing to balance");
    ensure!(told(&records, "at-home")?["nodeLocal"] == true, "nodeLocal");
    ensure!(!records.contains_key(&key("endpointslices", "elsewhere-a")), "a slice of a name elsewhere");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_who_takes_traffic() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    // Conditions, whether peers see the backend, and whether own agents use it: and if so, as one that goes.
    let rows = [
        (json!({}), true, Some(false)),
        (json!({"ready": true}), true, Some(false)),
        (json!({"ready": true, "serving": true, "terminating": false}), true, Some(false)),
        (json!({"ready": false, "serving": true, "terminating": true}), true, Some(true)),
        (json!({"ready": false, "serving": false, "terminating": true}), false, None),
        (json!({"ready": false, "serving": false, "terminating": false}), false, None),
    ];
    let mut backends = slice("cart", "cart-a", &[]);
    let endpoints: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(at, (conditions, ..))| {
            json!({"addresses": [format!("10.1.4.{}", at + 1)], "conditions": conditions})
        })
        .collect();
    backends["endpoints"] = json!(endpoints);
    ground.apply([namespace("shop", true), service("cart", "10.96.4.1"), backends]).await?;
    let hub = ground.hub("conditions")?;
    hub.ready().await?;
    let records = hub.records().await?;
    let value = offered(&records, "cart")?.context("offered")?;
    let told = told(&records, "cart")?;
    for (at, (conditions, seen, used)) in rows.iter().enumerate() {
        let address = format!("10.1.4.{}", at + 1);
        let offered = value["backends"].get(&address).is_some();
        ensure!(offered == *seen, "{conditions}: {value}");
        let own = told["backends"].as_array().into_iter().flatten();
        let own = own.into_iter().find(|backend| backend["address"] == json!(address));
        let going = own.map(|backend| backend["terminating"] == true);
        ensure!(going == *used, "{conditions}: {told}");
    }
    // The other form carries all endpoints, with their conditions.
    ensure!(records.contains_key(&key("endpointslices", "cart-a")), "the slice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_says_which_forms_it_exports() -> Result<()> {
    let rows: [Row<()>; 1] = [(&[(GLOBAL, "true")], ())];
    let (_ground, _hub, records) = hub_of(&rows).await?;
    let config = records.get("cilium/cluster-config/paris").context("no configuration")?;
    let config: Value = serde_json::from_str(&config.value)?;
    let mode = &config["capabilities"]["endpointSlicesExportMode"];
    ensure!(*mode == "services-and-endpointslices", "{config}");
    ensure!(config["capabilities"]["syncedCanaries"] == true, "{config}");
    ensure!(records.contains_key(&key("services", "s0")), "services");
    ensure!(records.contains_key(&key("endpointslices", "s0-a")), "slices");
    Ok(())
}
