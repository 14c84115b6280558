//! The watch of everything, as changes of whole revisions.

use super::{
    EtcdError,
    call::{MESSAGE_BYTES, refused},
    error::StoreReplaced,
    list::Head,
};
use crate::{
    client::entry,
    proto::{
        etcdserverpb::{WatchResponse, watch_client::WatchClient},
        mvccpb::event::EventType,
    },
    range::KeyRange,
    store::{EventKind, Followed},
    watch_request::watch_request,
};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tonic::{Code, Status, Streaming, transport::Channel};

/// An open watch.
#[derive(Debug)]
pub(super) struct Watch {
    responses: Streaming<WatchResponse>,
    cluster_id: u64,
    /// The first revision that has not been delivered.
    next: u64,
    /// A server may take the end of the requests for the end of the watch.
    _requests_open: oneshot::Sender<Infallible>,
}

impl Watch {
    /// Watches everything from revision `next` on.
    ///
    /// A member that loses its leader ends the stream, so that a minority does not look like silence.
    /// Fails with [`EtcdError::Compacted`] if the history does not reach back that far.
    pub(super) async fn open(channel: &Channel, next: u64, cluster_id: u64) -> Result<Self, EtcdError> {
        let (request, requests_open) = watch_request(&KeyRange::all(), next);
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let responses = super::unary(client.watch(request)).await.map_err(refused(METHOD))?;
        let mut watch = Self { responses, cluster_id, next, _requests_open: requests_open };
        let created = timeout(CREATED, watch.response()).await;
        let created = created.map_err(|_elapsed| refused(METHOD)(Status::unavailable(NO_ANSWER)))??;
        if !created.created {
            return Err(wrong("a response before the watch was created".to_owned()));
        }
        Ok(watch)
    }

    /// Waits for the next changes: whole revisions, in order, none of them empty.
    ///
    /// Cancel safe: a message half read is kept.
    pub(super) async fn changes(&mut self) -> Result<Vec<Followed>, EtcdError> {
        loop {
            let response = self.response().await?;
            if response.fragment {
                // Never asked for; the rest of a revision would come later.
                let found = "a part of a revision".to_owned();
                return Err(StoreReplaced::Disorder { found }.into());
            }
            let changes = response.events.into_iter().map(change).collect::<Result<Vec<_>, _>>()?;
            if let Some(last) = changes.last() {
                self.next = last.entry.mod_revision.saturating_add(1);
                return Ok(changes);
            }
        }
    }

    async fn response(&mut self) -> Result<WatchResponse, EtcdError> {
        let message = self.responses.message().await.map_err(|status| match status.code() {
            // Longer than we take: there are many revisions in it, so a list is shorter.
            Code::OutOfRange => EtcdError::Compacted { asked: self.next, compacted: 0 },
            _ => EtcdError::call(METHOD, &status),
        })?;
        let response = message.ok_or_else(|| wrong("the end of the stream".to_owned()))?;
        Head::of(METHOD, response.header.as_ref(), Some(self.cluster_id))?;
        if response.canceled {
            return Err(match u64::try_from(response.compact_revision) {
                Ok(compacted) if compacted > 0 => EtcdError::Compacted { asked: self.next, compacted },
                _ => wrong(format!("the end of the watch: {}", response.cancel_reason)),
            });
        }
        Ok(response)
    }
}

/// The oldest revision that etcd still has; 0 if it never compacted.
pub(super) async fn oldest(channel: &Channel, cluster_id: u64) -> Result<u64, EtcdError> {
    let mut watch = match Watch::open(channel, 1, cluster_id).await {
        Err(EtcdError::Compacted { compacted, .. }) => return Ok(compacted),
        other => other?,
    };
    // etcd says `created` first and looks at its history afterwards.
    match timeout(CREATED, watch.response()).await {
        Ok(Err(EtcdError::Compacted { compacted, .. })) => Ok(compacted),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(0),
    }
}

fn change(event: crate::proto::mvccpb::Event) -> Result<Followed, EtcdError> {
    let kind = match event.r#type() {
        EventType::Put => EventKind::Put,
        EventType::Delete => EventKind::Delete,
    };
    let kv = event.kv.ok_or_else(|| wrong("an event without a key".to_owned()))?;
    Ok(Followed { kind, entry: entry(kv) })
}

fn wrong(found: String) -> EtcdError {
    EtcdError::Protocol { method: METHOD, found, expected: "events of the watch" }
}

const METHOD: &str = "Watch";
/// Longest wait for the answer that a watch is there.
const CREATED: Duration = Duration::from_secs(7);
const NO_ANSWER: &str = "etcdserver: request timed out";
