//! Follows the objects of one kind: list, watch, and again, whatever the API server does meanwhile.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::contact::Contact;
use super::kept::{Found, Kept};
use super::known::{Event, Known, Step};
use super::trouble::{Class, Remedy, Trouble, remedy};
use crate::finding::Finding;
use crate::index::Change;
use crate::object::ObjectKind;

/// What a follower has to say.
#[derive(Debug)]
pub enum News {
    /// Objects changed, together; `listed` if these are the difference to a complete list.
    Changes {
        /// What changed.
        changes: Vec<Change>,
        /// Whether a list was completed.
        listed: bool,
    },
    /// The kind is not up to date, or is again.
    Trouble(Option<Trouble>),
    /// What is odd about single objects, all of it.
    Odd(Vec<Finding>),
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<Found<K>>>> + Send>>;

/// Holds how one kind is followed.
struct Follower<K: Kept> {
    client: Client,
    contact: Arc<Contact>,
    news: mpsc::Sender<(ObjectKind, News)>,
    known: Known,
    odd: Vec<Finding>,
    trouble: Option<Trouble>,
    streaming: bool,
    /// Whether a list was ever complete.
    listed: bool,
    pause: Pause,
    events: Events<K>,
}

/// Follows a kind until nobody listens.
pub async fn follow<K: Kept>(client: Client, contact: Arc<Contact>, news: mpsc::Sender<(ObjectKind, News)>) {
    let events = watch::<K>(&client, true);
    let known = Known::new(K::KIND);
    let pause = Pause::default();
    contact.is_current.store(false, Ordering::Relaxed);
    let (odd, trouble, streaming, listed) = (Vec::new(), None, true, false);
    Follower { client, contact, news, known, odd, trouble, streaming, listed, pause, events }.run().await;
}

fn watch<K: Kept>(client: &Client, streaming: bool) -> Events<K> {
    let config = watcher::Config::default().timeout(WATCH_SECS).page_size(PAGE_SIZE);
    let config = if streaming { config.streaming_lists() } else { config };
    watcher(Api::<Found<K>>::all(client.clone()), config).boxed()
}

impl<K: Kept> Follower<K> {
    async fn run(mut self) {
        let mut answers = self.contact.answers();
        let mut last_event = Instant::now();
        while !self.news.is_closed() {
            let stalled = self.streaming && self.known.is_gathering();
            // All arms are cancel-safe: a stream keeps what it has read.
            let event = tokio::select! {
                event = self.events.next() => event,
                Ok(()) = answers.changed() => {
                    if self.trouble.as_ref().is_some_and(|trouble| trouble.class.ends_with_an_answer()) {
                        self.troubled(None).await;
                    }
                    continue;
                }
                () = sleep_until(last_event + STREAM_PATIENCE), if stalled => {
                    // A server that takes the words for a streaming list and does not know what they mean.
                    info!(kind = K::KIND.as_str(), "streaming list does not end, listing in pages");
                    self.streaming = false;
                    self.restart();
                    last_event = Instant::now();
                    continue;
                }
            };
            last_event = Instant::now();
            match event {
                Some(Ok(event)) => self.take(event).await,
                Some(Err(error)) => self.failed(&error).await,
                // A watcher does not end; if it does, it is begun anew.
                None => self.relist(None).await,
            }
        }
    }

    async fn take(&mut self, event: watcher::Event<Found<K>>) {
        let event = match event {
            watcher::Event::Init => Event::ListBegins,
            watcher::Event::InitApply(found) => Event::Listed(found.into_object()),
            watcher::Event::InitDone => Event::ListEnds,
            watcher::Event::Apply(found) => Event::Applied(found.into_object()),
            watcher::Event::Delete(found) => {
                let (namespace, name) = found.named();
                Event::Deleted(namespace.map(str::to_owned), name.to_owned())
            }
        };
        let may_be_odd = matches!(&event, Event::ListEnds | Event::Applied(Err(_)))
            || !self.odd.is_empty() && matches!(&event, Event::Applied(_) | Event::Deleted(..));
        match self.known.take(event) {
            Step::Nothing => {}
            Step::Void => self.relist(None).await,
            Step::Changes { changes, listed } => {
                if listed {
                    self.contact.relists.fetch_add(1, Ordering::Relaxed);
                    self.contact.is_current.store(true, Ordering::Relaxed);
                    self.listed = true;
                    debug!(
                        kind = K::KIND.as_str(),
                        objects = self.known.len(),
                        changes = changes.len(),
                        "listed"
                    );
                    self.pause.reset();
                    self.troubled(None).await;
                }
                self.contact.objects.store(self.known.len(), Ordering::Relaxed);
                self.say(News::Changes { changes, listed }).await;
            }
        }
        if may_be_odd {
            let odd = self.known.findings();
            if odd != self.odd {
                self.odd.clone_from(&odd);
                self.say(News::Odd(odd)).await;
            }
        }
    }

    async fn failed(&mut self, error: &watcher::Error) {
        self.known.take(Event::Interrupted);
        let remedy = remedy(error, self.streaming);
        debug!(kind = K::KIND.as_str(), %error, ?remedy, "watch failed");
        match remedy {
            Remedy::Resume(trouble) => {
                if trouble.is_some() {
                    self.troubled(trouble).await;
                }
                self.rest().await;
            }
            Remedy::Relist(trouble) => self.relist(trouble).await,
            Remedy::Pages => {
                info!(kind = K::KIND.as_str(), %error, "API server has no streaming lists, listing in pages");
                self.streaming = false;
                self.restart();
            }
        }
    }

    /// Begins with a list again, after a pause.
    async fn relist(&mut self, trouble: Option<(Class, String)>) {
        if trouble.is_some() {
            self.troubled(trouble).await;
        }
        self.rest().await;
        self.restart();
    }

    fn restart(&mut self) {
        self.known.take(Event::Interrupted);
        self.events = watch::<K>(&self.client, self.streaming);
    }

    async fn rest(&mut self) {
        let wanted = self.contact.take_retry_after().unwrap_or_default();
        let pause = self.pause.next().max(wanted);
        // Nothing is lost by a hub that stops meanwhile: the task is dropped.
        sleep(pause).await;
    }

    /// Tells trouble, or its end. More of the same is no news.
    async fn troubled(&mut self, trouble: Option<(Class, String)>) {
        let class = self.trouble.as_ref().map(|trouble| trouble.class);
        if class == trouble.as_ref().map(|(class, _)| *class) {
            return;
        }
        self.contact.is_current.store(trouble.is_none() && self.listed, Ordering::Relaxed);
        // One trouble that turns into another began when the first did.
        let since = self.trouble.as_ref().map_or_else(Timestamp::now, |trouble| trouble.since);
        self.trouble = trouble.map(|(class, text)| Trouble { class, text, since });
        self.say(News::Trouble(self.trouble.clone())).await;
    }

    async fn say(&mut self, news: News) {
        // Nobody listens any more: the loop ends with this.
        drop(self.news.send((K::KIND, news)).await);
    }
}

/// Pauses between failures: longer each time, with jitter, so that hubs do not come back together. A failure after a while
/// in which nothing failed is the first again: some balancers cut every connection once a minute.
#[derive(Debug)]
pub(crate) struct Pause {
    failures: u32,
    /// When the last pause was over.
    over: Instant,
    jitter: RandomState,
}

impl Default for Pause {
    fn default() -> Self {
        Self { failures: 0, over: Instant::now(), jitter: RandomState::new() }
    }
}

impl Pause {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        if Instant::now() > self.over + QUIET {
            self.failures = 0;
        }
        let full = LONGEST_PAUSE.min(SHORTEST_PAUSE * (1 << self.failures.min(16)));
        self.failures += 1;
        // Half of it for sure.
        let part = self.jitter.hash_one(self.failures) % 1024;
        let pause = full / 2 + full / 2 * u32::try_from(part).unwrap_or(0) / 1024;
        self.over = Instant::now() + pause;
        pause
    }
}

/// The longest pause between two attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(400);
/// After so much time without a failure the next one is the first.
const QUIET: Duration = Duration::from_secs(10);
/// Objects in a page of a list.
const PAGE_SIZE: u32 = 500;
/// After this time a watch is begun anew; five seconds later a connection that died in silence is noticed.
const WATCH_SECS: u32 = 120;
/// Time between two objects of a streaming list.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_are_forgotten() {
        let mut pause = Pause::default();
        assert!(pause.next() <= SHORTEST_PAUSE);
        let later: Vec<Duration> = (0..40).map(|_| pause.next()).collect();
        assert!(later.iter().all(|pause| *pause <= LONGEST_PAUSE), "{later:?}");
        assert!(later[39] >= LONGEST_PAUSE / 2, "{later:?}");
        let over = pause.next() + QUIET / 2;
        tokio::time::advance(over).await;
        assert!(pause.next() > SHORTEST_PAUSE, "the pause itself is no time without a failure");
        tokio::time::advance(LONGEST_PAUSE + QUIET * 2).await;
        assert!(pause.next() <= SHORTEST_PAUSE);
    }
}
