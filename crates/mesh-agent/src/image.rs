//! What the kernel's maps should hold, or do hold: plain values that can be printed and compared.

use std::collections::{BTreeMap, BTreeSet};

use ebpf_types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey};

/// The content of the maps, without the numbers (backend ids, slot offsets) that only the programmer cares for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Where a connection to each frontend may go. Sorted and without repeats; empty: it is refused at once.
    pub frontends: BTreeMap<FrontendKey, Vec<Backend>>,
    /// Who is behind which addresses.
    pub ipcache: BTreeMap<IpcacheKey, IpcacheEntry>,
}

impl Image {
    /// Keeps what `restored` holds of clusters that are not heard from yet, so that an agent that has just
    /// started takes nothing away that it cannot know to be gone.
    ///
    /// `heard` are the ids of clusters, the own one included, whose first lists are complete: of those, this
    /// image is the whole truth. Of all others, restored backends and addresses stay beside what is already known.
    pub fn keep_unheard(&mut self, restored: &Self, heard: &BTreeSet<u16>) {
        for (key, backends) in &restored.frontends {
            let mut unheard = backends.iter().filter(|b| !heard.contains(&b.cluster_id)).peekable();
            if unheard.peek().is_none() {
                continue;
            }
            // A frontend that the own hub no longer knows is gone, whoever served it.
            if let Some(kept) = self.frontends.get_mut(key) {
                kept.extend(unheard);
                kept.sort_unstable();
                kept.dedup();
            }
        }
        for (key, entry) in restored.ipcache.iter().filter(|(_, e)| !heard.contains(&e.cluster_id)) {
            self.ipcache.entry(*key).or_insert(*entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_types::Protocol;

    fn frontend(text: &str) -> FrontendKey {
        FrontendKey::new(text.parse().expect("an address"), Protocol::Tcp)
    }

    fn backend(text: &str, cluster: u16) -> Backend {
        Backend::new(text.parse().expect("an address"), Protocol::Tcp, cluster)
    }

    #[test]
    fn backends_of_unheard_clusters_stay_and_those_of_heard_ones_do_not() {
        let key = frontend("10.96.0.1:80");
        let (old_own, old_peer) = (backend("10.1.0.1:8080", 1), backend("10.2.0.1:8080", 2));
        let restored = Image { frontends: [(key, vec![old_own, old_peer])].into(), ..Image::default() };
        let fresh =
            || Image { frontends: [(key, vec![backend("10.1.0.9:8080", 1)])].into(), ..Image::default() };

        let mut image = fresh();
        image.keep_unheard(&restored, &[1].into());
        assert_eq!(image.frontends[&key], [backend("10.1.0.9:8080", 1), old_peer]);

        let mut image = fresh();
        image.keep_unheard(&restored, &[1, 2].into());
        assert_eq!(image, fresh());
    }

    #[test]
    fn a_frontend_that_is_gone_is_not_kept_alive() {
        let restored = Image {
            frontends: [(frontend("10.96.0.1:80"), vec![backend("10.2.0.1:80", 2)])].into(),
            ..Image::default()
        };
        let mut image = Image::default();
        image.keep_unheard(&restored, &[1].into());
        assert_eq!(image, Image::default());
    }
}
