//! Bodies of requests, bounded; and answers.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;

use super::failure::Failure;
use super::kinds::Kind;
use super::read::write_object;
use super::request::Form;
use super::store::Object;

/// Most bytes of a body, as the API server's own limit.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Most time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of a request. Fails if it is too long or too slow.
pub(super) async fn read_body(body: Body) -> Result<Vec<u8>, Failure> {
    let read = timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await;
    let read = read
        .map_err(|late| Failure::new(408, "Timeout", format!("the body did not arrive in time: {late}")))?;
    let too_large = |error| {
        let message = format!("the body broke off or has more than {BODY_LIMIT} bytes: {error}");
        Failure::new(413, "RequestEntityTooLarge", message)
    };
    read.map(Vec::from).map_err(too_large)
}

/// Reads JSON, or YAML, which clients send when they apply.
pub(super) fn parse_body(body: &[u8]) -> Result<Value, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Failure::bad_request(format!("the body is not text: {error}")))?;
    text.parse::<Value>().or_else(|as_json| {
        serde_yaml_ng::from_str(text).map_err(|as_yaml| {
            Failure::bad_request(format!("the body is neither JSON ({as_json}) nor YAML ({as_yaml})"))
        })
    })
}

/// One object.
pub(super) fn object_answer(status: u16, kind: &Kind, form: Form, object: &Object) -> Response<Body> {
    let mut text = Vec::new();
    write_object(kind, form, object, &mut text);
    answer(status, "application/json", Body::from(text))
}

/// A value.
pub(super) fn json_answer(status: u16, value: &Value) -> Response<Body> {
    answer(status, "application/json", Body::from(value.to_string()))
}

/// A refusal, as a `Status`.
pub(super) fn failed(failure: &Failure) -> Response<Body> {
    let mut response = json_answer(failure.code, &failure.status());
    if let Some(secs) = failure.retry_after_secs {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

/// Any answer.
pub(super) fn answer(status: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
