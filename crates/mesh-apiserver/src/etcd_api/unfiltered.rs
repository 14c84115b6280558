//! Calls that know no views are not for peers that have one.

use super::{Api, Grants, refusal};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tonic::Status;

/// Refuses the call of a filtered peer: transactions would show it what its filter hides. Range and Watch do not come
/// by here.
///
/// A filter that came into force meanwhile counts, too: the answer may be later than it.
pub(super) async fn only(State(api): State<Api>, request: Request, next: Next) -> Response {
    let grants = Grants::of(request.extensions());
    if let Err(refused) = check(&api, &grants) {
        return refused.into_http::<Body>();
    }
    let answer = next.run(request).await;
    match check(&api, &grants) {
        Ok(()) => answer,
        Err(refused) => refused.into_http::<Body>(),
    }
}

/// Fails for a peer that is filtered at present.
pub(super) fn check(api: &Api, grants: &Grants) -> Result<(), Status> {
    let Some(peer) = grants.peer() else { return Ok(()) };
    // What etcd answers may be later than the filters that its mirror shows.
    if api.etcd.is_some() || api.views.is_filtered(&api.store.snapshot(), peer) {
        return Err(refusal::permission_denied(Some(REASON)));
    }
    Ok(())
}

const REASON: &str = "peers that may have an export filter are answered Range and Watch alone";
