//! Requests that change something.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::super::answer::{json_answer, object_answer, parse_body};
use super::super::definition;
use super::super::delete::Deleted;
use super::super::failure::Failure;
use super::super::kinds::{Content, Kind};
use super::super::rbac::User;
use super::super::request::{APPLY, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Verb, media_type};
use super::super::selector::Selector;
use super::super::store::Object;
use super::super::write::{PatchType, UnknownFields, WriteOptions, Writer, Written};
use super::{Asked, Shared, key};

impl Shared {
    /// Creates, replaces or patches.
    pub(super) fn write(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
        let Asked { parts, kind, address, query, form, verb } = asked;
        let options = write_options(asked)?;
        let media = media_type(&parts.headers);
        let how = match (verb, media) {
            (Verb::Apply, _) if query.text("fieldManager").is_none() => {
                return Err(Failure::bad_request(
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                ));
            }
            (Verb::Apply, APPLY) => Some(PatchType::Apply),
            (Verb::Patch, MERGE_PATCH) => Some(PatchType::Merge),
            (Verb::Patch, STRATEGIC_MERGE_PATCH) => Some(PatchType::Strategic),
            (Verb::Create | Verb::Update, "application/json" | "application/yaml") => None,
            _ => {
                let what = format!("bodies of type {media} for {}", verb.word());
                return Err(Failure::not_built(what).with_code(415, "UnsupportedMediaType"));
            }
        };
        let body = parse_body(body)?;
        let namespace = address.namespace.clone().unwrap_or_default();
        let written = self.store.with(|state| {
            let mut writer = Writer { state, kind: Arc::clone(kind), options, clock: &self.clock };
            match (how, verb) {
                (Some(how), _) => writer.patch(&key(address), how, &body),
                (None, Verb::Create) => writer.create(&namespace, body),
                (None, _) => writer.replace(&key(address), body),
            }
        })?;
        let Written { object, created, warnings } = written;
        self.note_cel(kind, &object);
        let mut response = object_answer(if created { 201 } else { 200 }, kind, *form, &object);
        for warning in warnings {
            let text = format!("299 - \"unknown field \\\"{warning}\\\"\"");
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        Ok(response)
    }

    /// Deletes one object, or all that are selected.
    pub(super) fn delete(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
        let Asked { kind, address, query, form, verb, .. } = asked;
        let mut options = write_options(asked)?;
        let body = if body.is_empty() { json!({}) } else { parse_body(body)? };
        check_delete_options(&body)?;
        options.dry_run |= body["dryRun"].as_array().is_some_and(|stages| !stages.is_empty());
        let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
        let condition = |name: &str| body["preconditions"][name].as_str().unwrap_or_default().to_owned();
        let (uid, version) = (condition("uid"), condition("resourceVersion"));
        self.store.with(|state| {
            let mut writer = Writer { state, kind: Arc::clone(kind), options, clock: &self.clock };
            if *verb == Verb::DeleteCollection {
                let objects = writer.delete_collection(address.namespace.as_deref(), &selector);
                let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
                let metadata = json!({"resourceVersion": writer.state.revision().to_string()});
                let list = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
                    "metadata": metadata, "items": items});
                return Ok(json_answer(200, &list));
            }
            let key = key(address);
            Ok(match writer.delete(&key, &uid, &version)? {
                Deleted::Waits(object) => object_answer(200, kind, *form, &object),
                // These kinds are given back, of the others only that they are gone (`ReturnDeletedObject`).
                Deleted::Gone(object) if kind.group.is_empty() && ["pods", "services", "serviceaccounts"].contains(&kind.plural.as_str()) => {
                    object_answer(200, kind, *form, &object)
                }
                Deleted::Gone(object) => json_answer(
                    200,
                    &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details":
                        {"name": key.name, "group": kind.group, "kind": kind.plural, "uid": object.meta("uid")}}),
                ),
            })
        })
    }

    /// `serviceaccounts/<name>/token`: a token that lasts as long as the account, whatever was asked for.
    pub(super) fn give_token(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
        let key = key(asked.address);
        let mut request = parse_body(body)?;
        if !request["spec"]["boundObjectRef"].is_null() {
            return Err(Failure::not_built("tokens bound to an object"));
        }
        let account = self.store.with(|state| state.get(&asked.kind.id(), &key));
        let account = account.ok_or_else(|| Failure::not_found(&asked.kind.resource(), &key.name))?;
        let uid = account.meta("uid").unwrap_or_default().to_owned();
        let token =
            self.tokens.make(User::ServiceAccount { namespace: key.namespace, name: key.name, uid })?;
        let secs = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        request["status"] = json!({"token": token, "expirationTimestamp": self.clock.text_in(secs)});
        request["kind"] = json!("TokenRequest");
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        Ok(json_answer(201, &request))
    }

    /// Remembers definitions whose rules in CEL nobody evaluates here.
    fn note_cel(&self, kind: &Kind, object: &Object) {
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions")
            && let Ok(defined) = definition::kind_of(&object.value)
            && let Content::Custom(schema) = &defined.content
            && schema.has_cel()
        {
            self.counter.not_evaluated(defined.resource());
        }
    }
}

fn write_options(asked: &Asked<'_>) -> Result<WriteOptions, Failure> {
    let Asked { parts, query, address, .. } = asked;
    let agent =
        parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent = agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
    let dry_run = match query.text("dryRun") {
        None => false,
        Some("All") => true,
        Some(other) => return Err(Failure::bad_request(format!("dryRun={other}: expected All"))),
    };
    let unknown = match query.text("fieldValidation") {
        None | Some("Warn") => UnknownFields::Warn,
        Some("Ignore") => UnknownFields::Ignore,
        Some("Strict") => UnknownFields::Strict,
        Some(other) => {
            return Err(Failure::bad_request(format!(
                "fieldValidation={other}: expected Ignore, Warn or Strict"
            )));
        }
    };
    Ok(WriteOptions {
        manager: query.text("fieldManager").unwrap_or(agent).to_owned(),
        to_status: address.subresource.is_some(),
        dry_run,
        force: query.flag("force")?,
        unknown,
    })
}

fn check_delete_options(body: &Value) -> Result<(), Failure> {
    let known = [
        "apiVersion",
        "kind",
        "gracePeriodSeconds",
        "propagationPolicy",
        "preconditions",
        "dryRun",
        "orphanDependents",
    ];
    let fields =
        body.as_object().ok_or_else(|| Failure::bad_request("delete options must be a JSON object"))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            Err(Failure::not_built(format!("the delete option {name}")).with_code(400, "BadRequest"))
        }
    }
}
