//! Calls that know no views are not for peers that have one.

use super::{Api, Grants, refusal};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

/// Refuses the call of a filtered peer: transactions would show it what its filter hides. Range and Watch do not come
/// by here.
///
/// A filter that came into force meanwhile counts, too: the answer may be later than it.
pub(super) async fn only(State(api): State<Api>, request: Request, next: Next) -> Response {
    let grants = Grants::of(request.extensions());
    let Some(peer) = grants.peer() else { return next.run(request).await };
    // What etcd answers may be later than the filters that its mirror shows.
    let is_filtered = || api.etcd.is_some() || api.views.is_filtered(&api.store.snapshot(), peer);
    let refused = || refusal::permission_denied(Some(REASON)).into_http::<Body>();
    if is_filtered() {
        return refused();
    }
    let answer = next.run(request).await;
    if is_filtered() { refused() } else { answer }
}

const REASON: &str = "peers that may have an export filter are answered Range and Watch alone";
