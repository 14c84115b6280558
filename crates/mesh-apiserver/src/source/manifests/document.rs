//! A file's text to documents, and a document to objects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::finding::{Finding, Reason};
use crate::object::{Body, Object, ObjectKind};

/// What a file's text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The objects, in order.
    pub objects: Vec<Object>,
    /// What is odd. If one of them is [`Reason::DocumentInvalid`], the objects are not all that the file is meant to
    /// define.
    pub findings: Vec<Finding>,
}

/// Holds the members by which documents are told apart.
#[derive(Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// Holds a list as `kubectl get -o yaml` prints it.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

/// Reads a text of one or several documents. Each is read on its own, so a broken one takes nothing with it.
pub fn read(file: &str, text: &str) -> Contents {
    let mut contents = Contents::default();
    let documents = split(text);
    let several = documents.len() > 1;
    for (index, document) in documents.iter().enumerate() {
        let place = Place { file, number: several.then_some(index + 1), first_line: document.first_line };
        if index >= MAX_DOCUMENTS {
            let too_many = place.invalid(format_args!("{} documents", documents.len()));
            contents.findings.push(too_many.expected(format_args!("at most {MAX_DOCUMENTS}")));
            break;
        }
        read_document(&place, document.text, &mut contents);
    }
    contents
}

/// Where a document is, for findings.
struct Place<'a> {
    file: &'a str,
    number: Option<usize>,
    first_line: usize,
}

impl Place<'_> {
    fn object(&self) -> String {
        match self.number {
            Some(number) => format!("file {} document {number}", self.file),
            None => format!("file {}", self.file),
        }
    }

    fn invalid(&self, found: impl std::fmt::Display) -> Finding {
        // What becomes of it depends on what the file was before.
        Finding::error(Reason::DocumentInvalid, self.object()).found(found)
    }

    fn unparsable(&self, what: &str, error: &serde_saphyr::Error) -> Finding {
        let text = error.to_string();
        let Some(location) = error.location().filter(|location| location.line() > 0) else {
            return self.invalid(text).expected(what);
        };
        // The parser counts from the start of the document, people from the start of the file.
        let within = format!(" at line {}, column {}", location.line(), location.column());
        let line = usize::try_from(location.line()).unwrap_or(usize::MAX).saturating_add(self.first_line - 1);
        let found =
            format!("{} (line {line} of the file, column {})", text.replace(&within, ""), location.column());
        self.invalid(found).expected(what)
    }
}

fn read_document(place: &Place<'_>, text: &str, contents: &mut Contents) {
    // Most documents say their kind on two plain lines; then they are parsed once. A guess that is wrong fails, since
    // the types check both members, and the document is looked at properly.
    if let Some(object) =
        guess_kind(text).and_then(|kind| Object::try_from(body(kind, Source::Yaml(text)).ok()?).ok())
    {
        contents.objects.push(object);
        return;
    }
    let meta: TypeMeta = match from_yaml(text) {
        Ok(meta) => meta,
        Err(error) => {
            contents.findings.push(place.unparsable("a Kubernetes object in YAML", &error));
            return;
        }
    };
    match (meta.api_version.as_str(), meta.kind.as_str()) {
        (_, "") => {
            let finding = place
                .invalid("there is no member kind")
                .expected("apiVersion and kind of a Kubernetes object");
            contents.findings.push(finding);
        }
        ("v1", "List") => read_list(place, text, contents),
        (api_version, kind) => match ObjectKind::of(api_version, kind) {
            Some(kind) => take(place, body(kind, Source::Yaml(text)), kind, contents),
            None => contents.findings.push(ignored(&place.object(), api_version, kind)),
        },
    }
}

/// The kind that the first lines `apiVersion:` and `kind:` without indentation name, if they are plain.
fn guess_kind(text: &str) -> Option<ObjectKind> {
    let member =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    ObjectKind::of(member("apiVersion")?, member("kind")?)
}

fn read_list(place: &Place<'_>, text: &str, contents: &mut Contents) {
    let list: List = match from_yaml(text) {
        Ok(list) => list,
        Err(error) => {
            contents.findings.push(place.unparsable("a List of Kubernetes objects", &error));
            return;
        }
    };
    for item in list.items {
        let meta = TypeMeta::deserialize(&item)
            .unwrap_or(TypeMeta { api_version: String::new(), kind: String::new() });
        match ObjectKind::of(&meta.api_version, &meta.kind) {
            Some(kind) => take(place, body(kind, Source::Json(item)), kind, contents),
            None => contents.findings.push(ignored(&place.object(), &meta.api_version, &meta.kind)),
        }
    }
}

fn ignored(object: &str, api_version: &str, kind: &str) -> Finding {
    let kinds = ObjectKind::ALL.map(ObjectKind::as_str).join(", ");
    Finding::info(Reason::KindIgnored, object)
        .found(format_args!("{kind:?} of apiVersion {api_version:?}"))
        .expected(format_args!("one of {kinds}, or a List of them"))
        .so("ignored")
}

/// Holds a document that is yet to be given its type.
enum Source<'a> {
    Yaml(&'a str),
    Json(serde_json::Value),
}

/// Why a document is not the object that it says it is.
enum Misfit {
    Yaml(serde_saphyr::Error),
    Json(serde_json::Error),
}

impl Source<'_> {
    fn into<T: DeserializeOwned>(self) -> Result<Arc<T>, Misfit> {
        match self {
            Self::Yaml(text) => from_yaml(text).map_err(Misfit::Yaml),
            Self::Json(value) => serde_json::from_value(value).map_err(Misfit::Json),
        }
        .map(Arc::new)
    }
}

fn body(kind: ObjectKind, source: Source<'_>) -> Result<Body, Misfit> {
    Ok(match kind {
        ObjectKind::Namespace => Body::Namespace(source.into::<Namespace>()?),
        ObjectKind::Node => Body::Node(source.into::<Node>()?),
        ObjectKind::Service => Body::Service(source.into::<Service>()?),
        ObjectKind::EndpointSlice => Body::EndpointSlice(source.into::<EndpointSlice>()?),
        ObjectKind::Pod => Body::Pod(Arc::new(Arc::unwrap_or_clone(source.into::<Pod>()?).into())),
        // Manifests are not asked for these: what a kind means is for `ObjectKind::of` to say.
        other => {
            let error = format_args!("{} is not read from manifests", other.as_str());
            return Err(Misfit::Json(serde_json::Error::custom(error)));
        }
    })
}

fn take(place: &Place<'_>, body: Result<Body, Misfit>, kind: ObjectKind, contents: &mut Contents) {
    let what = format!("a sound {}", kind.as_str());
    let finding = match body.map(Object::try_from) {
        Ok(Ok(object)) => {
            contents.objects.push(object);
            return;
        }
        Ok(Err(error)) => place.invalid(error),
        Err(Misfit::Yaml(error)) => place.unparsable(&what, &error),
        Err(Misfit::Json(error)) => place.invalid(error).expected(what),
    };
    contents.findings.push(finding);
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    // Errors are one line, without a picture of the text, which would go to the log.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

/// One document of a text.
#[derive(Debug, PartialEq, Eq)]
struct Document<'a> {
    text: &'a str,
    /// The line of the file on which it starts, from 1.
    first_line: usize,
}

/// The documents of a text that hold more than blanks and comments. A line that starts with `---` or `...` always
/// ends a document, even inside a block scalar (YAML 1.2.2, section 9.1.2), so no parser is needed to find them.
fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = ["---", "..."].iter().any(|marker| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        });
        if marker && at > start {
            documents.push(Document { text: &text[start..at], first_line });
        }
        if marker {
            // The marker's line belongs to the document that it opens, as that may start on it.
            start = if line.starts_with("...") { at + line.len() } else { at };
            first_line = if line.starts_with("...") { number + 2 } else { number + 1 };
        }
        at += line.len();
    }
    documents.push(Document { text: &text[start..], first_line });
    documents.retain(|document| {
        let mut lines = document.text.lines().map(|line| line.strip_prefix("---").unwrap_or(line).trim());
        lines.any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%'))
    });
    documents
}

/// Documents of one file.
const MAX_DOCUMENTS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n";

    #[test]
    fn documents_are_told_apart() {
        let text = format!("# a comment\n---\n{SERVICE}---\n---\n# nothing\n---\n{SERVICE}...\n\n");
        let lines: Vec<usize> = split(&text).iter().map(|document| document.first_line).collect();
        assert_eq!(lines, [2, 9], "{:?}", split(&text));
        let contents = read("a.yaml", &text);
        assert_eq!((contents.objects.len(), contents.findings), (2, vec![]));
    }

    #[test]
    fn a_broken_document_is_named_and_takes_nothing_with_it() {
        let text = format!("{SERVICE}---\napiVersion: v1\nkind: Service\nmetadata: [oops\n---\n{SERVICE}");
        let contents = read("shop.yaml", &text);
        assert_eq!(contents.objects.len(), 2);
        let [finding] = contents.findings.as_slice() else { panic!("{:?}", contents.findings) };
        assert_eq!(finding.object, "file shop.yaml document 2");
        assert!(finding.found.contains("of the file"), "{finding}");
    }

    #[test]
    fn a_wrong_type_names_its_line() {
        let text = format!("{SERVICE}spec:\n  ports:\n  - port: eighty\n");
        let contents = read("shop.yaml", &text);
        let [finding] = contents.findings.as_slice() else { panic!("{:?}", contents.findings) };
        assert!(contents.objects.is_empty());
        assert!(finding.found.contains("line 6 of the file"), "{finding}");
        assert_eq!(finding.expected, "a sound Service");
    }

    #[test]
    fn unknown_kinds_and_missing_names_are_said() {
        let contents = read("x.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n");
        assert_eq!(contents.findings[0].reason, Reason::KindIgnored, "{:?}", contents.findings);
        let contents = read("x.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop}\n");
        assert!(
            contents.findings[0].to_string().contains("metadata.name is \"\""),
            "{:?}",
            contents.findings
        );
        let contents = read("x.yaml", "just: text\n");
        assert_eq!(contents.findings[0].reason, Reason::DocumentInvalid);
    }

    #[test]
    fn lists_and_json_are_read() {
        let item = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"cart","namespace":"shop"}}"#;
        let other = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}"#;
        let text = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{item},{other}]}}"#);
        let contents = read("list.json", &text);
        assert_eq!((contents.objects.len(), contents.findings.len()), (1, 1), "{:?}", contents.findings);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "apiVersion: v1\nkind: Service\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        let contents = read("bomb.yaml", &text);
        assert!(contents.objects.is_empty() && !contents.findings.is_empty(), "{:?}", contents.findings);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(---|\\.\\.\\.|kind: Pod|apiVersion: v1|[ \n:#{}\\[\\]&*!|>-]|[a-z\u{e9}\t]){0,60}") {
            let _ = read("any.yaml", &text);
        }
    }
}
