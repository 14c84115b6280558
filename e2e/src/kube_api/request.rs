//! A request: what its path means, which options it has, which answer it takes. What is not known is refused loudly.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::failure::Failure;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/version`.
    Version,
    /// `/livez`, `/readyz`, `/healthz`.
    Health,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    Resources {
        /// API group; empty for core.
        group: String,
        /// Version.
        version: String,
    },
    /// Objects of a kind, one object, or a part of it.
    Objects(Address),
    /// `/_lab/…`: for tests.
    Lab(String),
}

/// Names objects of a kind by a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural, lower case.
    pub plural: String,
    /// Namespace, if the path has one.
    pub namespace: Option<String>,
    /// Name, if it is about one object.
    pub name: Option<String>,
    /// Subresource, if it is about one.
    pub subresource: Option<String>,
}

/// What a request wants to do, in the words of RBAC; apply is a patch there, and counted apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of the API")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Apply,
    Delete,
    DeleteCollection,
}

/// The options of a query. Every option that a verb does not know is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(BTreeMap<String, String>);

/// What an answer may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

/// The media types of patches.
pub const APPLY: &str = "application/apply-patch+yaml";
/// RFC 7386.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Kubernetes' own.
pub const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";

impl Target {
    /// Reads a path. Fails with 404 for what no API server has, with 501 for what a real one has and this one has not.
    pub fn parse(path: &str) -> Result<Self, Failure> {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let target = match parts.as_slice() {
            ["version"] => Self::Version,
            ["livez" | "readyz" | "healthz"] => Self::Health,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources { group: String::new(), version: (*version).to_owned() },
            ["apis", group, version] => {
                Self::Resources { group: (*group).to_owned(), version: (*version).to_owned() }
            }
            ["_lab", rest @ ..] => Self::Lab(rest.join("/")),
            ["api", version, rest @ ..] => Self::Objects(Address::parse("", version, rest)?),
            ["apis", group, version, rest @ ..] => Self::Objects(Address::parse(group, version, rest)?),
            _ => return Err(Failure::not_built(format!("the path {path}")).with_code(404, "NotFound")),
        };
        Ok(target)
    }
}

impl Address {
    fn parse(group: &str, version: &str, rest: &[&str]) -> Result<Self, Failure> {
        let owned = |text: &str| Some(text.to_owned());
        let mut address = Self { group: group.to_owned(), version: version.to_owned(), ..Self::default() };
        let rest = match rest {
            // `/namespaces/<name>` and `/namespaces/<name>/status` are about the namespace itself.
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
            {
                address.namespace = owned(namespace);
                rest
            }
            rest => rest,
        };
        match rest {
            [plural] => address.plural = (*plural).to_owned(),
            [plural, name] => (address.plural, address.name) = ((*plural).to_owned(), owned(name)),
            [plural, name, subresource] => {
                (address.plural, address.name) = ((*plural).to_owned(), owned(name));
                address.subresource = owned(subresource);
            }
            _ => {
                let path = rest.join("/");
                return Err(Failure::not_built(format!("the path …/{path}")).with_code(404, "NotFound"));
            }
        }
        Ok(address)
    }

    /// `plural[.group][/subresource]`, as requests are counted.
    pub fn resource(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let below = self.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        format!("{}{group}{below}", self.plural)
    }
}

impl Verb {
    /// The verb of a request for objects.
    pub fn of(parts: &Parts, address: &Address, query: &Query) -> Result<Self, Failure> {
        let one = address.name.is_some();
        let watch = query.flag("watch")?;
        Ok(match (&parts.method, one) {
            (&Method::GET, false) if watch => Self::Watch,
            (&Method::GET, true) if watch => {
                return Err(Failure::not_built("watching one object by its path (use a field selector)"));
            }
            (&Method::GET, true) => Self::Get,
            (&Method::GET, false) => Self::List,
            (&Method::POST, false) => Self::Create,
            (&Method::POST, true) if address.subresource.is_some() => Self::Create,
            (&Method::PUT, true) => Self::Update,
            (&Method::PATCH, true) if media_type(&parts.headers) == APPLY => Self::Apply,
            (&Method::PATCH, true) => Self::Patch,
            (&Method::DELETE, true) => Self::Delete,
            (&Method::DELETE, false) => Self::DeleteCollection,
            (method, _) => {
                let what = format!("{method} of {}", address.resource());
                return Err(Failure::not_built(what).with_code(405, "MethodNotAllowed"));
            }
        })
    }

    /// As RBAC and the counters call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Apply => "apply",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// The options that a query may have.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Get => &["resourceVersion", "pretty"],
            Self::List => &[
                "labelSelector",
                "fieldSelector",
                "limit",
                "continue",
                "resourceVersion",
                "resourceVersionMatch",
                "timeoutSeconds",
                "watch",
                "allowWatchBookmarks",
                "pretty",
            ],
            Self::Watch => &[
                "labelSelector",
                "fieldSelector",
                "watch",
                "resourceVersion",
                "resourceVersionMatch",
                "allowWatchBookmarks",
                "timeoutSeconds",
                "sendInitialEvents",
                "pretty",
            ],
            Self::Create | Self::Update | Self::Patch => {
                &["dryRun", "fieldManager", "fieldValidation", "pretty"]
            }
            Self::Apply => &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"],
            Self::Delete => {
                &["dryRun", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "pretty"]
            }
            Self::DeleteCollection => &[
                "labelSelector",
                "fieldSelector",
                "dryRun",
                "gracePeriodSeconds",
                "propagationPolicy",
                "orphanDependents",
                "pretty",
            ],
        }
    }
}

impl Query {
    /// Reads a query. Fails for an option that comes twice with different values.
    pub fn parse(query: &str) -> Result<Self, Failure> {
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")));
            let before = options.insert(name.clone(), value.clone());
            if before.is_some_and(|before| before != value) {
                return Err(
                    Failure::not_built(format!("the option {name} twice")).with_code(400, "BadRequest")
                );
            }
        }
        Ok(Self(options))
    }

    /// Fails for options that are not among these.
    pub fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let what = format!("the option {name} for this request");
                Err(Failure::not_built(what).with_code(400, "BadRequest"))
            }
        }
    }

    /// The text of an option; empty counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// An option that is yes or no.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0" | "False" | "f") => Ok(false),
            Some("true" | "1" | "True" | "t") => Ok(true),
            Some(other) => Err(Failure::bad_request(format!("{name}={other}: expected true or false"))),
        }
    }

    /// An option that is a number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let read = |text: &str| {
            text.parse()
                .map_err(|error| Failure::bad_request(format!("{name}={text}: expected a number: {error}")))
        };
        self.text(name).map(read).transpose()
    }
}

/// The media type of a body, without parameters; JSON if there is none.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).map_or("application/json", str::trim)
}

/// The first form of an answer that a client takes and this server has. Fails with 406.
pub fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let accepted: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if accepted.is_empty() {
        return Ok(Form::Whole);
    }
    let accepted = accepted.join(",");
    for choice in accepted.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let types = parts.next().unwrap_or_default();
        if !matches!(types, "application/json" | "application/*" | "*/*" | "") {
            continue;
        }
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        match parameters.get("as").copied() {
            None => return Ok(Form::Whole),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if parameters.get("g") == Some(&"meta.k8s.io") && parameters.get("v") == Some(&"v1") =>
            {
                return Ok(Form::Metadata);
            }
            Some(_) => {}
        }
    }
    Err(Failure::not_built(format!("answers as {accepted}")).with_code(406, "NotAcceptable"))
}

/// Undoes percent encoding; what is no encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(path: &str) -> Address {
        match Target::parse(path) {
            Ok(Target::Objects(address)) => address,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths() {
        let slices = address("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/a/status");
        let Address { group, version, plural, namespace, name, subresource } = slices;
        assert_eq!(
            (group.as_str(), version.as_str(), plural.as_str()),
            ("discovery.k8s.io", "v1", "endpointslices")
        );
        assert_eq!(
            (namespace.as_deref(), name.as_deref(), subresource.as_deref()),
            (Some("shop"), Some("a"), Some("status"))
        );
        let namespace = address("/api/v1/namespaces/shop/status");
        assert_eq!(
            (namespace.plural.as_str(), namespace.name.as_deref(), namespace.namespace),
            ("namespaces", Some("shop"), None)
        );
        assert_eq!(address("/api/v1/namespaces").plural, "namespaces");
        assert_eq!(address("/api/v1/namespaces/shop/pods").namespace.as_deref(), Some("shop"));
        let role = address("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(role.name.as_deref(), Some("system:node"));
        for path in ["/", "/openapi/v3", "/api/v1/a/b/c/d/e"] {
            assert!(Target::parse(path).expect_err(path).unsupported, "{path}");
        }
    }

    #[test]
    fn queries() {
        let query =
            Query::parse("&labelSelector=app%3Dx%2Cy&fieldSelector=a+b&watch=true&limit=5").expect("sound");
        assert_eq!(query.text("labelSelector"), Some("app=x,y"));
        assert_eq!(query.text("fieldSelector"), Some("a b"));
        assert_eq!((query.flag("watch"), query.number("limit")), (Ok(true), Ok(Some(5))));
        assert!(query.only(&["watch"]).expect_err("others").unsupported);
        assert!(Query::parse("a=1&a=2").is_err() && Query::parse("a=1&a=1").is_ok());
    }

    #[test]
    fn forms() {
        let accept = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(value));
            form(&headers)
        };
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(accept(metadata), Ok(Form::Metadata));
        assert_eq!(accept("application/vnd.kubernetes.protobuf, application/json"), Ok(Form::Whole));
        assert_eq!(accept("application/json;as=Table;g=meta.k8s.io;v=v1,application/json"), Ok(Form::Whole));
        assert!(accept("application/vnd.kubernetes.protobuf").is_err());
    }
}
