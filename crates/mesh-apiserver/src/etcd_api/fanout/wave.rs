//! One wave: new events, encoded for each group that wants them.

use super::{super::watch::event::put_event, group::Group};
use bytes::BytesMut;
use kvstore::{Event, Watcher};
use std::sync::Arc;

/// Reads all new events, adds chunks to the groups, and returns the groups that have new ones.
///
/// `reached` is told of each revision up to which that is done.
pub(super) fn run<'a>(
    watcher: &mut Watcher,
    groups: impl Iterator<Item = &'a Arc<Group>> + Clone,
    mut reached: impl FnMut(u64),
) -> Vec<Arc<Group>> {
    let mut touched: Vec<Arc<Group>> = Vec::new();
    loop {
        let changes = match watcher.take() {
            Ok(Some(changes)) => changes,
            Ok(None) => break,
            Err(compacted) => {
                // The history was cut before it could be handed out: watches learn of it as they read it themselves.
                let last = watcher.latest();
                watcher.skip_to(last + 1);
                groups.clone().for_each(|group| group.gap(last));
                touched.extend(groups.clone().cloned());
                tracing::warn!(error = %compacted, "events were compacted before watchers were told");
                reached(last);
                continue;
            }
        };
        for group in groups.clone() {
            let mut encoding = Encoding::default();
            let kind = group.kind();
            let in_range = changes.events.iter().filter(|event| kind.range.contains(&event.entry.key));
            for event in in_range.filter_map(|event| kind.told(event)) {
                encoding.add(&event, kind.filters.previous);
            }
            if encoding.events > 0 {
                group.push(encoding.first, changes.revision, encoding.events, encoding.body.freeze());
                touched.push(group.clone());
            }
        }
        reached(changes.revision);
    }
    touched.sort_unstable_by_key(Arc::as_ptr);
    touched.dedup_by(|a, b| Arc::ptr_eq(a, b));
    touched
}

#[derive(Default)]
struct Encoding {
    first: u64,
    events: usize,
    body: BytesMut,
}

impl Encoding {
    fn add(&mut self, event: &Event, previous: bool) {
        if self.events == 0 {
            self.first = event.entry.mod_revision;
        }
        self.events += 1;
        put_event(event, previous, &mut self.body);
    }
}
