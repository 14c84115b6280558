//! Events as the wire has them.

use super::super::{range::key_value, wire};
use bytes::{BufMut, BytesMut};
use kvstore::{
    Event, EventKind,
    proto::{
        Message,
        mvccpb::{self, event::EventType},
    },
};

/// Appends an event as one of the `events` of a `WatchResponse`.
pub(in super::super) fn put_event(event: &Event, previous: bool, out: &mut BytesMut) {
    let event = wire_event(event, previous);
    out.put_u8(EVENTS_FIELD);
    event.encode_length_delimited(out).expect("the buffer grows");
}

fn wire_event(event: &Event, previous: bool) -> mvccpb::Event {
    let kv = match event.kind {
        EventKind::Put => key_value(&event.entry, false),
        // As etcd: a deletion has its key and its revision, nothing else.
        EventKind::Delete => mvccpb::KeyValue {
            key: event.entry.key.clone(),
            mod_revision: wire(event.entry.mod_revision),
            ..mvccpb::KeyValue::default()
        },
    };
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    let prev_kv = event.previous.as_ref().filter(|_| previous).map(|entry| key_value(entry, false));
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

/// Field 11, length-delimited.
const EVENTS_FIELD: u8 = 11 << 3 | 2;

#[cfg(test)]
mod tests {
    use super::*;
    use kvstore::{KeyRange, Store, StoreOptions, proto::etcdserverpb::WatchResponse};

    #[test]
    fn events_one_after_another_are_those_of_a_response() {
        let store = Store::in_memory(StoreOptions::default());
        store.put("a", "1").expect("put");
        store.put("a", "2").expect("put");
        store.delete(&KeyRange::key("a")).expect("delete");
        let events = store.watch(KeyRange::all(), 2).take().expect("kept").expect("events").events;
        for previous in [false, true] {
            let mut bytes = BytesMut::new();
            events.iter().for_each(|event| put_event(event, previous, &mut bytes));
            let response = WatchResponse::decode(bytes.freeze()).expect("a response");
            let expected: Vec<_> = events.iter().map(|event| wire_event(event, previous)).collect();
            assert_eq!(response, WatchResponse { events: expected, ..WatchResponse::default() });
        }
    }
}
