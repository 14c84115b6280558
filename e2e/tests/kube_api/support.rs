//! What the tests of the API server share.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::eventually;
use e2e::kube_api::KubeApi;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Within which time what was done must be seen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A client as every program makes one: from the kubeconfig file.
pub(crate) async fn client(api: &KubeApi) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig()).context("read kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("client")
}

/// The same with another token.
pub(crate) async fn client_with_token(api: &KubeApi, token: &str) -> Result<Client> {
    let mut kubeconfig = Kubeconfig::read_from(api.kubeconfig()).context("read kubeconfig")?;
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        user.token = Some(token.to_owned().into());
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("client")
}

/// Fails if this server was asked for something that it does not do.
pub(crate) fn nothing_unsupported(api: &KubeApi) -> Result<()> {
    let Some(small) = api.small() else { return Ok(()) };
    let unsupported = small.requests().unsupported;
    ensure!(unsupported.is_empty(), "unsupported requests: {unsupported:#?}");
    Ok(())
}

/// A config map with one value.
pub(crate) fn config_map(name: &str, labels: &Value, value: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"value": value}});
    serde_json::from_value(object).expect("a config map")
}

/// What a watcher knows: name to value.
#[derive(Clone, Default)]
pub(crate) struct Mirror(Arc<Mutex<BTreeMap<String, String>>>);

impl Mirror {
    /// Begins to watch.
    pub(crate) fn follow(api: Api<ConfigMap>, config: watcher::Config) -> Self {
        let mirror = Self::default();
        let shared = Arc::clone(&mirror.0);
        tokio::spawn(async move {
            let mut next = BTreeMap::new();
            let mut events = std::pin::pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                let Ok(event) = event else { continue };
                let entry = |map: &ConfigMap| {
                    let value = map.data.as_ref().and_then(|data| data.get("value")).cloned();
                    (map.name_any(), value.unwrap_or_default())
                };
                let mut seen = shared.lock().expect("mirror");
                match event {
                    watcher::Event::Init => next.clear(),
                    watcher::Event::InitApply(map) => next.extend([entry(&map)]),
                    watcher::Event::InitDone => *seen = std::mem::take(&mut next),
                    watcher::Event::Apply(map) => seen.extend([entry(&map)]),
                    watcher::Event::Delete(map) => drop(seen.remove(&map.name_any())),
                }
            }
        });
        mirror
    }

    /// Waits until exactly this is seen.
    pub(crate) async fn shows(&self, expected: &[(&str, &str)]) -> Result<()> {
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        eventually("the watcher sees what is there", SOON, || async {
            let seen = self.0.lock().expect("mirror").clone();
            ensure!(seen == expected, "{seen:?}, expected {expected:?}");
            Ok(())
        })
        .await
    }
}

/// Fails unless the request was refused so; gives the message.
pub(crate) fn refused<T: Debug>(result: kube::Result<T>, code: u16, reason: &str) -> Result<String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code && status.reason == reason => Ok(status.message),
        other => bail!("expected {code} {reason}, found {other:?}"),
    }
}
