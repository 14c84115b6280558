//! `KV.Put` for clients: the call that comes most often, without what generated services put around each call.

use super::{Api, Grants, framing, unfiltered};
use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use tonic::Status;

/// Answers `/etcdserverpb.KV/Put`.
pub(super) async fn put(api: Api, request: Request) -> Response {
    answer(&api, request).await.unwrap_or_else(Status::into_http::<Body>)
}

async fn answer(api: &Api, request: Request) -> Result<Response, Status> {
    let grants = Grants::of(request.extensions());
    unfiltered::check(api, &grants)?;
    let request = framing::request(request.into_body()).await?;
    let response = api.answer_put(&grants, request).await?;
    unfiltered::check(api, &grants)?;
    Ok(framing::unary(framing::Message::new(&response, Bytes::new()), None))
}
