//! `KV.Range` for clients: pages that are encoded once for all who ask for the same one.

use super::{Api, Grants, framing, grants::requested, pages::Page, range, refusal, room::Room};
use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use kvstore::{
    Snapshot,
    proto::etcdserverpb::{RangeRequest, RangeResponse},
};
use tonic::Status;

/// Answers `/etcdserverpb.KV/Range`.
pub(super) async fn range(State(api): State<Api>, request: Request) -> Response {
    answer(&api, request).await.unwrap_or_else(Status::into_http::<Body>)
}

async fn answer(api: &Api, request: Request) -> Result<Response, Status> {
    let (grants, room) = (Grants::of(request.extensions()), Room::of(request.extensions()));
    let request: RangeRequest = framing::request(request.into_body(), api.limits.message_bytes).await?;
    grants.may_read(&requested(request.key.clone(), request.range_end.clone())?)?;
    let room = room.take(&request).await;
    let snapshot = api.store.snapshot();
    let body = body(api, &snapshot, request)?;
    let first = RangeResponse { header: Some(api.header(snapshot.revision())), ..RangeResponse::default() };
    Ok(framing::unary(framing::Message::new(&first, body), room))
}

fn body(api: &Api, snapshot: &Snapshot, request: RangeRequest) -> Result<Bytes, Status> {
    let revision =
        snapshot.at(u64::try_from(request.revision).unwrap_or(0)).map_err(refusal::read)?.revision();
    let page = Page::of(&request, revision);
    if let Some(known) = page.as_ref().and_then(|page| api.pages.get(page)) {
        return Ok(known);
    }
    let found = range::find(snapshot, request, Some(&api.counts))?;
    let body = found.encode();
    // A response whose length its frame cannot say.
    if body.len() > MOST_BYTES {
        return Err(refusal::response_too_large(body.len(), MOST_BYTES));
    }
    if let Some(page) = page {
        api.pages.remember(page, &body);
    }
    Ok(body)
}

/// The longest answer: that of Go's gRPC clients, which refuse more.
const MOST_BYTES: usize = i32::MAX as usize;
