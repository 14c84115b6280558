//! Who answers which call.

use super::{
    Api, Limits, Parts, Views, counts::Counts, fanout::Fanout, fanout::Pacer, pages::Pages, plain, read,
    tally::Tallies, unfiltered, watch, write,
};
use axum::{
    body::{Body, Bytes, HttpBody},
    middleware,
    response::Response,
};
use futures_util::{FutureExt, future::BoxFuture};
use http::Request;
use kvstore::{
    Etcd, Store,
    proto::etcdserverpb::{
        cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
        maintenance_server::MaintenanceServer,
    },
};
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tower::{BoxError, Service, ServiceExt};

/// The API as a service for one or many connections; clones share the store.
///
/// Each request must carry an `Arc<Grants>` in its extensions; [`serve`](super::serve) puts it there.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Answers the calls that come most often, and those whose answers many clients share; generated services cannot.
    api: Option<Api>,
    /// All other calls.
    others: axum::Router,
}

impl Calls {
    /// Serves a store of its own. Must be called within a tokio runtime: a task hands out events until the last clone is
    /// dropped.
    pub fn new(store: Store, limits: Limits) -> Self {
        Self::with_views(store, limits, Arc::default())
    }

    /// As [`new`](Self::new), with views whose counters are registered somewhere.
    pub fn with_views(store: Store, limits: Limits, views: Arc<Views>) -> Self {
        Self::of(store, None, limits, views)
    }

    /// Serves the mirror of an etcd cluster: reads and watches are served from the mirror, and what clients write, once
    /// it is authorized, goes to etcd. The same holds as for [`new`](Self::new).
    pub fn shared(etcd: Etcd, limits: Limits, views: Arc<Views>) -> Self {
        Self::of(etcd.mirror().clone(), Some(etcd), limits, views)
    }

    /// Answers every call with this status, and `/version` and `/health` as always: for clients that are told why they
    /// are not served.
    pub fn refusing(status: tonic::Status) -> Self {
        let refuse = move || {
            let response = status.clone().into_http::<Body>();
            async move { response }
        };
        Self { api: None, others: plain::routes().fallback(refuse) }
    }

    fn of(store: Store, etcd: Option<Etcd>, limits: Limits, views: Arc<Views>) -> Self {
        let fanout = Arc::new(Fanout::new(&store));
        let pages = Arc::new(Pages::default());
        let expired = pages.clone();
        let pacer = Pacer::start(fanout.clone(), &store, move || expired.expire());
        let judging = Arc::new(Semaphore::new(JUDGING));
        let api = Api::new(Parts {
            store,
            etcd,
            limits,
            counts: Counts::default(),
            tallies: Tallies::default(),
            pages,
            fanout,
            views,
            judging,
            _pacer: pacer,
        });
        let most = limits.message_bytes;
        let others = Routes::new(KvServer::new(api.clone()).max_decoding_message_size(most))
            .add_service(LeaseServer::new(api.clone()).max_decoding_message_size(most))
            .add_service(MaintenanceServer::new(api.clone()).max_decoding_message_size(most))
            .add_service(ClusterServer::new(api.clone()).max_decoding_message_size(most))
            .into_axum_router()
            .layer(middleware::from_fn_with_state(api.clone(), unfiltered::only))
            .merge(plain::routes());
        Self { api: Some(api), others }
    }

    /// Answers a request.
    fn answer(&self, request: Request<Body>) -> Answer {
        let api = self.api.clone().filter(|_| request.method() == http::Method::POST);
        match (api, request.uri().path()) {
            (Some(api), "/etcdserverpb.KV/Put") => Box::pin(write::put(api, request).map(Ok)),
            (Some(api), "/etcdserverpb.KV/Range") => Box::pin(read::range(api, request).map(Ok)),
            (Some(api), "/etcdserverpb.Watch/Watch") => Box::pin(watch::watch(api, request).map(Ok)),
            _ => Box::pin(self.others.clone().oneshot(request)),
        }
    }
}

type Answer = BoxFuture<'static, Result<Response, Infallible>>;

impl<B> Service<Request<B>> for Calls
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.answer(request.map(Body::new))
    }
}

/// Reads through a view at a time: they keep a processor busy.
const JUDGING: usize = 2;
