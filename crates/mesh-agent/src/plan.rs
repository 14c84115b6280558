//! The difference between two images. Pure.

use ebpf_types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey};

use crate::image::Image;

/// What must be done to make one image of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Frontends that are new or have other backends.
    pub set_frontends: Vec<(FrontendKey, Vec<Backend>)>,
    /// Frontends that are gone.
    pub remove_frontends: Vec<FrontendKey>,
    /// Addresses that are new or have another identity or place.
    pub set_addresses: Vec<(IpcacheKey, IpcacheEntry)>,
    /// Addresses that are gone.
    pub remove_addresses: Vec<IpcacheKey>,
}

impl Plan {
    /// What turns `applied` into `desired`. O(both).
    pub fn between(applied: &Image, desired: &Image) -> Self {
        let other_backends =
            |key: &FrontendKey, backends: &Vec<Backend>| applied.frontends.get(key) != Some(backends);
        let other_entry = |key: &IpcacheKey, entry: &IpcacheEntry| applied.ipcache.get(key) != Some(entry);
        Self {
            set_frontends: desired
                .frontends
                .iter()
                .filter(|(k, b)| other_backends(k, b))
                .map(|(k, b)| (*k, b.clone()))
                .collect(),
            remove_frontends: gone(applied.frontends.keys(), |key| desired.frontends.contains_key(key)),
            set_addresses: desired
                .ipcache
                .iter()
                .filter(|(k, e)| other_entry(k, e))
                .map(|(k, e)| (*k, *e))
                .collect(),
            remove_addresses: gone(applied.ipcache.keys(), |key| desired.ipcache.contains_key(key)),
        }
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.set_frontends.len()
            + self.remove_frontends.len()
            + self.set_addresses.len()
            + self.remove_addresses.len()
    }
}

fn gone<'a, K: Copy + 'a>(applied: impl Iterator<Item = &'a K>, is_desired: impl Fn(&K) -> bool) -> Vec<K> {
    applied.filter(|key| !is_desired(key)).copied().collect()
}
