//! A writer is killed at any moment; nothing that it acknowledged may be lost, and revisions go on.
//!
//! Twenty rounds, or as many as `KVSTORE_CRASH_ROUNDS` says.

use kvstore::{KeyRange, Store, StoreOptions};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

const DIRECTORY: &str = "KVSTORE_CRASH_DIRECTORY";
const ROUNDS: &str = "KVSTORE_CRASH_ROUNDS";
const KEYS: u64 = 20;

/// The child: writes until it is killed and prints each revision once it is acknowledged.
#[test]
#[ignore = "runs as the child of killed_writer_loses_nothing"]
fn writer() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(Path::new(&directory), StoreOptions::default()).expect("open");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    println!("\nopen {:x} {}", store.cluster_id(), store.revision());
    for n in store.revision() + 1.. {
        let revision = store.put(format!("key {}", n % KEYS), format!("value of {n}")).expect("put");
        assert_eq!(revision, n);
        if n % 7 == 0 {
            runtime.block_on(store.synced(revision)).expect("sync");
        }
        if n % 500 == 0 {
            store.compact(n - 200).expect("compact");
        }
        println!("ack {revision}");
    }
}

#[test]
fn killed_writer_loses_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut known: Option<String> = None;
    let mut acknowledged = 0;
    let rounds = std::env::var(ROUNDS).ok().map_or(20, |rounds| rounds.parse().expect("a number of rounds"));
    for round in 0..rounds {
        let lines = moment(round);
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the writer");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut seen = 0;
        for line in output.lines() {
            let line = line.expect("read the writer's output");
            if let Some(opened) = line.strip_prefix("open ") {
                let (cluster_id, revision) = opened.split_once(' ').expect("two words");
                let cluster_id = cluster_id.to_owned();
                let first = known.get_or_insert_with(|| cluster_id.clone());
                assert_eq!(*first, cluster_id, "cluster id after kill -9");
                let revision: u64 = revision.parse().expect("a revision");
                assert!(revision >= acknowledged, "opened at {revision}, {acknowledged} was acknowledged");
            }
            if let Some(revision) = line.strip_prefix("ack ") {
                acknowledged = revision.parse().expect("a revision");
                seen += 1;
                if seen == lines {
                    // SIGKILL; the writer is somewhere in its next writes.
                    child.kill().expect("kill the writer");
                }
            }
        }
        child.wait().expect("reap the writer");
        assert!(seen >= lines, "the writer ended by itself after {seen} acknowledgements");
        check(directory.path(), acknowledged);
        eprintln!(
            "round {} of {rounds}: killed after {seen} acknowledgements, revision {acknowledged}",
            round + 1
        );
    }
}

/// After how many acknowledgements the writer of a round is killed: at once, in the midst of compactions, anywhere.
fn moment(round: u64) -> usize {
    let mixed = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let span = [2, 50, 700, 1500][usize::try_from(round % 4).expect("below four")];
    usize::try_from(mixed).expect("24 bits") % span + 1
}

fn check(directory: &Path, acknowledged: u64) {
    let store = Store::open(directory, StoreOptions::default()).expect("open after the kill");
    let snapshot = store.snapshot();
    let revision = snapshot.revision();
    assert!(revision >= acknowledged, "revision {revision} after {acknowledged} was acknowledged");
    let mut expected = BTreeMap::new();
    for n in 2..=revision {
        expected.insert(format!("key {}", n % KEYS), format!("value of {n}"));
    }
    let found: BTreeMap<String, String> = snapshot
        .range(&KeyRange::all())
        .map(|entry| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            (text(&entry.key), text(&entry.value))
        })
        .collect();
    assert_eq!(found, expected, "state at revision {revision}");
    let first = snapshot.compacted().max(2);
    let mut watcher = store.watch(KeyRange::all(), first);
    let mut next = first;
    while let Some(changes) = watcher.take().expect("the history since the compaction is here") {
        for event in changes.events {
            assert_eq!(event.entry.mod_revision, next, "watch from revision {first}");
            assert_eq!(event.entry.value, format!("value of {next}"));
            next += 1;
        }
    }
    assert_eq!(next, revision + 1, "the watch ends at the latest revision");
}
