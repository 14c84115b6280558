//! Bodies of requests, to each call of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use http_body_util::BodyExt;
use kvstore::{Store, StoreOptions};
use mesh_apiserver::etcd_api::{Calls, Grants, Limits};
use proptest::prelude::prop_assert;
use proptest::test_runner::TestCaseError;
use tokio::time::timeout;
use tower::{Layer, ServiceExt};

use crate::corpus::{self, Input};

#[test]
fn any_body_is_answered_with_a_status() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A watch says nothing for ever; what waits for time does not take it.
        .start_paused(true)
        .build()
        .expect("a runtime");
    corpus::run("calls", |input| runtime.block_on(answered(input)));
}

async fn answered(input: &Input) -> Result<(), TestCaseError> {
    let store = Store::in_memory(StoreOptions::default());
    let revision = store.put("a/kept", "value").expect("put");
    let hub = Extension(Arc::new(Grants::admin())).layer(Calls::new(store.clone(), Limits::default()));
    let (method, _what) = input.name.split_once('-').expect("<service>.<method>-<what>");
    let (service, method) = method.split_once('.').expect("<service>.<method>");
    let ask = async |service: &str, method: &str, body: Vec<u8>| {
        let request = http::Request::post(format!("/etcdserverpb.{service}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(body))
            .expect("a request");
        let (head, mut body) = hub.clone().oneshot(request).await.expect("never fails").into_parts();
        let (mut status, mut bytes) = (head.headers.get("grpc-status").cloned(), 0);
        // A watch has no end.
        while let Ok(Some(frame)) = timeout(Duration::from_secs(1), body.frame()).await {
            match frame.expect("no error").into_data() {
                Ok(data) => bytes += data.len(),
                Err(trailers) => {
                    let trailers = trailers.into_trailers().expect("data or trailers");
                    status = status.or_else(|| trailers.get("grpc-status").cloned());
                    // The last that a connection takes of a body.
                    break;
                }
            }
            if bytes > MOST_BYTES {
                break;
            }
        }
        (head.status, status, bytes)
    };
    let (http, status, bytes) = ask(service, method, input.bytes.clone()).await;
    prop_assert!(http.is_success() && bytes <= MOST_BYTES, "{http}, {bytes} bytes");
    prop_assert!(status.is_some() || service == "Watch", "no status after {bytes} bytes");
    if !input.is_changed {
        let sound = status.is_none_or(|status| status == "0");
        prop_assert!(sound && bytes > 0, "the stored input is no sound request");
    }
    prop_assert!(store.revision() >= revision, "revisions went back");
    let list = vec![0, 0, 0, 0, 5, 0x0a, 1, b'a', 0x12, 0];
    let (_, status, _) = ask("KV", "Range", list).await;
    prop_assert!(status.is_some_and(|status| status == "0"), "the hub does not answer any more");
    Ok(())
}

/// More than any of these requests may be answered with.
const MOST_BYTES: usize = 1 << 20;
