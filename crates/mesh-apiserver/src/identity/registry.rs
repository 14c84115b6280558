//! The numbers that objects at the API server give to labels. Pure.
//!
//! An object is what hubs agree on: whoever creates `65537` first has given that number to its labels. Where two hubs
//! created two objects for the same labels, the older one counts, and of two of the same second the lower number; so all
//! hubs decide alike, and whoever was first stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use topology::{Identity, Labels};

use crate::object::MeshIdentity;

/// The objects, by number and by labels.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    objects: BTreeMap<Identity, Arc<MeshIdentity>>,
    of: HashMap<Arc<Labels>, BTreeSet<(Option<Timestamp>, Identity)>>,
}

impl Registry {
    /// Takes in that an object is as given, or is no more. Returns the labels whose number may have changed.
    pub fn set(&mut self, identity: Identity, object: Option<Arc<MeshIdentity>>) -> Vec<Arc<Labels>> {
        let mut touched = Vec::new();
        if let Some(before) = self.objects.remove(&identity) {
            if let Some(rivals) = self.of.get_mut(&before.labels) {
                rivals.remove(&(before.created, identity));
                if rivals.is_empty() {
                    self.of.remove(&before.labels);
                }
            }
            touched.push(Arc::clone(&before.labels));
        }
        if let Some(object) = object {
            if !is_void(&object.labels) {
                let rivals = self.of.entry(Arc::clone(&object.labels)).or_default();
                rivals.insert((object.created, identity));
            }
            touched.push(Arc::clone(&object.labels));
            self.objects.insert(identity, object);
        }
        touched.retain(|labels| !is_void(labels));
        touched.dedup();
        touched
    }

    /// The number that labels have by an object.
    pub fn number(&self, labels: &Labels) -> Option<Identity> {
        self.of.get(labels).and_then(|rivals| rivals.first()).map(|(_, identity)| *identity)
    }

    /// The object of a number.
    pub fn object(&self, identity: Identity) -> Option<&Arc<MeshIdentity>> {
        self.objects.get(&identity)
    }

    /// Whether an object says that a number has these labels, and is not marked as unused.
    pub fn says(&self, identity: Identity, labels: &Labels) -> bool {
        self.object(identity).is_some_and(|object| !object.unused && *object.labels == *labels)
    }

    /// All objects, by number.
    pub fn objects(&self) -> impl Iterator<Item = (Identity, &Arc<MeshIdentity>)> {
        self.objects.iter().map(|(identity, object)| (*identity, object))
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Labels of an object that says none: nobody has its number.
fn is_void(labels: &Labels) -> bool {
    labels.iter().next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(labels: &str, second: i64) -> Arc<MeshIdentity> {
        Arc::new(MeshIdentity {
            name: "".into(),
            labels: Arc::new(labels.parse().unwrap_or_default()),
            unused: false,
            uid: "".into(),
            version: "".into(),
            created: Timestamp::from_second(second).ok(),
        })
    }

    #[test]
    fn of_two_objects_for_the_same_labels_the_older_one_counts() {
        let labels: Labels = "k8s:app=a;".parse().expect("labels");
        let mut registry = Registry::default();
        registry.set(Identity(300), Some(object("k8s:app=a;", 20)));
        registry.set(Identity(299), Some(object("k8s:app=a;", 21)));
        assert_eq!(registry.number(&labels), Some(Identity(300)));
        registry.set(Identity(298), Some(object("k8s:app=a;", 20)));
        assert_eq!(registry.number(&labels), Some(Identity(298)), "of the same second the lower number");
        assert_eq!(registry.set(Identity(298), None).len(), 1);
        assert_eq!(registry.number(&labels), Some(Identity(300)));
        // One that changes its labels speaks for them no longer.
        let touched = registry.set(Identity(300), Some(object("k8s:app=b;", 20)));
        assert_eq!(touched.len(), 2);
        assert_eq!(registry.number(&labels), Some(Identity(299)));
        assert!(registry.says(Identity(299), &labels) && !registry.says(Identity(300), &labels));
    }

    #[test]
    fn an_object_without_labels_keeps_its_number_from_everyone() {
        let mut registry = Registry::default();
        assert!(registry.set(Identity(300), Some(object("", 20))).is_empty());
        assert_eq!((registry.len(), registry.number(&Labels::default())), (1, None));
    }
}
