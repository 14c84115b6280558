//! Peers from a Secret in ClusterMesh's layout, read from the API server: a key a peer, its name the peer's, with
//! certificates and keys beside them or in files of this hub.
//!
//! A key that is gone ends a peer. A Secret that is gone, or cannot be read, ends nothing.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use mesh_runtime::Chain;
use peering::config::HubConfig;
use peering::folder::Found;
use tokio::sync::watch;
use tokio::time::sleep;
use topology::ClusterName;
use tracing::{debug, info};

use super::{Input, Said};
use crate::resources::agent_peers::SecretName;
use crate::source::kubernetes::follow::Pause;
use crate::source::kubernetes::trouble::{Remedy, remedy};

/// A Secret that names peers.
#[derive(Clone, Debug)]
pub struct PeersSecret {
    name: SecretName,
    own: ClusterName,
    said: Arc<watch::Sender<Said>>,
}

impl PeersSecret {
    /// Nothing is read yet. The key of `own` is passed over.
    pub fn new(name: SecretName, own: ClusterName) -> Self {
        let said = Said::unread(Input::Secret, format!("Secret {}/{}", name.namespace, name.name));
        Self { name, own, said: Arc::new(watch::Sender::new(said)) }
    }

    /// What it says.
    pub fn said(&self) -> watch::Receiver<Said> {
        self.said.subscribe()
    }

    /// Follows it until the future is dropped, whatever the API server does meanwhile.
    pub async fn follow(&self, client: Client) -> Infallible {
        let mut events = self.watch(&client);
        let mut pause = Pause::default();
        let mut is_there = false;
        loop {
            match events.next().await {
                Some(Ok(Event::Init)) => is_there = false,
                Some(Ok(Event::InitApply(secret) | Event::Apply(secret))) => {
                    is_there = true;
                    self.take(&secret);
                }
                Some(Ok(Event::InitDone)) if is_there => pause.reset(),
                Some(Ok(Event::InitDone | Event::Delete(_))) => {
                    pause.reset();
                    self.troubled("it is not there; to have no peers by it, make it without keys".to_owned());
                }
                Some(Err(error)) => {
                    debug!(%error, "watch of the Secret of peers failed");
                    let resumes = match remedy(&error, false) {
                        Remedy::Resume(Some((_, text))) | Remedy::Relist(Some((_, text))) => {
                            self.troubled(format!("{text} (the hub's account needs list and watch of it)"));
                            false
                        }
                        Remedy::Resume(None) => true,
                        Remedy::Relist(None) | Remedy::Pages => false,
                    };
                    sleep(pause.next()).await;
                    if !resumes {
                        // A list of one: its end tells that the trouble is over.
                        events = self.watch(&client);
                    }
                }
                None => {
                    sleep(pause.next()).await;
                    events = self.watch(&client);
                }
            }
        }
    }

    fn watch(
        &self,
        client: &Client,
    ) -> futures_util::stream::BoxStream<'static, watcher::Result<Event<Secret>>> {
        // By name, so that a right to this one is enough.
        let only = format!("metadata.name={}", self.name.name);
        let config = watcher::Config::default().timeout(WATCH_SECS).fields(&only);
        watcher(Api::<Secret>::namespaced(client.clone(), &self.name.namespace), config).boxed()
    }

    fn take(&self, secret: &Secret) {
        self.said.send_if_modified(|said| {
            let configured = found(secret, &said.name, &self.own).beside(said.configs.clone());
            let (configs, problems) = (configured.configs, configured.problems);
            let now = Said { is_read: true, trouble: None, configs, problems, ..said.clone() };
            let differs = *said != now;
            *said = now;
            differs
        });
    }

    fn troubled(&self, text: String) {
        self.said.send_if_modified(|said| {
            // The texts of one trouble can differ each time.
            let is_news = said.trouble.is_none();
            if is_news {
                info!(secret = said.name, error = text, "peers cannot be read");
                said.trouble = Some(text);
            }
            is_news
        });
    }
}

fn found(secret: &Secret, name: &str, own: &ClusterName) -> Found {
    let mut found = Found::default();
    let data = secret.data.iter().flatten();
    for (key, content) in data.clone().filter(|(key, _)| *key != own.as_str()) {
        // What is no text is a certificate in another form, or nothing of ours.
        let Ok(text) = std::str::from_utf8(&content.0) else {
            found.add(key.clone(), Ok(None));
            continue;
        };
        let beside = |file: &str| {
            let mut all = data.clone();
            all.find(|(key, _)| *key == file).map(|(_, content)| content.0.clone())
        };
        let read = HubConfig::read(Path::new(&format!("{name}, key {key}")), text);
        let read = read.map(|config| config.map(|config| config.holding(beside)));
        found.add(key.clone(), read.map_err(|error| Chain(&error).to_string()));
    }
    found
}

/// After this time a watch is begun anew.
const WATCH_SECS: u32 = 120;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(data: &[(&str, &str)]) -> Secret {
        let data: serde_json::Map<_, _> = data.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let bytes = data.into_iter().map(|(key, value)| {
            let text = value.as_str().unwrap_or_default().as_bytes().to_vec();
            (key, k8s_openapi::ByteString(text))
        });
        Secret { data: Some(bytes.collect()), ..Secret::default() }
    }

    const CONFIG: &str = "endpoints: [https://a]\n\
        trusted-ca-file: /var/lib/cilium/clustermesh/tokyo.etcd-client-ca.crt\n\
        cert-file: /etc/isthmus/remote/tls.crt\nkey-file: /etc/isthmus/remote/tls.key\n";

    #[test]
    fn certificates_beside_it_are_held_and_others_are_files() {
        let own: ClusterName = "paris".parse().expect("a name");
        let secret = secret(&[
            ("tokyo", CONFIG),
            ("paris", CONFIG),
            ("lima", "endpoints: 7"),
            ("tokyo.etcd-client-ca.crt", "roots"),
        ]);
        let configured = found(&secret, "Secret mesh/peers", &own).beside(Default::default());
        let names: Vec<&str> = configured.configs.keys().map(ClusterName::as_str).collect();
        assert_eq!(names, ["tokyo"]);
        let config = &configured.configs[&"tokyo".parse().expect("a name")];
        assert_eq!(config.held.content(&config.trusted_ca_file).as_deref(), Some(&b"roots"[..]));
        assert_eq!(config.held.content(&config.key_file), None);
        let problem = &configured.problems["lima"];
        assert!(problem.contains("Secret mesh/peers, key lima"), "{problem}");
    }

    #[test]
    fn a_secret_that_is_gone_ends_nothing() {
        let name = "mesh/peers".parse().expect("a name");
        let peers = PeersSecret::new(name, "paris".parse().expect("a name"));
        peers.take(&secret(&[("tokyo", CONFIG)]));
        peers.troubled("it is not there".to_owned());
        let said = peers.said().borrow().clone();
        assert!(said.configs.len() == 1 && said.trouble.is_some() && said.is_read, "{said:?}");
        peers.take(&secret(&[]));
        let said = peers.said().borrow().clone();
        assert!(said.configs.is_empty() && said.trouble.is_none(), "{said:?}");
    }
}
