//! Endpoints of which Cilium's endpoint slices tell: which of them a change touches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dirty, PodKey};
use crate::index::Index;
use crate::object::{Body, CiliumEndpoint};

impl Dirty {
    /// Marks the endpoints of which a slice tells something else than before. O(endpoints in it), though only those that
    /// differ are computed anew: a slice changes with each of its hundred pods.
    pub(super) fn slice(&mut self, before: Option<&Body>, after: Option<&Body>) {
        let [before, after] = [before, after].map(endpoints);
        let keys = before.keys().chain(after.keys());
        self.pods.extend(keys.filter(|key| before.get(*key) != after.get(*key)).cloned());
    }

    /// Marks all endpoints of which slices tell.
    pub(super) fn sliced(&mut self, index: &Index) {
        self.pods.extend(index.sliced().map(|(space, name)| (space.to_owned(), name.to_owned())));
    }
}

fn endpoints(body: Option<&Body>) -> BTreeMap<PodKey, &Arc<CiliumEndpoint>> {
    let Some(Body::CiliumEndpointSlice(slice)) = body else { return BTreeMap::new() };
    let key = |endpoint: &CiliumEndpoint| (endpoint.namespace.to_string(), endpoint.name.to_string());
    slice.endpoints.iter().map(|endpoint| (key(endpoint), endpoint)).collect()
}

#[cfg(test)]
mod tests;
