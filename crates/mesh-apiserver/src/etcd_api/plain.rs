//! What etcd answers over plain HTTP on the same port: its version and its health.

use super::ETCD_VERSION;
use axum::{Json, Router, routing::get};
use serde_json::json;

/// `GET /version` and `GET /health`, which need no grant. Cilium's troubleshooting reads the first.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/version", get(async || Json(json!({ "etcdserver": ETCD_VERSION, "etcdcluster": "3.5.0" }))))
        .route("/health", get(async || Json(json!({ "health": "true" }))))
}
