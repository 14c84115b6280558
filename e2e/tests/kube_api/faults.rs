//! What goes wrong on request with the small API server, and how the real client gets over it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::kube_api::{Fault, KubeApi, RealApi, RealPrograms, Requests, SmallApi, SmallOptions};
use e2e::programs::Programs;
use futures_util::StreamExt;
use http::{Method, Request, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Mirror, SOON, client, client_with_token, config_map, nothing_unsupported, refused};

async fn small() -> Result<(KubeApi, Client)> {
    let api = KubeApi::start_small(SmallOptions::default()).await?;
    let client = client(&api).await?;
    Ok((api, client))
}

fn server(api: &KubeApi) -> &SmallApi {
    api.small().expect("started as the small one")
}

/// Writes past the network: the server may be away.
fn load(api: &KubeApi, name: &str, value: &str) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"},
        "data": {"value": value}});
    server(api).load([map]).map(drop).context("load")
}

/// The client without its own retries, to see what the server says.
async fn plain_client(api: &KubeApi) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig()).context("read kubeconfig")?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Client::try_from(config).context("client")
}

async fn watcher_gets_over(fault: Fault, config: watcher::Config) -> Result<()> {
    let (api, client) = small().await?;
    load(&api, "a", "1")?;
    load(&api, "b", "1")?;
    let mirror = Mirror::follow(Api::namespaced(client, "shop"), config);
    mirror.shows(&[("a", "1"), ("b", "1")]).await?;
    // What happens while nobody watches must not be lost.
    server(&api).faults().inject(fault.clone()).await;
    load(&api, "a", "2")?;
    load(&api, "c", "1")?;
    mirror.shows(&[("a", "2"), ("b", "1"), ("c", "1")]).await.with_context(|| format!("{fault:?}"))?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_watcher_gets_over_lost_watches() -> Result<()> {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        for fault in [
            Fault::DropWatches { broken: false },
            Fault::DropWatches { broken: true },
            Fault::FailWatches { status: 410 },
            Fault::Restart { millis: 0, new_history: false },
            Fault::Restart { millis: 50, new_history: true },
            Fault::RefuseConnections { millis: 200 },
        ] {
            watcher_gets_over(fault, config.clone()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_from_forgotten_history_lists_again() -> Result<()> {
    let (api, client) = small().await?;
    load(&api, "a", "1")?;
    let mirror = Mirror::follow(Api::namespaced(client, "shop"), watcher::Config::default());
    mirror.shows(&[("a", "1")]).await?;
    let faults = server(&api).faults();
    let lists = server(&api).requests().count("list configmaps");
    // While watching is refused, the history passes by.
    let only = Requests::of("watch", "configmaps");
    faults.inject(Fault::Answer { only, status: 500, retry_after_secs: None, count: None });
    faults.inject(Fault::DropWatches { broken: false });
    eventually("the watch is refused", SOON, || async {
        let tally = server(&api).requests();
        ensure!(tally.count("watch configmaps") > 1, "{tally:?}");
        Ok(())
    })
    .await?;
    load(&api, "a", "2")?;
    faults.inject(Fault::Compact);
    faults.inject(Fault::Clear);
    mirror.shows(&[("a", "2")]).await?;
    let again = server(&api).requests().count("list configmaps");
    ensure!(again > lists, "listed {lists} times before, {again} times after");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_page_of_a_forgotten_list_is_gone() -> Result<()> {
    let (api, client) = small().await?;
    for name in ["a", "b", "c"] {
        load(&api, name, "1")?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client, "shop");
    let page = maps.list(&ListParams::default().limit(1)).await?;
    assert_eq!(page.metadata.remaining_item_count, Some(2));
    server(&api).faults().inject(Fault::Compact);
    let token = page.metadata.continue_.context("there is more")?;
    refused(maps.list(&ListParams::default().limit(1).continue_token(&token)).await, 410, "Expired")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_watch_that_falls_behind_ends() -> Result<()> {
    let api = KubeApi::start_small(SmallOptions { history_limit: 2, ..SmallOptions::default() }).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client(&api).await?, "shop");
    load(&api, "a", "0")?;
    let from = server(&api).revision().to_string();
    let mut events = std::pin::pin!(maps.watch(&WatchParams::default(), &from).await?);
    for value in ["1", "2", "3", "4"] {
        load(&api, "a", value)?;
    }
    match events.next().await {
        Some(Ok(WatchEvent::Error(status))) if status.code == 410 => {}
        other => anyhow::bail!("expected 410, found {other:?}"),
    }
    ensure!(events.next().await.is_none(), "it goes on");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_namespace_takes_its_content_with_it() -> Result<()> {
    let (api, client) = small().await?;
    load(&api, "a", "1")?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    let namespaces: Api<Namespace> = Api::all(client);
    let hold = Patch::Merge(json!({"metadata": {"finalizers": ["isthmus.dev/hold"]}}));
    maps.patch("a", &PatchParams::default(), &hold).await?;
    namespaces.delete("shop", &DeleteParams::default()).await?;
    let phase = namespaces.get("shop").await?.status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let more = maps.create(&PostParams::default(), &config_map("b", &json!({}), "1")).await;
    refused(more, 403, "Forbidden")?;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &release).await?;
    refused(namespaces.get("shop").await, 404, "NotFound")?;
    refused(maps.create(&PostParams::default(), &config_map("b", &json!({}), "1")).await, 404, "NotFound")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_dry_run_keeps_nothing() -> Result<()> {
    let (api, client) = small().await?;
    load(&api, "a", "1")?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "shop");
    let before = server(&api).revision();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("b", &json!({}), "1")).await?;
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": "2"}});
    let shown =
        maps.patch("a", &PatchParams::apply("test").force().dry_run(), &Patch::Apply(applied)).await?;
    assert_eq!(shown.data.and_then(|data| data.get("value").cloned()).as_deref(), Some("2"));
    maps.delete("a", &DeleteParams::default().dry_run()).await?;
    assert_eq!(server(&api).revision(), before);
    nothing_unsupported(&api)
}

#[tokio::test]
async fn answers_on_request() -> Result<()> {
    let (api, _) = small().await?;
    let client = plain_client(&api).await?;
    let services: Api<Service> = Api::all(client.clone());
    let faults = server(&api).faults();
    for (status, reason) in
        [(410, "Expired"), (429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")]
    {
        let only = Requests::of("list", "services");
        faults.inject(Fault::Answer { only, status, retry_after_secs: Some(7), count: Some(1) });
        let request = Request::get("/api/v1/services").body(kube::client::Body::empty())?;
        let answer = client.send(request).await?;
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.headers().get("retry-after").and_then(|value| value.to_str().ok()), Some("7"));
        services
            .list(&ListParams::default())
            .await
            .with_context(|| format!("after the {status}, {reason}"))?;
    }
    faults.inject(Fault::Deny {
        only: Requests { namespace: Some("shop".to_owned()), ..Requests::of("list", "services") },
    });
    services.list(&ListParams::default()).await.context("another place is not denied")?;
    let here: Api<Service> = Api::namespaced(client.clone(), "shop");
    let message = refused(here.list(&ListParams::default()).await, 403, "Forbidden")?;
    ensure!(
        message.contains("cannot list resource \"services\" in API group \"\" in the namespace \"shop\""),
        "{message}"
    );
    faults.inject(Fault::Clear);
    here.list(&ListParams::default()).await.context("cleared")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn the_clock_may_be_wrong() -> Result<()> {
    let (api, client) = small().await?;
    server(&api).faults().inject(Fault::ClockSkew { secs: -400 * 24 * 3600 });
    let answer = client.send(Request::get("/version").body(kube::client::Body::empty())?).await?;
    let date = answer.headers().get("date").context("no date")?.to_str()?.to_owned();
    let year =
        |text: &str| text.split([' ', '-']).find_map(|part| part.parse::<i64>().ok().filter(|n| *n > 1000));
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let made = maps.create(&PostParams::default(), &config_map("a", &json!({}), "1")).await?;
    let created = serde_json::to_value(&made.metadata.creation_timestamp)?.to_string();
    let created = year(created.trim_matches('"')).context("no year")?;
    let now: i64 = jiff::Timestamp::now().strftime("%Y").to_string().parse()?;
    let seen = year(&date).with_context(|| format!("no year in {date}"))?;
    ensure!(seen < now && created < now, "{date}, {created}: not before {now}");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_counted() -> Result<()> {
    let (api, client) = small().await?;
    load(&api, "a", "1")?;
    let map = "/api/v1/namespaces/shop/configmaps/a";
    let json_patch = json!([{"op": "remove", "path": "/data/value"}]).to_string();
    let cases = [
        (Method::GET, "/openapi/v2".to_owned(), "", String::new(), 404),
        (Method::GET, "/api/v1/configmaps?shardSelector=x".to_owned(), "", String::new(), 400),
        (Method::GET, "/api/v1/configmaps?fieldSelector=data.value%3Dx".to_owned(), "", String::new(), 400),
        (Method::GET, format!("{map}?watch=1"), "", String::new(), 501),
        (Method::PATCH, map.to_owned(), "application/json-patch+json", json_patch, 415),
        (
            Method::PATCH,
            map.to_owned(),
            "application/strategic-merge-patch+json",
            json!({"data": {"a": "b"}}).to_string(),
            501,
        ),
        (
            Method::POST,
            "/api/v1/namespaces/shop/pods/a/eviction".to_owned(),
            "application/json",
            "{}".to_owned(),
            501,
        ),
        (
            Method::PUT,
            "/apis/apps/v1/namespaces/shop/deployments/a/scale".to_owned(),
            "application/json",
            "{}".to_owned(),
            501,
        ),
    ];
    for (number, (method, path, media, body, status)) in cases.into_iter().enumerate() {
        let request = Request::builder().method(&method).uri(&path).header("content-type", media);
        let answer = client.send(request.body(kube::client::Body::from(body.into_bytes()))?).await?;
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let unsupported = server(&api).requests().unsupported;
        assert_eq!(unsupported.len(), number + 1, "{method} {path}: {unsupported:#?}");
    }
    ensure!(nothing_unsupported(&api).is_err(), "the check finds nothing");
    Ok(())
}

#[tokio::test]
async fn without_the_token_nothing_is_told() -> Result<()> {
    let (api, _) = small().await?;
    let stranger = client_with_token(&api, "wrong").await?;
    let services: Api<Service> = Api::all(stranger);
    refused(services.list(&ListParams::default()).await, 401, "Unauthorized")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn an_older_server_has_no_streaming_lists() -> Result<()> {
    let api =
        KubeApi::start_small(SmallOptions { streaming_lists: false, tls: false, ..SmallOptions::default() })
            .await?;
    let client = client(&api).await?;
    let services: Api<Service> = Api::all(client);
    let params = WatchParams::streaming_lists();
    let Err(kube::Error::Api(status)) = services.watch(&params, "0").await.map(drop) else {
        anyhow::bail!("a streaming list was begun");
    };
    assert_eq!(status.code, 422, "{status:?}");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_hundred_thousand_objects() -> Result<()> {
    let (api, client) = small().await?;
    let slice = |i: usize| {
        let address = format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255);
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("s{i}"), "namespace": "shop", "labels": {"kubernetes.io/service-name": format!("s{}", i / 10)}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"port": 80}]})
    };
    let started = tokio::time::Instant::now();
    server(&api).load((0..100_000).map(slice))?;
    println!("loaded in {:?}", started.elapsed());
    let started = tokio::time::Instant::now();
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::all(client.clone());
    let listed = slices.list_metadata(&ListParams::default()).await?;
    println!("listed in {:?}", started.elapsed());
    assert_eq!(listed.items.len(), 100_000);
    let one = slices.list(&ListParams::default().labels("kubernetes.io/service-name=s77")).await?;
    assert_eq!(one.items.len(), 10);
    nothing_unsupported(&api)
}

/// As a process of its own, everything for tests is at `/_lab/`.
#[tokio::test]
async fn the_same_as_a_process() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    let mut command = tokio::process::Command::new(Programs::locate()?.own("lab-kube-api")?);
    command.args(["--listen", "127.0.0.1:0", "--kubeconfig"]).arg(&kubeconfig).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    let url = lines.next_line().await?.context("it says where it listens")?;
    ensure!(url.starts_with("https://127.0.0.1:"), "{url}");

    let kubeconfig = Kubeconfig::read_from(&kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let line = |name: &str| {
        format!(
            "{}\n",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}})
        )
    };
    let loaded = lab(&client, Method::POST, "load", line("a") + &line("b")).await?;
    assert_eq!(loaded, json!({"loaded": 2}));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    let names: Vec<String> =
        maps.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["a", "b"]);
    lab(
        &client,
        Method::POST,
        "faults",
        json!({"fault": "answer", "verb": "list", "status": 503, "count": 1}).to_string(),
    )
    .await?;
    refused(maps.list(&ListParams::default()).await, 503, "ServiceUnavailable")?;
    lab(&client, Method::POST, "faults", json!({"fault": "restart", "newHistory": true}).to_string()).await?;
    eventually("it is back", SOON, || async {
        maps.list(&ListParams::default()).await.map(drop).context("list")
    })
    .await?;
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "y"}}))).await?;
    let tally = lab(&client, Method::GET, "requests", String::new()).await?;
    assert_eq!(
        (&tally["requests"]["patch configmaps"], &tally["unsupported"]),
        (&json!(1), &json!([])),
        "{tally}"
    );
    let message =
        lab(&client, Method::POST, "faults", "{}".to_owned()).await.expect_err("not a fault").to_string();
    ensure!(message.contains("not a fault"), "{message}");
    Ok(())
}

/// The real one cannot be had here; that it fails quickly and says why can be.
#[tokio::test]
async fn a_real_one_that_does_not_start_says_why() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let programs = RealPrograms { kube_apiserver: "/bin/false".into(), etcd: "/usr/bin/etcd".into() };
    let error = RealApi::start(&programs, dir.path()).await.expect_err("no API server");
    let error = format!("{error:#}");
    ensure!(error.contains("it ended: exit status: 1") && error.contains("kube-apiserver.log"), "{error}");
    Ok(())
}

async fn lab(client: &Client, method: Method, path: &str, body: String) -> Result<Value> {
    let request = Request::builder().method(method).uri(format!("/_lab/{path}"));
    let answer = client.send(request.body(kube::client::Body::from(body.into_bytes()))?).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 20).await?;
    ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).context("an answer in JSON")
}
