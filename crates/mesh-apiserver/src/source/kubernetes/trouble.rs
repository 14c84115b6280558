//! What went wrong with the API server, as findings.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::runtime::watcher;

use super::custom::CILIUM;
use crate::finding::{Finding, Reason};
use crate::object::ObjectKind;
use mesh_resources::mesh_identity;

/// Why a kind is not up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble.
    pub class: Class,
    /// What the API server, or the connection, said first.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
}

/// Kinds of trouble; a text that differs within one is no news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 403, for this verb.
    Denied(&'static str),
    /// 404: the API server has no such kind.
    Absent,
    /// 401: the credentials are not accepted.
    Unauthorized,
    /// It answers that it cannot at present: 429, 5xx.
    Busy,
    /// It does not answer.
    Unreachable,
    /// It answers with something that is not understood.
    Garbled,
}

/// What to do after an error of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The watch goes on where it was.
    Resume(Option<(Class, String)>),
    /// It has to list again.
    Relist(Option<(Class, String)>),
    /// The server knows no streaming lists: list in pages.
    Pages,
}

impl Class {
    /// Whether the kind cannot be had at all, and others may.
    pub fn is_denial(self) -> bool {
        matches!(self, Self::Denied(_) | Self::Absent)
    }

    /// Whether an answer without an error ends it.
    pub fn ends_with_an_answer(self) -> bool {
        self != Self::Garbled
    }
}

/// What an error of a watch means. `streaming`: it asked for a streaming list.
pub fn remedy(error: &watcher::Error, streaming: bool) -> Remedy {
    use kube::Error as Client;
    let (verb, cause) = match error {
        watcher::Error::InitialListFailed(cause) => ("list", cause),
        watcher::Error::WatchStartFailed(cause) => ("watch", cause),
        // An end without a word is nothing special: connections break, servers restart. If it is more, the next attempt
        // fails, too.
        watcher::Error::WatchFailed(Client::HyperError(_) | Client::ReadEvents(_) | Client::Service(_)) => {
            return Remedy::Resume(None);
        }
        watcher::Error::WatchFailed(cause) => return Remedy::Relist(Some((Class::Garbled, chain(cause)))),
        watcher::Error::WatchError(status) if status.code == 410 => return Remedy::Relist(None),
        watcher::Error::WatchError(status) => {
            return Remedy::Relist(Some((Class::Busy, format!("watch: {} {}", status.code, status.message))));
        }
        watcher::Error::NoResourceVersion => {
            return Remedy::Relist(Some((Class::Garbled, error.to_string())));
        }
    };
    match cause {
        Client::Api(status) => {
            let text = format!("{verb}: {} {}", status.code, status.message);
            match status.code {
                400 | 405 | 422 | 501 if streaming && verb == "watch" => Remedy::Pages,
                401 => Remedy::Resume(Some((Class::Unauthorized, text))),
                403 => Remedy::Resume(Some((Class::Denied(verb), text))),
                404 => Remedy::Resume(Some((Class::Absent, text))),
                410 => Remedy::Relist(None),
                _ => Remedy::Resume(Some((Class::Busy, text))),
            }
        }
        Client::HyperError(_) | Client::ReadEvents(_) | Client::Service(_) => {
            Remedy::Resume(Some((Class::Unreachable, chain(cause))))
        }
        Client::Auth(_) => Remedy::Resume(Some((Class::Unauthorized, chain(cause)))),
        _ => Remedy::Relist(Some((Class::Garbled, chain(cause)))),
    }
}

/// One finding for each kind that is denied, and one for each other class of trouble.
pub fn findings(server: &str, troubles: &BTreeMap<ObjectKind, Trouble>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut shared: BTreeMap<Class, Vec<(ObjectKind, &Trouble)>> = BTreeMap::new();
    for (kind, trouble) in troubles {
        match trouble.class {
            Class::Denied(verb) => findings.push(
                Finding::error(Reason::SourceDenied, format_args!("kind {}", kind.as_str()))
                    .found(format_args!("since {:.0}: {}", trouble.since, trouble.text))
                    .expected(format_args!("to be allowed to {verb} it: {}", rule(*kind)))
                    .so(consequence(*kind)),
            ),
            Class::Absent => findings.push(
                Finding::error(Reason::SourceDenied, format_args!("kind {}", kind.as_str()))
                    .found(format_args!("since {:.0}: {}", trouble.since, trouble.text))
                    .expected(format_args!("an API server that has {}", served(*kind)))
                    .so(consequence(*kind)),
            ),
            class => shared.entry(class).or_default().push((*kind, trouble)),
        }
    }
    for (class, kinds) in shared {
        // The first to fail says it best, and its text does not change while others come and go.
        let Some((_, first)) = kinds.iter().min_by_key(|(_, trouble)| trouble.since) else { continue };
        let expected = match class {
            Class::Unauthorized => "credentials that it accepts",
            Class::Busy => "an answer",
            Class::Garbled => "objects of these kinds",
            Class::Unreachable | Class::Denied(_) | Class::Absent => "that it answers",
        };
        findings.push(
            Finding::error(Reason::SourceUnreachable, format_args!("API server {server}"))
                .found(format_args!("since {:.0}: {}", first.since, first.text))
                .expected(expected)
                .so(format_args!(
                    "what is known stays as it is and grows old; tried again every {} s or sooner",
                    super::follow::LONGEST_PAUSE.as_secs()
                )),
        );
    }
    findings
}

/// A rule of a ClusterRole that allows what is needed of a kind.
pub fn rule(kind: ObjectKind) -> String {
    let (group, _version, resource) = resource(kind);
    let verbs = match kind {
        ObjectKind::MeshIdentity => "list, watch, create, patch, delete",
        _ => "list, watch",
    };
    format!("ClusterRole rule {{apiGroups: [{group:?}], resources: [{resource}], verbs: [{verbs}]}}")
}

fn served(kind: ObjectKind) -> String {
    let (group, version, resource) = resource(kind);
    let slash = if group.is_empty() { "" } else { "/" };
    format!("{resource} in {group}{slash}{version}")
}

/// Group, version and plural of a kind.
fn resource(kind: ObjectKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        ObjectKind::Namespace => ("", "v1", "namespaces"),
        ObjectKind::Node => ("", "v1", "nodes"),
        ObjectKind::Service => ("", "v1", "services"),
        ObjectKind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        ObjectKind::Pod => ("", "v1", "pods"),
        ObjectKind::MeshIdentity => (mesh_resources::GROUP, mesh_resources::VERSION, mesh_identity::PLURAL),
        ObjectKind::CiliumIdentity => (CILIUM, "v2", "ciliumidentities"),
        ObjectKind::CiliumEndpoint => (CILIUM, "v2", "ciliumendpoints"),
        ObjectKind::CiliumNode => (CILIUM, "v2", "ciliumnodes"),
        ObjectKind::CiliumEndpointSlice => (CILIUM, "v2alpha1", "ciliumendpointslices"),
        ObjectKind::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
        ObjectKind::CiliumNetworkPolicy => (CILIUM, "v2", "ciliumnetworkpolicies"),
        ObjectKind::CiliumClusterwideNetworkPolicy => (CILIUM, "v2", "ciliumclusterwidenetworkpolicies"),
    }
}

fn chain(error: &kube::Error) -> String {
    mesh_runtime::Chain(error).to_string()
}

fn consequence(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::MeshIdentity => {
            "the numbers of identities are kept in the hub's store alone, and what objects said before stays: losing the \
             store renumbers"
        }
        kind if ObjectKind::POLICIES.contains(&kind) => {
            "they are neither counted nor checked; nothing else depends on them"
        }
        _ => STAYS,
    }
}

const STAYS: &str = "other kinds are followed; records that need this one stay as they were published, and are not \
                     made anew before it can be listed";

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answer(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: "no".to_owned(), ..Status::default() }))
    }

    fn trouble(class: Class, seconds: i64) -> Trouble {
        let since = Timestamp::from_second(seconds).expect("a time");
        Trouble { class, text: format!("text {seconds}"), since }
    }

    #[test]
    fn what_an_error_means() {
        let listing = |code| remedy(&watcher::Error::InitialListFailed(answer(code)), false);
        let watching = |code, streaming| remedy(&watcher::Error::WatchStartFailed(answer(code)), streaming);
        let text = |verb: &str, code: u16| format!("{verb}: {code} no");
        assert_eq!(listing(403), Remedy::Resume(Some((Class::Denied("list"), text("list", 403)))));
        assert_eq!(watching(403, true), Remedy::Resume(Some((Class::Denied("watch"), text("watch", 403)))));
        assert_eq!(watching(404, true), Remedy::Resume(Some((Class::Absent, text("watch", 404)))));
        assert_eq!(watching(429, true), Remedy::Resume(Some((Class::Busy, text("watch", 429)))));
        assert_eq!(watching(422, true), Remedy::Pages);
        assert_eq!(watching(422, false), Remedy::Resume(Some((Class::Busy, text("watch", 422)))));
        // The watcher alone would ask for the same revision for ever.
        assert_eq!(watching(410, false), Remedy::Relist(None));
        let status = |code| Box::new(Status { code, ..Status::default() });
        assert_eq!(remedy(&watcher::Error::WatchError(status(410)), true), Remedy::Relist(None));
        let failed = remedy(&watcher::Error::WatchError(status(500)), true);
        assert!(matches!(failed, Remedy::Relist(Some((Class::Busy, _)))), "{failed:?}");
    }

    #[test]
    fn one_finding_for_each_denied_kind_and_one_for_all_that_is_away() {
        let troubles = BTreeMap::from([
            (ObjectKind::EndpointSlice, trouble(Class::Denied("list"), 10)),
            (ObjectKind::Node, trouble(Class::Unreachable, 30)),
            (ObjectKind::Pod, trouble(Class::Unreachable, 20)),
        ]);
        let findings = findings("https://api", &troubles);
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:#?}");
        let rule = r#"{apiGroups: ["discovery.k8s.io"], resources: [endpointslices], verbs: [list, watch]}"#;
        assert!(texts[0].contains(rule), "{}", texts[0]);
        assert!(texts[1].contains("since 1970-01-01T00:00:20Z: text 20"), "the first to fail: {}", texts[1]);
    }
}
