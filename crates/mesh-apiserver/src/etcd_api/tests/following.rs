//! Our client against our server and against a real etcd: both must lead a follower to the same updates.

use super::{Etcd, Server, connect, soon};
use crate::etcd_api::Grants;
use bytes::Bytes;
use kvstore::{
    Client, KeyRange, ListWatch, Resume, Update,
    client::{Change, Limits},
    proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, kv_client::KvClient},
};
use tonic::transport::Channel;

#[tokio::test]
async fn follows_our_server() {
    let server = Server::start(Grants::admin()).await;
    follow(server.channel().await).await;
}

#[tokio::test]
async fn follows_a_real_etcd() {
    let etcd = Etcd::start().await;
    follow(connect(&etcd.address).await).await;
}

async fn follow(channel: Channel) {
    let mut writer = Writer { kv: KvClient::new(channel.clone()) };
    for n in 0..25 {
        writer.put(&format!("k/{n:02}"), "v").await;
    }
    writer.put("other", "v").await;
    let client = Client::with_limits(channel.clone(), Limits { page: 10, ..Limits::default() });
    let mut list = client.list_watch(KeyRange::prefix("k/"), None);

    // A list of three pages at one revision.
    let Update::Reset { entries, revision } = next(&mut list).await else { panic!("not a list") };
    let keys: Vec<Bytes> = entries.iter().map(|entry| entry.key.clone()).collect();
    let expected: Vec<String> = (0..25).map(|n| format!("k/{n:02}")).collect();
    assert_eq!(keys, expected);

    // Ordered changes from there on.
    writer.put("other", "w").await;
    let put_at = writer.put("k/03", "changed").await;
    let changes = changes(&mut list, 1).await;
    assert!(
        matches!(&changes.0[..], [Change::Put(entry)] if entry.value == "changed" && entry.mod_revision == put_at && entry.version == 2),
        "{changes:?}"
    );
    let deleted_at = writer.delete("k/04").await;
    let (changes, known) = self::changes(&mut list, 1).await;
    assert_eq!(changes, [Change::Delete { key: "k/04".into(), revision: deleted_at }]);
    assert!(known >= deleted_at && put_at > revision, "known up to {known}");
    drop(list);

    // A new connection resumes: only what was missed comes.
    let missed_at = writer.put("k/05", "missed").await;
    let cluster_id = client.cluster_id().expect("seen");
    let again = Client::new(channel.clone());
    let mut list = again.list_watch(KeyRange::prefix("k/"), Some(Resume { cluster_id, revision: known }));
    assert_eq!(next(&mut list).await, Update::Resumed { revision: known });
    let (changes, known) = self::changes(&mut list, 1).await;
    assert!(matches!(&changes[..], [Change::Put(entry)] if entry.mod_revision == missed_at), "{changes:?}");
    drop(list);

    // A store of another id, or history that is gone, leads to a new list.
    let stranger = Some(Resume { cluster_id: cluster_id ^ 1, revision: known });
    let mut list = Client::new(channel.clone()).list_watch(KeyRange::prefix("k/"), stranger);
    let update = next(&mut list).await;
    assert!(matches!(&update, Update::Reset { entries, .. } if entries.len() == 24), "{update:?}");
    writer.put("k/06", "later").await;
    let latest = writer.put("k/06", "and later").await;
    writer.compact(latest).await;
    let mut list =
        Client::new(channel).list_watch(KeyRange::prefix("k/"), Some(Resume { cluster_id, revision: known }));
    let mut update = next(&mut list).await;
    if matches!(update, Update::Resumed { .. }) {
        update = next(&mut list).await;
    }
    assert!(
        matches!(&update, Update::Reset { entries, revision } if entries.len() == 24 && *revision >= latest),
        "{update:?}"
    );
}

#[tokio::test]
async fn another_store_behind_the_same_client_is_noticed() {
    let (one, two) = (Server::start(Grants::admin()).await, Server::start(Grants::admin()).await);
    let addresses = [one.address, two.address].map(|address| {
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address")
    });
    let client = Client::new(Channel::balance_list(addresses.into_iter()));
    let mut ids = Vec::new();
    // The channel spreads calls over both; sooner or later the other one answers.
    let error = loop {
        match soon("an answer", client.get("k")).await {
            Ok(_) => ids.push(client.cluster_id()),
            Err(error) => break error,
        }
        assert!(ids.len() < 1000, "never reached the second store");
    };
    assert!(matches!(error, kvstore::client::Error::ClusterIdChanged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_list_beyond_the_bound_is_refused() {
    let server = Server::start(Grants::admin()).await;
    for n in 0..30 {
        server.store.put(format!("k/{n}"), "v").expect("put");
    }
    let limits = Limits { page: 10, entries: 20, ..Limits::default() };
    let client = Client::with_limits(server.channel().await, limits);
    let error = client.list_watch(KeyRange::prefix("k/"), None).next().await.expect_err("too many");
    assert!(matches!(error, kvstore::client::Error::TooLarge { limit: 20, .. }), "{error:?}");
}

async fn next(list: &mut ListWatch) -> Update {
    soon("an update", list.next()).await.expect("no error")
}

/// At least `count` changes, and the revision after them.
async fn changes(list: &mut ListWatch, count: usize) -> (Vec<Change>, u64) {
    let (mut all, mut known) = (Vec::new(), 0);
    while all.len() < count {
        match next(list).await {
            Update::Changes { changes, revision } => {
                all.extend(changes);
                known = revision;
            }
            other => panic!("not changes: {other:?}"),
        }
    }
    (all, known)
}

struct Writer {
    kv: KvClient<Channel>,
}

impl Writer {
    async fn put(&mut self, key: &str, value: &str) -> u64 {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let response = self.kv.put(PutRequest { key, value, ..PutRequest::default() }).await.expect("put");
        revision(response.into_inner().header)
    }

    async fn delete(&mut self, key: &str) -> u64 {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        revision(self.kv.delete_range(request).await.expect("delete").into_inner().header)
    }

    async fn compact(&mut self, revision: u64) {
        let revision = i64::try_from(revision).expect("a small number");
        self.kv.compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    }
}

fn revision(header: Option<kvstore::proto::etcdserverpb::ResponseHeader>) -> u64 {
    u64::try_from(header.expect("a header").revision).expect("not negative")
}
