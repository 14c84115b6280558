//! The task that keeps a mirror in step with etcd.

use super::{
    Contact, Dial, DialError, Etcd, EtcdError, Shared, StoreReplaced, list,
    list::Head,
    watch::{self, Watch},
};
use crate::store::{MirrorError, Store, StoreOptions};
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::{
    sync::watch as latest,
    time::{sleep, timeout},
};
use tonic::transport::Channel;
use tracing::{debug, info, warn};

/// Keeps a mirror in step with etcd, as long as it [runs](Self::run).
#[derive(Debug)]
pub struct Follower {
    dialer: Dialer,
    etcd: Etcd,
    /// A connection that has answered already, to begin with.
    first: Option<Contact>,
}

/// Goes round the endpoints.
#[derive(Debug)]
struct Dialer {
    dial: Box<dyn Dial>,
    next: usize,
    /// Attempts since one succeeded.
    failed: u32,
}

/// Connects, lists, and follows until the mirror is complete.
pub(super) async fn open(
    dial: Box<dyn Dial>,
    options: StoreOptions,
) -> Result<(Etcd, Follower), StoreReplaced> {
    let mut dialer = Dialer { dial, next: 0, failed: 0 };
    let (etcd, head, contact) = loop {
        let (contact, head) = dialer.connect(None).await?;
        match first_mirror(&contact.channel, head, options.clone()).await {
            Ok(mirror) => {
                let (contact_sender, current) = (latest::Sender::new(None), latest::Sender::new(head.asked));
                let shared = Shared { mirror, contact: contact_sender, current };
                break (Etcd { shared: Arc::new(shared) }, head, contact);
            }
            Err(error) => {
                warn!(endpoint = contact.endpoint, error = %error, "read the store at etcd");
                sleep(dialer.pause()).await;
            }
        }
    };
    let mut follower = Follower { dialer, etcd: etcd.clone(), first: Some(contact.clone()) };
    let mut progress = etcd.mirror().progress();
    // The follower may be dropped at any point: what the mirror has is whole, and it goes on from there.
    tokio::select! {
        failed = follower.run() => failed.map(|never| match never {})?,
        _ = progress.wait_for(|revision| *revision >= head.revision) => {}
    }
    follower.first = Some(contact);
    Ok((etcd, follower))
}

/// The mirror as it begins: some revisions in the past, as far as etcd still has them.
async fn first_mirror(channel: &Channel, head: Head, options: StoreOptions) -> Result<Store, EtcdError> {
    let cluster_id = head.origin.cluster_id;
    let wanted = head.revision.saturating_sub(HISTORY).max(1);
    let listed = match list::everything(channel, wanted, cluster_id).await {
        Err(EtcdError::Compacted { .. }) => {
            let oldest = watch::oldest(channel, cluster_id).await?;
            list::everything(channel, oldest, cluster_id).await
        }
        other => other,
    };
    let (entries, revision) = match listed {
        // Compacted once more, just now.
        Err(EtcdError::Compacted { .. }) => list::everything(channel, 0, cluster_id).await?,
        other => other?,
    };
    debug!(revision, latest = head.revision, entries = entries.len(), "mirror begins");
    Ok(Store::mirror(options, head.origin, entries, revision))
}

impl Follower {
    /// Follows, over whichever endpoint answers. Ends only when the store turns out to be another one.
    ///
    /// May be dropped and run again: the mirror stays whole.
    pub async fn run(&mut self) -> Result<Infallible, StoreReplaced> {
        loop {
            let contact = match self.first.take() {
                Some(contact) => contact,
                None => self.dialer.connect(Some(self.etcd.mirror().cluster_id())).await?.0,
            };
            let endpoint = contact.endpoint.clone();
            // Before anybody uses the connection.
            match self.confirm(&contact.channel).await {
                Ok(()) => {}
                Err(EtcdError::Replaced(replaced)) => return Err(replaced),
                Err(error) => {
                    warn!(endpoint, error = %error, "no answer from etcd");
                    sleep(PAUSE).await;
                    continue;
                }
            }
            let _linked = InContact::new(&self.etcd, contact.clone());
            info!(endpoint, revision = self.etcd.mirror().revision(), "etcd answers");
            let ended = self.follow(&contact.channel).await;
            if let EtcdError::Replaced(replaced) = ended {
                return Err(replaced);
            }
            let revision = self.etcd.mirror().revision();
            warn!(endpoint, error = %ended, revision, "contact with etcd lost, serving what is known");
            sleep(PAUSE).await;
        }
    }

    /// Makes sure that etcd is the store that the mirror is of.
    async fn confirm(&self, channel: &Channel) -> Result<(), EtcdError> {
        let (known, cluster_id) = (self.etcd.mirror().snapshot(), self.etcd.mirror().cluster_id());
        let found = list::latest(channel, Some(cluster_id)).await?.revision;
        if found < known.revision() {
            return Err(StoreReplaced::WentBack { known: known.revision(), found }.into());
        }
        list::confirm(channel, &known, cluster_id).await
    }

    /// Follows over one connection until it fails.
    async fn follow(&self, channel: &Channel) -> EtcdError {
        let watching = async {
            let Err(error) = self.watch(channel).await;
            error
        };
        let probing = async {
            let Err(error) = self.probe(channel).await;
            error
        };
        // Whichever is dropped leaves nothing half done: the mirror takes whole revisions.
        tokio::select! {
            error = watching => error,
            error = probing => error,
        }
    }

    async fn watch(&self, channel: &Channel) -> Result<Infallible, EtcdError> {
        let (mirror, cluster_id) = (self.etcd.mirror(), self.etcd.mirror().cluster_id());
        loop {
            let followed = async {
                let mut watch = Watch::open(channel, mirror.revision() + 1, cluster_id).await?;
                loop {
                    let changes = watch.changes().await?;
                    mirror.replay(changes).map_err(|error| disorder(&error))?;
                }
            };
            let Err::<Infallible, _>(error) = followed.await;
            let EtcdError::Compacted { compacted, .. } = error else { return Err(error) };
            let known = mirror.revision();
            warn!(known, compacted, "etcd has compacted what was missed, reading everything again");
            let (entries, revision) = list::everything(channel, 0, cluster_id).await?;
            mirror.install(entries, revision).map_err(|error| disorder(&error))?;
        }
    }

    /// Looks every second how far etcd is, and notes when the mirror has got there.
    async fn probe(&self, channel: &Channel) -> Result<Infallible, EtcdError> {
        let mirror = self.etcd.mirror();
        let mut progress = mirror.progress();
        loop {
            let known = mirror.revision();
            let Head { revision: latest, asked, .. } =
                list::latest(channel, Some(mirror.cluster_id())).await?;
            if latest < known {
                return Err(StoreReplaced::WentBack { known, found: latest }.into());
            }
            while mirror.revision() < latest {
                let moved = timeout(STUCK, progress.changed()).await;
                if moved.is_err() {
                    return Err(EtcdError::Stuck { revision: mirror.revision(), latest });
                }
            }
            self.etcd.shared.current.send_replace(asked);
            sleep(PROBE_INTERVAL).await;
        }
    }
}

impl Dialer {
    /// Connects to the next endpoint that answers a linearizable read. Fails if it has another cluster id.
    async fn connect(&mut self, cluster_id: Option<u64>) -> Result<(Contact, Head), StoreReplaced> {
        loop {
            let endpoint = self.next % self.dial.count().max(1);
            self.next = endpoint + 1;
            let name = self.dial.name(endpoint);
            let error = match self.attempt(endpoint, cluster_id).await {
                Ok((channel, head)) => {
                    self.failed = 0;
                    return Ok((Contact { channel, endpoint: name }, head));
                }
                Err(error) => error,
            };
            if let Some(EtcdError::Replaced(replaced)) = error.downcast_ref::<EtcdError>() {
                return Err(replaced.clone());
            }
            // Once a round at first, then now and then.
            let rounds = self.failed / u32::try_from(self.dial.count()).unwrap_or(u32::MAX).max(1);
            if rounds.is_multiple_of(30) {
                warn!(endpoint = name, error = causes(&*error), "no answer from etcd");
            }
            self.failed = self.failed.saturating_add(1);
            sleep(self.pause()).await;
        }
    }

    async fn attempt(&self, endpoint: usize, cluster_id: Option<u64>) -> Result<(Channel, Head), DialError> {
        let channel = timeout(DIAL, self.dial.dial(endpoint)).await??;
        let head = list::latest(&channel, cluster_id).await?;
        Ok((channel, head))
    }

    /// Time until the next attempt: short while there are endpoints that were not asked, longer then.
    fn pause(&self) -> Duration {
        let rounds = self.failed / u32::try_from(self.dial.count()).unwrap_or(u32::MAX).max(1);
        PAUSE.saturating_mul(1 << rounds.min(5)).min(LONGEST_PAUSE)
    }
}

/// Makes a connection the one that calls use, until it is dropped.
struct InContact<'a> {
    etcd: &'a Etcd,
}

impl<'a> InContact<'a> {
    fn new(etcd: &'a Etcd, contact: Contact) -> Self {
        etcd.shared.contact.send_replace(Some(contact));
        Self { etcd }
    }
}

impl Drop for InContact<'_> {
    fn drop(&mut self) {
        self.etcd.shared.contact.send_replace(None);
    }
}

fn disorder(error: &MirrorError) -> EtcdError {
    StoreReplaced::Disorder { found: error.to_string() }.into()
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Revisions in the past from which a mirror begins, if etcd still has them.
pub const HISTORY: u64 = 10_000;
/// Time between two looks at etcd's latest revision.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time that the watch may stand still while there is something to deliver.
const STUCK: Duration = Duration::from_secs(10);
/// Longest time for a connection to be made, whatever the dialler does.
const DIAL: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
