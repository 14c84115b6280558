//! From a request to an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::clock::Clock;
use super::delete::Deleted;
use super::discovery;
use super::failure::Failure;
use super::faults::{Fault, Faults};
use super::kinds::{Content, Kind};
use super::load::load_lines;
use super::rbac::{self, Tokens, User};
use super::read::{list, write_object};
use super::request::{
    APPLY, Address, Form, MERGE_PATCH, Query, STRATEGIC_MERGE_PATCH, Target, Verb, form, media_type,
};
use super::requests::Counter;
use super::selector::Selector;
use super::store::{Key, Object, Store};
use super::watch::{Watch, WatchRules};
use super::write::{PatchType, UnknownFields, WriteOptions, Writer, Written};

/// Most bytes of a body, as the API server's own limit.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Most time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The objects.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: Arc<Clock>,
    /// What goes wrong on request.
    pub faults: Faults,
    /// What was asked for.
    pub counter: Counter,
    /// How watches behave.
    pub watch_rules: WatchRules,
    /// A permit for each watch.
    pub watches: Arc<Semaphore>,
    /// The token of the user who may do everything.
    pub token: Option<String>,
    /// The tokens of service accounts.
    pub tokens: Tokens,
}

/// What a request for objects needs to know.
struct Asked<'a> {
    parts: &'a Parts,
    kind: Arc<Kind>,
    address: &'a Address,
    query: &'a Query,
    form: Form,
    verb: Verb,
}

impl Shared {
    /// Answers a request; every failure is an answer too.
    pub async fn answer(self: &Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let result = self.dispatch(&parts, body).await;
        let mut response = result.unwrap_or_else(|failure| {
            if failure.unsupported {
                self.counter.unsupported(format!("{} {}: {failure}", parts.method, parts.uri));
                tracing::warn!(method = %parts.method, uri = %parts.uri, %failure, "unsupported request");
            }
            failed(&failure)
        });
        self.counter.status(response.status().as_u16());
        if let Ok(date) = HeaderValue::from_str(&self.clock.now_http()) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }

    async fn dispatch(self: &Arc<Self>, parts: &Parts, body: Body) -> Result<Response<Body>, Failure> {
        let path = parts.uri.path();
        let target = Target::parse(path)?;
        if let Target::Lab(path) = &target {
            return self.lab(&parts.method, path, body).await;
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let objects = match &target {
            Target::Objects(address) => Some((Verb::of(parts, address, &query)?, address)),
            _ => None,
        };
        let name = |(verb, address): (Verb, &Address)| format!("{} {}", verb.word(), address.resource());
        self.counter.request(objects.map_or_else(|| format!("get {path}"), name));
        let (wait, refusal) = self.faults.meet(path, objects);
        // The wait is the fault: a slow server.
        sleep(wait).await;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if target == Target::Health {
            return Ok(answer(200, "text/plain", Body::from("ok")));
        }
        let user = self.authenticate(&parts.headers)?;
        if let Some((verb, address)) = objects {
            self.authorize(&user, verb, address, &query)?;
            return self.objects(parts, body, verb, address, &query).await;
        }
        if parts.method != Method::GET {
            return Err(
                Failure::not_built(format!("{} {path}", parts.method)).with_code(405, "MethodNotAllowed")
            );
        }
        query.only(&["timeout"])?;
        form(&parts.headers)?;
        let found = self.store.with(|state| match &target {
            Target::Version => Ok(discovery::version()),
            Target::CoreVersions => Ok(discovery::core_versions()),
            Target::Groups => Ok(discovery::groups(state)),
            Target::Group(group) => discovery::group(state, group),
            Target::Resources { group, version } => discovery::resources(state, group, version),
            Target::Health | Target::Objects(_) | Target::Lab(_) => Err(Failure::no_such_path()),
        })?;
        Ok(json_answer(200, &found))
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<User, Failure> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        match (shown, &self.token) {
            (None, None) => Ok(User::Lab),
            (Some(shown), Some(token)) if shown == token => Ok(User::Lab),
            (Some(shown), _) => self.store.with(|state| self.tokens.user(shown, state)),
            (None, Some(_)) => Err(Failure::unauthorized()),
        }
    }

    fn authorize(&self, user: &User, verb: Verb, address: &Address, query: &Query) -> Result<(), Failure> {
        // A list or watch of one name counts as that name.
        let selected = query.text("fieldSelector").and_then(|rule| rule.strip_prefix("metadata.name="));
        self.store.with(|state| {
            rbac::check(state, user, rbac::word(verb), address, selected)?;
            let found = state.kind(&address.group, &address.version, &address.plural);
            let is_new = found.is_some_and(|kind| state.get(&kind.id(), &key(address)).is_none());
            // Applying what is not there creates it.
            if verb == Verb::Apply && is_new {
                rbac::check(state, user, "create", address, None)
            } else {
                Ok(())
            }
        })
    }

    async fn objects(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        verb: Verb,
        address: &Address,
        query: &Query,
    ) -> Result<Response<Body>, Failure> {
        query.only(verb.options())?;
        let Address { group, version, plural, .. } = address;
        let kind =
            self.store.with(|state| state.kind(group, version, plural)).ok_or_else(Failure::no_such_path)?;
        check_place(&kind, address, verb)?;
        let form = form(&parts.headers)?;
        let asked = Asked { parts, kind, address, query, form, verb };
        match verb {
            Verb::Get => self.get(&asked),
            Verb::List => {
                let list = list(&self.store, &asked.kind, address.namespace.as_deref(), query, form)?;
                Ok(answer(200, "application/json", list.into_body()))
            }
            Verb::Watch => self.watch(&asked),
            Verb::Create if address.subresource.is_some() => {
                let body = read_body(body).await?;
                self.give_token(&asked, &body)
            }
            Verb::Create | Verb::Update | Verb::Patch | Verb::Apply => {
                let body = read_body(body).await?;
                self.write(&asked, &body)
            }
            Verb::Delete | Verb::DeleteCollection => {
                let body = read_body(body).await?;
                self.delete(&asked, &body)
            }
        }
    }

    fn get(&self, asked: &Asked<'_>) -> Result<Response<Body>, Failure> {
        let Asked { kind, address, form, .. } = asked;
        let key = key(address);
        let found = self.store.with(|state| state.get(&kind.id(), &key));
        let found = found.ok_or_else(|| Failure::not_found(&kind.resource(), &key.name))?;
        Ok(object_answer(200, kind, *form, &found))
    }

    fn watch(&self, asked: &Asked<'_>) -> Result<Response<Body>, Failure> {
        let Asked { kind, address, query, form, .. } = asked;
        let permit = Arc::clone(&self.watches).try_acquire_owned();
        let permit = permit.map_err(|error| {
            Failure::new(429, "TooManyRequests", format!("too many watches: {error}")).with_retry_after(1)
        })?;
        let namespace = address.namespace.as_deref();
        let ends = self.faults.ends();
        let watch = Watch::begin(&self.store, kind, namespace, query, *form, self.watch_rules, ends, permit)?;
        Ok(answer(200, "application/json", watch.into_body()))
    }

    fn write(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
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

    fn delete(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
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
    fn give_token(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, Failure> {
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
            && let Ok(defined) = super::definition::kind_of(&object.value)
            && let Content::Custom(schema) = &defined.content
            && schema.has_cel()
        {
            self.counter.not_evaluated(defined.resource());
        }
    }

    async fn lab(&self, method: &Method, path: &str, body: Body) -> Result<Response<Body>, Failure> {
        match (method, path) {
            (&Method::GET, "requests") => Ok(json_answer(200, &json!(self.counter.tally()))),
            (&Method::DELETE, "requests") => {
                self.counter.reset();
                Ok(json_answer(200, &json!({})))
            }
            (&Method::GET, "faults") => Ok(json_answer(200, &json!(self.faults.active()))),
            (&Method::POST, "faults") => {
                let body = read_body(body).await?;
                let fault: Fault = serde_json::from_slice(&body)
                    .map_err(|error| Failure::bad_request(format!("the body is not a fault: {error}")))?;
                self.faults.inject(fault);
                Ok(json_answer(200, &json!({})))
            }
            (&Method::POST, "load") => {
                let count = load_lines(&self.store, &self.clock, body).await?;
                Ok(json_answer(200, &json!({"loaded": count})))
            }
            _ => Err(Failure::not_built(format!("{method} /_lab/{path}")).with_code(404, "NotFound")),
        }
    }
}

fn check_place(kind: &Kind, address: &Address, verb: Verb) -> Result<(), Failure> {
    match address.subresource.as_deref() {
        None => {}
        Some("status")
            if kind.status && matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Apply) => {}
        Some("token") if kind.is("", "serviceaccounts") && verb == Verb::Create => {}
        Some("status") if !kind.status => return Err(Failure::no_such_path()),
        Some(other) => {
            return Err(Failure::not_built(format!("{} of {}/{other}", verb.word(), kind.resource())));
        }
    }
    let needs_namespace = kind.namespaced && !matches!(verb, Verb::List | Verb::Watch);
    if (address.namespace.is_some() && !kind.namespaced) || (address.namespace.is_none() && needs_namespace) {
        return Err(Failure::no_such_path());
    }
    Ok(())
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

fn key(address: &Address) -> Key {
    Key {
        namespace: address.namespace.clone().unwrap_or_default(),
        name: address.name.clone().unwrap_or_default(),
    }
}

async fn read_body(body: Body) -> Result<Vec<u8>, Failure> {
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
fn parse_body(body: &[u8]) -> Result<Value, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Failure::bad_request(format!("the body is not text: {error}")))?;
    text.parse::<Value>().or_else(|as_json| {
        serde_yaml_ng::from_str(text).map_err(|as_yaml| {
            Failure::bad_request(format!("the body is neither JSON ({as_json}) nor YAML ({as_yaml})"))
        })
    })
}

fn object_answer(status: u16, kind: &Kind, form: Form, object: &Object) -> Response<Body> {
    let mut text = Vec::new();
    write_object(kind, form, object, &mut text);
    answer(status, "application/json", Body::from(text))
}

fn json_answer(status: u16, value: &Value) -> Response<Body> {
    answer(status, "application/json", Body::from(value.to_string()))
}

fn failed(failure: &Failure) -> Response<Body> {
    let mut response = json_answer(failure.code, &failure.status());
    if let Some(secs) = failure.retry_after_secs {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

fn answer(status: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// As the HTTP library wants it: an answer never fails.
pub async fn serve(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(shared.answer(request).await)
}
