//! What is known of the objects of one kind, and what an event of its watch changes. Pure.
//!
//! A relist is gathered aside and compared when it is complete, so that it is one change: the objects that differ, and
//! those that are no more. A list that ends before it is complete changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Unusable;
use crate::finding::{Finding, Reason};
use crate::index::Change;
use crate::object::{Object, ObjectKind, ObjectRef};

/// The objects of a kind.
#[derive(Debug)]
pub struct Known {
    kind: ObjectKind,
    objects: BTreeMap<Arc<ObjectRef>, Object>,
    unusable: BTreeMap<String, String>,
    gathering: Option<Gathering>,
}

/// Holds a list that is not complete yet.
#[derive(Debug, Default)]
struct Gathering {
    objects: BTreeMap<Arc<ObjectRef>, Object>,
    unusable: BTreeMap<String, String>,
}

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Event {
    /// A list begins; one that had begun is void.
    ListBegins,
    /// An object of the list.
    Listed(Result<Object, Unusable>),
    /// The list is complete.
    ListEnds,
    /// An object is new or differs.
    Applied(Result<Object, Unusable>),
    /// An object is no more. Namespace and name.
    Deleted(Option<String>, String),
    /// Something went wrong: what of a list has come may lack an object.
    Interrupted,
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing to tell.
    Nothing,
    /// These changes, together; the list was complete if `listed`.
    Changes {
        /// At most one for each object.
        changes: Vec<Change>,
        /// Whether they are the difference to a complete list.
        listed: bool,
    },
    /// The list that ends now was interrupted: it is to be made again.
    Void,
}

impl Known {
    /// Nothing is known yet.
    pub fn new(kind: ObjectKind) -> Self {
        Self { kind, objects: BTreeMap::new(), unusable: BTreeMap::new(), gathering: None }
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether a list is under way.
    pub fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// Takes in an event. O(log objects); the end of a list O(objects).
    pub fn take(&mut self, event: Event) -> Step {
        match event {
            Event::ListBegins => {
                self.gathering = Some(Gathering::default());
                Step::Nothing
            }
            Event::Listed(found) => {
                self.gather(found);
                Step::Nothing
            }
            Event::ListEnds => match self.gathering.take() {
                Some(gathering) => Step::Changes { changes: self.replace(gathering), listed: true },
                None => Step::Void,
            },
            Event::Applied(Ok(object)) => {
                self.unusable.remove(&object.reference().to_string());
                self.change(self.apply(object))
            }
            Event::Applied(Err(unusable)) => {
                note(&mut self.unusable, self.kind, unusable);
                Step::Nothing
            }
            Event::Deleted(namespace, name) => {
                let Ok(reference) = ObjectRef::new(self.kind, namespace.as_deref(), &name) else {
                    return Step::Nothing;
                };
                self.unusable.remove(&reference.to_string());
                let known = self.objects.contains_key(&reference);
                self.change(known.then_some(Change::Delete(reference)))
            }
            Event::Interrupted => {
                self.gathering = None;
                Step::Nothing
            }
        }
    }

    /// What is odd about single objects; at most 50.
    pub fn findings(&self) -> Vec<Finding> {
        let shown = self.unusable.iter().take(MAX_FINDINGS);
        let finding = |(object, why): (&String, &String)| {
            Finding::error(Reason::DocumentInvalid, object)
                .found(format_args!("the API server's object cannot be used: {why}"))
                .so("what was known of it before stays")
        };
        shown.map(finding).collect()
    }

    fn gather(&mut self, found: Result<Object, Unusable>) {
        let Some(gathering) = &mut self.gathering else { return };
        match found {
            Ok(object) => {
                let reference = object.shared_reference();
                // An equal object shares its memory with the one that is known.
                let known = self.objects.get(&*reference).filter(|known| **known == object).cloned();
                gathering.objects.insert(reference, known.unwrap_or(object));
            }
            Err(unusable) => {
                let reference = unusable.name.as_deref();
                let reference = reference
                    .and_then(|name| ObjectRef::new(self.kind, unusable.namespace.as_deref(), name).ok());
                if let Some((reference, known)) =
                    reference.and_then(|found| self.objects.get_key_value(&found))
                {
                    gathering.objects.insert(Arc::clone(reference), known.clone());
                }
                note(&mut gathering.unusable, self.kind, unusable);
            }
        }
    }

    fn replace(&mut self, gathering: Gathering) -> Vec<Change> {
        let Gathering { objects, unusable } = gathering;
        self.unusable = unusable;
        let before = std::mem::replace(&mut self.objects, objects);
        let gone = before.keys().filter(|reference| !self.objects.contains_key(*reference));
        let gone = gone.map(|reference| Change::Delete(ObjectRef::clone(reference)));
        let differs =
            self.objects.iter().filter(|(reference, object)| before.get(*reference) != Some(object));
        gone.chain(differs.map(|(_, object)| Change::Apply(object.clone()))).collect()
    }

    fn apply(&self, object: Object) -> Option<Change> {
        (self.objects.get(object.reference()) != Some(&object)).then_some(Change::Apply(object))
    }

    fn change(&mut self, change: Option<Change>) -> Step {
        let Some(change) = change else { return Step::Nothing };
        match &change {
            Change::Apply(object) => drop(self.objects.insert(object.shared_reference(), object.clone())),
            Change::Delete(reference) => drop(self.objects.remove(reference)),
        }
        Step::Changes { changes: vec![change], listed: false }
    }
}

fn note(unusable: &mut BTreeMap<String, String>, kind: ObjectKind, found: Unusable) {
    if unusable.len() >= MAX_UNUSABLE {
        return;
    }
    let name = found.name.unwrap_or_default();
    let object = match found.namespace {
        Some(namespace) => format!("{} {namespace}/{name}", kind.as_str()),
        None => format!("{} {name}", kind.as_str()),
    };
    unusable.insert(object, found.why);
}

/// Findings of one kind.
const MAX_FINDINGS: usize = 50;
/// Objects of one kind that are remembered as unusable.
const MAX_UNUSABLE: usize = 1000;
