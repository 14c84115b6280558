//! What a request is refused with: a `Status` object, as the real API server words it.

use std::fmt;

use serde_json::{Value, json};

/// Why a request is refused. Printed: the reason and the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason (`metav1.StatusReason`).
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details.causes`.
    pub causes: Vec<Cause>,
    /// The `Retry-After` header and `details.retryAfterSeconds`.
    pub retry_after_secs: Option<u32>,
    /// Whether the request was refused because this server does not do such a thing, not because of what it asks.
    pub unsupported: bool,
}

/// One of the reasons of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `metav1.CauseType`, e.g. `FieldValueInvalid`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Failure {
    /// A refusal without causes.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, causes: Vec::new(), retry_after_secs: None, unsupported: false }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no or a wrong token.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: a rule forbids it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 404 for an object.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found"))
    }

    /// 404 for a path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
    }

    /// 409: somebody else was faster.
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"))
    }

    /// 410: that much history is not kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422: the object breaks rules; every cause is one.
    pub fn invalid(kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let listed: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let listed = if listed.len() == 1 { listed.join("") } else { format!("[{}]", listed.join(", ")) };
        let mut failure = Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {listed}"));
        failure.causes = causes;
        failure
    }

    /// 501: a real server does it, this one does not.
    pub fn not_built(what: impl fmt::Display) -> Self {
        let mut failure = Self::new(501, "NotImplemented", format!("lab-kube-api does not support {what}"));
        failure.unsupported = true;
        failure
    }

    /// The same refusal with another code, still counted as something that this server does not do.
    pub fn with_code(mut self, code: u16, reason: &'static str) -> Self {
        self.code = code;
        self.reason = reason;
        self
    }

    /// The same refusal with the time after which to try again.
    pub fn with_retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut details = serde_json::Map::new();
        if !self.causes.is_empty() {
            let causes = self
                .causes
                .iter()
                .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            details.insert("causes".to_owned(), Value::Array(causes.collect()));
        }
        if let Some(secs) = self.retry_after_secs {
            details.insert("retryAfterSeconds".to_owned(), json!(secs));
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code, "details": details,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Failure {}

impl Cause {
    /// A value that is not allowed.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}", message.into()),
            field: field.into(),
        }
    }

    /// A field that must be there.
    pub fn required(field: impl Into<String>) -> Self {
        Self { reason: "FieldValueRequired", message: "Required value".to_owned(), field: field.into() }
    }

    /// A value outside of a list.
    pub fn not_supported(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = format!("Unsupported value: {}", message.into());
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    /// A field that must not be there.
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = format!("Forbidden: {}", message.into());
        Self { reason: "FieldValueForbidden", message, field: field.into() }
    }
}
