//! The Watch service: several watches on one stream.

pub(super) mod event;
mod refiltering;
mod session;
mod watching;

use super::{Api, Grants, framing, refusal, room::Room};
use axum::{extract::Request, response::Response};
use futures_util::stream;
use session::Session;

/// Answers `/etcdserverpb.Watch/Watch`. The responses are made as the connection takes them, in its own task: a
/// client that does not read holds one response beside its flow-control window, and its cursors.
pub(super) async fn watch(api: Api, request: Request) -> Response {
    let grants = Grants::of(request.extensions());
    if let Some(reason) = grants.refusal() {
        return refusal::permission_denied(Some(reason)).into_http();
    }
    let room = Room::of(request.extensions());
    let requests = framing::requests(request.into_body(), api.limits.message_bytes);
    let session = Session::new(api, grants, room, requests);
    framing::streaming(stream::unfold(session, |mut session| async {
        let message = session.next().await?;
        Some((message, session))
    }))
}
