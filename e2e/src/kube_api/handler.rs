//! From a request to an answer.

mod change;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::answer::{answer, failed, json_answer, object_answer, read_body};
use super::clock::Clock;
use super::discovery;
use super::failure::Failure;
use super::faults::{Fault, Faults};
use super::kinds::Kind;
use super::load::load_lines;
use super::rbac::{self, Tokens, User};
use super::read::list;
use super::request::{Address, Form, Query, Target, Verb, form};
use super::requests::Counter;
use super::store::{Key, Store};
use super::watch::{Watch, WatchRules};

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
                self.faults.inject(fault).await;
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

fn key(address: &Address) -> Key {
    Key {
        namespace: address.namespace.clone().unwrap_or_default(),
        name: address.name.clone().unwrap_or_default(),
    }
}

/// As the HTTP library wants it: an answer never fails.
pub async fn serve(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(shared.answer(request).await)
}
