//! The request of a watch stream that holds one watch, in the shape of stock clients.

use crate::{
    proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    range::KeyRange,
};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use std::convert::Infallible;
use tokio::sync::oneshot;
use tonic::{Request, metadata::MetadataValue};

/// A watch of a range from revision `next` on, and what holds the sending side open: a server may take its end for the
/// end of the watch, so it is to be kept for as long as the watch is wanted.
///
/// A member that loses its leader ends the stream (`hasleader`), so that a minority does not look like silence.
pub(crate) fn watch_request(
    range: &KeyRange,
    next: u64,
) -> (Request<impl Stream<Item = WatchRequest> + Send + 'static>, oneshot::Sender<Infallible>) {
    let create = WatchCreateRequest {
        key: range.wire_key(),
        range_end: range.wire_end(),
        start_revision: i64::try_from(next).unwrap_or(i64::MAX),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (requests_open, dropped) = oneshot::channel::<Infallible>();
    let until_dropped = dropped.into_stream().filter_map(async |_closed| None);
    let mut request = Request::new(stream::iter([create]).chain(until_dropped));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    (request, requests_open)
}
