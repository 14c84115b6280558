//! Follows the objects of one custom kind: list, watch, and again, whatever the API server does meanwhile. The objects
//! are few, so each change hands over all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::raw::{Custom, Raw};
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::follow::Pause;
use crate::source::kubernetes::trouble::{Class, Remedy, remedy};

/// Namespace, if it has one, and name.
pub type Key = (Option<String>, String);

/// All objects of a kind.
pub type Objects<K> = BTreeMap<Key, Raw<K>>;

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<K> {
    /// All objects; `None` until they were listed once, or it is certain that there are none.
    pub objects: Option<Arc<Objects<K>>>,
    /// Why that may be out of date.
    pub trouble: Option<Trouble>,
}

/// Why a kind is not up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble.
    pub class: Class,
    /// What the API server, or the connection, said first.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self { objects: None, trouble: None }
    }
}

impl<K> Seen<K> {
    /// What is known of the objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Raw<K>)> {
        self.objects.iter().flat_map(|objects| objects.iter())
    }
}

type Events<K> = BoxStream<'static, watcher::Result<Event<Raw<K>>>>;

/// Follows a kind until it is dropped.
pub async fn follow<K: Custom>(client: Client, contact: Arc<Contact>, seen: watch::Sender<Seen<K>>) {
    let mut answers = contact.answers();
    let mut events = watch::<K>(&client);
    let mut gathering: Option<Objects<K>> = None;
    let mut absent_since: Option<Instant> = None;
    let mut pause = Pause::default();
    loop {
        // Both arms are cancel-safe: a stream keeps what it has read.
        let event = tokio::select! {
            event = events.next() => event,
            Ok(()) = answers.changed() => {
                let ends = |trouble: &Trouble| trouble.class.ends_with_an_answer();
                if seen.borrow().trouble.as_ref().is_some_and(ends) {
                    troubled(&seen, None);
                }
                absent_since = None;
                continue;
            }
        };
        match event {
            Some(Ok(Event::Init)) => gathering = Some(Objects::new()),
            Some(Ok(Event::InitApply(object))) => {
                if let Some(objects) = &mut gathering {
                    objects.insert(key(&object), object);
                }
            }
            Some(Ok(Event::InitDone)) => match gathering.take() {
                Some(objects) => {
                    pause.reset();
                    troubled(&seen, None);
                    replace(&seen, objects);
                }
                None => events = watch::<K>(&client),
            },
            Some(Ok(Event::Apply(object))) => {
                change(&seen, |objects| drop(objects.insert(key(&object), object)))
            }
            Some(Ok(Event::Delete(object))) => change(&seen, |objects| drop(objects.remove(&key(&object)))),
            Some(Err(error)) => {
                gathering = None;
                debug!(kind = %K::kind(&()), %error, "watch failed");
                let (trouble, relist) = match remedy(&error, false) {
                    Remedy::Resume(trouble) => (trouble, false),
                    Remedy::Relist(trouble) => (trouble, true),
                    Remedy::Pages => (None, true),
                };
                if let Some((class, text)) = trouble {
                    absent_since =
                        (class == Class::Absent).then(|| absent_since.unwrap_or_else(Instant::now));
                    troubled(&seen, Some((class, text)));
                }
                // API servers that start answer 404 for a while for what they have.
                if absent_since.is_some_and(|since| since.elapsed() >= ABSENT_PATIENCE) {
                    let is_unread = seen.borrow().objects.is_none();
                    if is_unread {
                        replace(&seen, Objects::new());
                    }
                }
                let wanted = contact.take_retry_after().unwrap_or_default();
                sleep(pause.next().max(wanted)).await;
                if relist {
                    events = watch::<K>(&client);
                }
            }
            None => {
                sleep(pause.next()).await;
                events = watch::<K>(&client);
            }
        }
    }
}

fn watch<K: Custom>(client: &Client) -> Events<K> {
    let config = watcher::Config::default().timeout(WATCH_SECS).page_size(PAGE_SIZE);
    watcher(Api::<Raw<K>>::all(client.clone()), config).boxed()
}

fn key<K>(object: &Raw<K>) -> Key {
    (object.metadata.namespace.clone(), object.name().to_owned())
}

fn replace<K: PartialEq>(seen: &watch::Sender<Seen<K>>, objects: Objects<K>) {
    seen.send_if_modified(|seen| {
        let differs = seen.objects.as_deref() != Some(&objects);
        if differs {
            seen.objects = Some(Arc::new(objects));
        }
        differs
    });
}

fn change<K: Clone>(seen: &watch::Sender<Seen<K>>, change: impl FnOnce(&mut Objects<K>)) {
    seen.send_modify(|seen| change(Arc::make_mut(seen.objects.get_or_insert_default())));
}

/// Tells trouble, or its end. More of the same is no news.
fn troubled<K>(seen: &watch::Sender<Seen<K>>, trouble: Option<(Class, String)>) {
    seen.send_if_modified(|seen| {
        let class = seen.trouble.as_ref().map(|trouble| trouble.class);
        if class == trouble.as_ref().map(|(class, _)| *class) {
            return false;
        }
        let since = seen.trouble.as_ref().map_or_else(Timestamp::now, |trouble| trouble.since);
        seen.trouble = trouble.map(|(class, text)| Trouble { class, text, since });
        true
    });
}

/// Objects in a page of a list.
const PAGE_SIZE: u32 = 500;
/// After this time a watch is begun anew.
const WATCH_SECS: u32 = 120;
/// After so long without the kind it is certain that there are no objects of it.
const ABSENT_PATIENCE: Duration = Duration::from_secs(10);
