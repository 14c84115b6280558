//! Random objects, lists, watches and interruptions: what comes out is at any time what has been read completely.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::object::Body;
use crate::source::kubernetes::kept::Unusable;
use crate::source::kubernetes::known::{Event, Known, Step};

type Objects = BTreeMap<ObjectRef, Object>;

/// What happens next to one kind.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The object of this number gets this version at the server.
    Write(u8, u8),
    /// It is deleted at the server.
    Delete(u8),
    /// The follower makes a step: it begins or goes on with a list, or reads the next event.
    Read,
    /// The same, as far as it goes.
    ReadAll,
    /// The watch breaks and goes on where it was; a list that is under way begins again.
    Break,
    /// The history is gone: the follower has to list again.
    Gone,
    /// The kind is denied until the next step.
    Deny,
}

/// Holds the server's side and the follower's side of one kind.
struct Kind {
    kind: ObjectKind,
    server: Objects,
    /// Changes that the watch has not brought yet.
    ahead: VecDeque<Event>,
    /// What a list under way has still to bring.
    listing: Option<VecDeque<Object>>,
    snapshot: Objects,
    known: Known,
    /// What has been read completely.
    seen: Option<Objects>,
}

fn object(kind: ObjectKind, number: u8, version: u8) -> Object {
    let metadata = ObjectMeta {
        name: Some(format!("o{number}")),
        namespace: Some("shop".to_owned()),
        labels: Some(BTreeMap::from([("version".to_owned(), version.to_string())])),
        ..ObjectMeta::default()
    };
    let body = match kind {
        ObjectKind::Namespace => Body::Namespace(Arc::new(Namespace { metadata, ..Default::default() })),
        ObjectKind::Node => Body::Node(Arc::new(Node { metadata, ..Default::default() })),
        ObjectKind::Service => Body::Service(Arc::new(Service { metadata, ..Default::default() })),
        ObjectKind::EndpointSlice => {
            Body::EndpointSlice(Arc::new(EndpointSlice { metadata, ..Default::default() }))
        }
        ObjectKind::Pod => {
            let pod = core::Pod { metadata, ..Default::default() };
            Body::Pod(Arc::new(pod.into()))
        }
        custom => panic!("{custom:?} is not among the kinds of Kubernetes itself"),
    };
    Object::try_from(body).expect("a sound name")
}

impl Kind {
    fn new(kind: ObjectKind) -> Self {
        let (server, snapshot) = Default::default();
        let (ahead, listing, seen) = (VecDeque::new(), None, None);
        Self { kind, server, ahead, listing, snapshot, known: Known::new(kind), seen }
    }

    fn act(&mut self, act: Act, assembly: &mut Assembly) {
        match act {
            Act::Write(number, version) => {
                let object = object(self.kind, number, version);
                self.server.insert(object.reference().clone(), object.clone());
                self.ahead.push_back(Event::Applied(Ok(object)));
            }
            Act::Delete(number) => {
                let reference = object(self.kind, number, 0).reference().clone();
                if self.server.remove(&reference).is_some() {
                    self.ahead.push_back(Event::Deleted(Some("shop".to_owned()), format!("o{number}")));
                }
            }
            Act::Read => self.read(assembly),
            Act::ReadAll => {
                while self.listing.is_some() || self.seen.is_none() || !self.ahead.is_empty() {
                    self.read(assembly);
                }
            }
            Act::Break => {
                if self.listing.take().is_some() {
                    self.tell(Event::Interrupted, assembly);
                    self.begin(assembly);
                }
            }
            Act::Gone => {
                self.tell(Event::Interrupted, assembly);
                self.begin(assembly);
            }
            Act::Deny => assembly.deny(self.kind, true),
        }
    }

    fn begin(&mut self, assembly: &mut Assembly) {
        self.snapshot = self.server.clone();
        self.listing = Some(self.server.values().cloned().collect());
        self.ahead.clear();
        self.tell(Event::ListBegins, assembly);
    }

    fn read(&mut self, assembly: &mut Assembly) {
        match &mut self.listing {
            Some(rest) => match rest.pop_front() {
                Some(object) => self.tell(Event::Listed(Ok(object)), assembly),
                None => {
                    self.listing = None;
                    self.seen = Some(self.snapshot.clone());
                    self.tell(Event::ListEnds, assembly);
                }
            },
            None if self.seen.is_none() => self.begin(assembly),
            None => {
                let Some(event) = self.ahead.pop_front() else { return };
                let seen = self.seen.as_mut().expect("listed");
                match &event {
                    Event::Applied(Ok(object)) => {
                        drop(seen.insert(object.reference().clone(), object.clone()));
                    }
                    Event::Deleted(_, name) => seen.retain(|reference, _| reference.name() != name),
                    other => panic!("the server says no {other:?}"),
                }
                self.tell(event, assembly);
            }
        }
    }

    fn tell(&mut self, event: Event, assembly: &mut Assembly) {
        match self.known.take(event) {
            Step::Nothing => {}
            Step::Changes { changes, listed } => assembly.take(self.kind, changes, listed),
            Step::Void => panic!("no list ends here that was interrupted"),
        }
    }
}

/// Makes the update part of what a hub knows.
fn apply(hub: &mut Option<Objects>, event: SourceEvent) {
    match (event, hub) {
        (SourceEvent::Reset(objects), hub @ None) => {
            *hub = Some(objects.into_iter().map(|object| (object.reference().clone(), object)).collect());
        }
        (SourceEvent::Changes(changes), Some(hub)) => {
            for change in changes {
                match change {
                    Change::Apply(object) => drop(hub.insert(object.reference().clone(), object)),
                    Change::Delete(reference) => drop(hub.remove(&reference).expect("was known")),
                }
            }
        }
        (event, hub) => panic!("{event:?} when the hub knows {hub:?}"),
    }
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act, bool)>> {
    let act = prop_oneof![
        4 => (0..6u8, 0..4u8).prop_map(|(number, version)| Act::Write(number, version)),
        2 => (0..6u8).prop_map(Act::Delete),
        6 => Just(Act::Read),
        2 => Just(Act::ReadAll),
        1 => Just(Act::Break),
        1 => Just(Act::Gone),
        1 => Just(Act::Deny),
    ];
    prop::collection::vec((0..ObjectKind::ALL.len(), act, any::<bool>()), 0..200)
}

proptest! {
    #[test]
    fn an_update_is_what_was_read_completely(acts in acts()) {
        let mut kinds = ObjectKind::ALL.map(Kind::new);
        let mut assembly = Assembly::default();
        let mut hub: Option<Objects> = None;
        let mut denied = BTreeSet::new();
        let last = (0..kinds.len()).map(|at| (at, Act::ReadAll, true));
        for (at, act, asked) in acts.into_iter().chain(last) {
            match act {
                Act::Deny if kinds[at].seen.is_none() => drop(denied.insert(kinds[at].kind)),
                _ => {}
            }
            kinds[at].act(act, &mut assembly);
            if let Some(event) = asked.then(|| assembly.event()).flatten() {
                if hub.is_none() {
                    let unread = kinds.iter().filter(|kind| kind.seen.is_none());
                    let unread: BTreeSet<ObjectKind> = unread.map(|kind| kind.kind).collect();
                    prop_assert!(unread.is_subset(&denied), "{unread:?} have been neither read nor denied");
                    prop_assert_eq!(&unread, &assembly.missing());
                }
                apply(&mut hub, event);
            }
            if let (Some(hub), true) = (&hub, asked) {
                let seen: Objects = kinds.iter().flat_map(|kind| kind.seen.clone().unwrap_or_default()).collect();
                prop_assert_eq!(hub, &seen);
            }
        }
        let server: Objects = kinds.iter().flat_map(|kind| kind.server.clone()).collect();
        prop_assert_eq!(hub.as_ref(), Some(&server));
        prop_assert!(assembly.missing().is_empty());
    }
}

#[test]
fn a_denied_kind_holds_up_no_other_and_is_said_to_be_missing() {
    let mut assembly = Assembly::default();
    for kind in ObjectKind::ALL {
        assembly.deny(kind, true);
    }
    assert_eq!(assembly.event(), None, "nothing at all has been read");
    let missing = [ObjectKind::Pod, ObjectKind::Node];
    for kind in ObjectKind::ALL.into_iter().filter(|kind| !missing.contains(kind)) {
        assembly.take(kind, vec![Change::Apply(object(kind, 1, 1))], true);
    }
    assert!(matches!(assembly.event(), Some(SourceEvent::Reset(objects)) if objects.len() == 3));
    assert_eq!(assembly.missing(), BTreeSet::from(missing));
    assembly.take(ObjectKind::Node, Vec::new(), true);
    assert_eq!(assembly.event(), Some(SourceEvent::Changes(Vec::new())), "it is there, and empty");
    assert_eq!(assembly.event(), None);
    assembly.take(ObjectKind::Pod, vec![Change::Apply(object(ObjectKind::Pod, 1, 1))], true);
    assert!(matches!(assembly.event(), Some(SourceEvent::Changes(changes)) if changes.len() == 1));
    assert!(assembly.missing().is_empty());
    assembly.deny(ObjectKind::Pod, true);
    assert!(assembly.missing().is_empty(), "what was known stays known");
}

#[test]
fn an_unusable_object_keeps_what_was_known_of_it() {
    let mut known = Known::new(ObjectKind::Service);
    let one = object(ObjectKind::Service, 1, 1);
    let unusable =
        Unusable { namespace: Some("shop".to_owned()), name: Some("o1".to_owned()), why: "odd".to_owned() };
    known.take(Event::ListBegins);
    known.take(Event::Listed(Ok(one.clone())));
    let listed = known.take(Event::ListEnds);
    assert_eq!(listed, Step::Changes { changes: vec![Change::Apply(one.clone())], listed: true });
    assert_eq!(known.take(Event::Applied(Err(unusable.clone()))), Step::Nothing);
    assert_eq!(known.findings().len(), 1);
    known.take(Event::ListBegins);
    known.take(Event::Listed(Err(unusable)));
    assert_eq!(known.take(Event::ListEnds), Step::Changes { changes: Vec::new(), listed: true });
    assert_eq!((known.len(), known.findings().len()), (1, 1));
    known.take(Event::Applied(Ok(object(ObjectKind::Service, 1, 2))));
    assert!(known.findings().is_empty());
}

#[test]
fn a_list_that_was_interrupted_is_void() {
    let mut known = Known::new(ObjectKind::Service);
    known.take(Event::ListBegins);
    known.take(Event::Listed(Ok(object(ObjectKind::Service, 1, 1))));
    known.take(Event::Interrupted);
    known.take(Event::Listed(Ok(object(ObjectKind::Service, 2, 1))));
    assert_eq!(known.take(Event::ListEnds), Step::Void);
    assert!(known.is_empty());
}
