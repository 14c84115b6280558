//! The kinds together: the first lists become one reset, later changes are passed on. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::identity::Numbering;
use crate::index::Change;
use crate::object::{Object, ObjectKind, ObjectRef};
use crate::source::SourceEvent;

/// Gathers what the followers of all kinds say.
#[derive(Debug)]
pub struct Assembly {
    state: State,
    /// Kinds that are followed.
    expected: BTreeSet<ObjectKind>,
    /// Which kinds there are besides those of Kubernetes itself is not known yet.
    undiscovered: bool,
    /// Cilium gives numbers.
    cilium: bool,
    /// Kinds that have not been listed yet.
    unlisted: BTreeSet<ObjectKind>,
    /// Those of them that the API server does not give.
    denied: BTreeSet<ObjectKind>,
    /// Whether a kind was listed for the first time since the last update; it may have no objects.
    arrived: bool,
}

#[derive(Debug)]
enum State {
    /// The reset has not been made yet.
    Reading(BTreeMap<Arc<ObjectRef>, Object>),
    /// Changes since the last update, in order.
    Following(Vec<Change>),
}

impl Default for Assembly {
    fn default() -> Self {
        let expected = BTreeSet::from(ObjectKind::ALL);
        Self {
            state: State::Reading(BTreeMap::new()),
            unlisted: expected.clone(),
            expected,
            undiscovered: false,
            cilium: false,
            denied: BTreeSet::new(),
            arrived: false,
        }
    }
}

impl Assembly {
    /// One that waits to be told which kinds there are.
    pub fn undiscovered() -> Self {
        Self { undiscovered: true, ..Self::default() }
    }

    /// These kinds are followed besides, and it is known which there are.
    pub fn expect(&mut self, kinds: impl IntoIterator<Item = ObjectKind>) {
        self.undiscovered = false;
        for kind in kinds {
            if self.expected.insert(kind) {
                self.unlisted.insert(kind);
            }
        }
    }

    /// This kind is not followed.
    pub fn expect_no(&mut self, kind: ObjectKind) {
        self.expected.remove(&kind);
        self.unlisted.remove(&kind);
        self.denied.remove(&kind);
    }

    /// Who says which number labels have.
    pub fn numbering(&self) -> Numbering {
        let has = |kind: ObjectKind| self.expected.contains(&kind) && !self.unlisted.contains(&kind);
        match (self.cilium, has(ObjectKind::MeshIdentity)) {
            (true, _) => Numbering::Cilium,
            (false, true) => Numbering::Objects,
            (false, false) => Numbering::Store,
        }
    }

    /// Whether Cilium's kinds have all been listed, or are denied, for the first time. From then on they count.
    fn cilium_arrives(&mut self) -> bool {
        let told = |kind: &ObjectKind| !self.unlisted.contains(kind) || self.denied.contains(kind);
        let known = |kind: &ObjectKind| self.expected.contains(kind) && told(kind);
        // Slices count where there are such objects at all.
        let slices = told(&ObjectKind::CiliumEndpointSlice);
        let arrives = !self.cilium && slices && ObjectKind::CILIUM.iter().all(known);
        self.cilium |= arrives;
        arrives
    }

    /// Takes in changes of objects of a kind; `listed` with the first complete list of the kind at the latest.
    pub fn take(&mut self, kind: ObjectKind, changes: Vec<Change>, listed: bool) {
        if listed {
            self.arrived |= self.unlisted.remove(&kind);
            self.denied.remove(&kind);
        }
        match &mut self.state {
            State::Following(pending) => pending.extend(changes),
            State::Reading(objects) => {
                for change in changes {
                    match change {
                        Change::Apply(object) => drop(objects.insert(object.shared_reference(), object)),
                        Change::Delete(reference) => drop(objects.remove(&reference)),
                    }
                }
            }
        }
    }

    /// The API server does not give the objects of a kind, or gives them again.
    pub fn deny(&mut self, kind: ObjectKind, denied: bool) {
        match denied && self.unlisted.contains(&kind) {
            true => self.denied.insert(kind),
            false => self.denied.remove(&kind),
        };
    }

    /// What there is to tell, if anything. The reset comes when each kind has been listed or is denied, and one at least
    /// has been listed.
    pub fn event(&mut self) -> Option<SourceEvent> {
        let arrived = std::mem::take(&mut self.arrived) | self.cilium_arrives();
        match &mut self.state {
            State::Reading(objects) => {
                let listed = self.expected.len() > self.unlisted.len();
                if self.undiscovered || !listed || self.unlisted != self.denied {
                    return None;
                }
                let objects = std::mem::take(objects).into_values().collect();
                self.state = State::Following(Vec::new());
                Some(SourceEvent::Reset(objects))
            }
            State::Following(pending) => {
                (arrived || !pending.is_empty()).then(|| SourceEvent::Changes(std::mem::take(pending)))
            }
        }
    }

    /// What to say when only findings or the status are news.
    pub fn nothing(&self) -> SourceEvent {
        match &self.state {
            State::Reading(_) => SourceEvent::Unread,
            State::Following(_) => SourceEvent::Changes(Vec::new()),
        }
    }

    /// Kinds that have never been listed, and without which something is not known. Our own identities are not among them:
    /// without them the store remembers.
    pub fn missing(&self) -> BTreeSet<ObjectKind> {
        let counts = |kind: &&ObjectKind| match kind {
            ObjectKind::MeshIdentity => false,
            ObjectKind::CiliumEndpointSlice => self.cilium,
            kind => self.cilium || !ObjectKind::CILIUM.contains(kind),
        };
        self.unlisted.iter().filter(counts).copied().collect()
    }

    /// Whether a kind has been listed.
    pub fn is_listed(&self, kind: ObjectKind) -> bool {
        self.expected.contains(&kind) && !self.unlisted.contains(&kind)
    }

    /// Whether the reset has been made.
    pub fn is_read(&self) -> bool {
        matches!(self.state, State::Following(_))
    }
}

#[cfg(test)]
mod tests;
