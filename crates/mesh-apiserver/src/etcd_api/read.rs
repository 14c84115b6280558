//! `KV.Range` for clients: pages that are encoded once for all who ask for the same one.

use super::{
    Api, Grants, counts::Counted, framing, grants::requested, pages::Page, range, refusal, room::Room,
    view::View,
};
use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use kvstore::{
    KeyRange, Snapshot,
    proto::etcdserverpb::{RangeRequest, RangeResponse},
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

/// Answers `/etcdserverpb.KV/Range`.
pub(super) async fn range(api: Api, request: Request) -> Response {
    answer(&api, request).await.unwrap_or_else(Status::into_http::<Body>)
}

async fn answer(api: &Api, request: Request) -> Result<Response, Status> {
    let (grants, room) = (Grants::of(request.extensions()), Room::of(request.extensions()));
    let request: RangeRequest = framing::request(request.into_body()).await?;
    let range = requested(request.key.clone(), request.range_end.clone())?;
    grants.may_read(&range)?;
    let taken = room.take(&request).await;
    // What a single key takes is little.
    let turn = if request.range_end.is_empty() { None } else { room.turn().await };
    let snapshot = api.store.snapshot();
    let policy = api.views.policy(&snapshot, grants.peer(), &range);
    policy.may_continue(request.revision)?;
    let body = match policy.view {
        None => {
            let body = body(api, &snapshot, request, None)?;
            drop(turn);
            body
        }
        Some(view) => filtered(api, &snapshot, request, view, turn).await?,
    };
    let first = RangeResponse { header: Some(api.header(snapshot.revision())), ..RangeResponse::default() };
    Ok(framing::unary(framing::Message::new(&first, body), taken))
}

/// To judge records takes time, so it is done beside those who serve connections, and not by all at once: who waits may
/// find the page made.
async fn filtered(
    api: &Api,
    snapshot: &Snapshot,
    request: RangeRequest,
    view: View,
    own_turn: Option<OwnedSemaphorePermit>,
) -> Result<Bytes, Status> {
    let is_page_kept =
        page(snapshot, &request, Some(&view))?.is_some_and(|page| api.pages.get(&page).is_some());
    if request.range_end.is_empty() || is_page_kept {
        return body(api, snapshot, request, Some(&view));
    }
    // The semaphore is never closed.
    let turn = api.judging.clone().acquire_owned().await.ok();
    let (api, snapshot) = (api.clone(), snapshot.clone());
    let judged = tokio::task::spawn_blocking(move || {
        let judged = body(&api, &snapshot, request, Some(&view));
        // Also if the client has left meanwhile: it cannot have more judged than that by leaving.
        drop((turn, own_turn));
        judged
    });
    judged.await.map_err(|_panic| Status::internal("etcdserver: internal error, see the server's log"))?
}

fn body(api: &Api, snapshot: &Snapshot, request: RangeRequest, view: Option<&View>) -> Result<Bytes, Status> {
    let page = page(snapshot, &request, view)?;
    if let Some(known) = page.as_ref().and_then(|page| api.pages.get(page)) {
        return Ok(known);
    }
    let begins = view
        .filter(|_| request.revision == 0 && !request.range_end.is_empty())
        .map(|view| Beginning::of(&request, view, snapshot));
    if let Some(begins) = &begins {
        begins.carry_on(api);
    }
    let found = range::find_in(snapshot, request, Some(&api.counts), view)?;
    if let Some(begins) = begins {
        begins.remember(api, found.count());
    }
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

fn page(snapshot: &Snapshot, request: &RangeRequest, view: Option<&View>) -> Result<Option<Page>, Status> {
    let revision = u64::try_from(request.revision).unwrap_or(0);
    let revision = snapshot.at(revision).map_err(refusal::read)?.revision();
    Ok(Page::of(request, revision, view))
}

/// The first page of a list in a view: it alone has to count the whole range.
struct Beginning {
    range: KeyRange,
    view: View,
    counted: Counted,
}

impl Beginning {
    fn of(request: &RangeRequest, view: &View, snapshot: &Snapshot) -> Self {
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let range = KeyRange::from_wire(key.clone(), range_end.clone());
        let counted = Counted { revision: snapshot.revision(), key, range_end, view: Some(view.clone()) };
        Self { range, view: view.clone(), counted }
    }

    /// Spares counting if a list began not long ago.
    fn carry_on(&self, api: &Api) {
        if api.counts.get(&self.counted).is_none()
            && let Some(count) = api.tallies.at(&api.store, &self.range, &self.view, self.counted.revision)
        {
            api.counts.remember(self.counted.clone(), count);
        }
    }

    fn remember(self, api: &Api, count: usize) {
        api.tallies.remember(&self.range, &self.view, self.counted.revision, count);
    }
}

/// The longest answer: that of Go's gRPC clients, which refuse more.
const MOST_BYTES: usize = i32::MAX as usize;
