//! A disk that is full, and one that the kernel makes read-only: readers notice nothing, what must be durable is refused,
//! and everything is there again once the disk takes writes.
//!
//! Each test runs as a child of itself in a mount namespace of its own, so its mounts go with it. Needs root.

use kvstore::{
    KeyRange, Store, StoreOptions,
    store::{DiskFailure, WriteError},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const INSIDE: &str = "KVSTORE_TEST_MOUNTS";

#[test]
fn a_full_disk_stops_durable_writes_alone_until_there_is_room() {
    inside("a_full_disk_stops_durable_writes_alone_until_there_is_room", |place| {
        run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", &text(place)]);
        let filler = place.join("filler");
        let store = Store::open(&place.join("store"), StoreOptions::default()).expect("open");
        store.put("before", "1").expect("put");
        let written = std::fs::write(&filler, vec![1; 32 << 20]);
        assert!(written.is_err(), "the disk is not full");
        let failure = write_until_it_fails(&store);
        assert!(failure.is_full(), "{failure}");
        check_while_failed(&store);
        std::fs::remove_file(&filler).expect("make room");
        check_when_back(&store, &place.join("store"));
    });
}

#[test]
fn a_disk_that_turns_read_only_stops_durable_writes_alone() {
    inside("a_disk_that_turns_read_only_stops_durable_writes_alone", |place| {
        let image = place.join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(192 << 20)).expect("image");
        run("mkfs.ext4", &["-q", "-F", &text(&image)]);
        let disk = place.join("disk");
        std::fs::create_dir(&disk).expect("mount point");
        run("mount", &["-o", "loop,errors=remount-ro", &text(&image), &text(&disk)]);
        let mounted = Unmounted(disk.clone());
        let store = Store::open(&disk.join("store"), StoreOptions::default()).expect("open");
        store.put("before", "1").expect("put");
        // What the kernel does when it finds an error on the disk.
        run("mount", &["-o", "remount,abort", &text(&disk)]);
        let failure = write_until_it_fails(&store);
        assert!(!failure.is_full(), "{failure}");
        check_while_read_only(&store);
        let (cluster_id, shown) = (store.cluster_id(), store.revision());
        drop((store, mounted));
        // Repaired, in the same boot.
        drop(Command::new("e2fsck").args(["-f", "-y"]).arg(&image).output().expect("start e2fsck"));
        run("mount", &["-o", "loop", &text(&image), &text(&disk)]);
        let mounted = Unmounted(disk.clone());
        let store = Store::open(&disk.join("store"), StoreOptions::default()).expect("open");
        let same = store.cluster_id() == cluster_id;
        assert!(!same || store.revision() >= shown, "revision {} after {shown} was shown", store.revision());
        drop((store, mounted));
    });
}

/// Takes a mount away when dropped: its loop device would outlive the namespace.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").args(["-l"]).arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount {}", self.0.display());
    }
}

/// Puts 64 KiB again and again; memory keeps little of it, since it is one key.
fn write_until_it_fails(store: &Store) -> DiskFailure {
    let runtime = runtime();
    for n in 0..2000u32 {
        let value = vec![u8::try_from(n % 251).expect("below 251"); 64 << 10];
        let put = store.put("big", value).and_then(|revision| Ok(runtime.block_on(store.synced(revision))?));
        match put {
            Ok(()) => {}
            Err(WriteError::Disk(failure)) => return failure,
            Err(other) => panic!("{other:?}"),
        }
        if n % 10 == 0 {
            drop(store.compact(store.revision()));
        }
    }
    panic!("2000 puts of 64 KiB succeeded");
}

/// Not even a mark can be made, so nothing is shown that could come again.
fn check_while_read_only(store: &Store) {
    let revision = store.revision();
    assert!(matches!(store.put("durable", "no"), Err(WriteError::Disk(_))));
    let derived =
        store.derive::<_, WriteError>(|transaction| Ok(transaction.put("derived".into(), "no".into(), 0)));
    assert!(matches!(derived, Err(WriteError::Disk(_))), "{derived:?}");
    assert_eq!(store.revision(), revision);
    assert_eq!(store.snapshot().get(b"before").map(|entry| entry.value.clone()), Some("1".into()));
}

fn check_while_failed(store: &Store) {
    let revision = store.revision();
    assert!(matches!(store.put("durable", "no"), Err(WriteError::Disk(_))));
    assert_eq!(store.revision(), revision, "a refused put made a revision");
    let derived =
        store.derive::<_, WriteError>(|transaction| Ok(transaction.put("derived".into(), "yes".into(), 0)));
    assert_eq!(derived.expect("goes on in memory").revision, revision + 1);
    let mut watcher = store.watch(KeyRange::key("derived"), 1.max(store.snapshot().compacted()));
    assert_eq!(watcher.take().expect("kept").map(|changes| changes.events.len()), Some(1));
    assert_eq!(store.snapshot().get(b"before").map(|entry| entry.value.clone()), Some("1".into()));
}

fn check_when_back(store: &Store, directory: &Path) {
    let runtime = runtime();
    runtime.block_on(async {
        let maintained = tokio::spawn({
            let store = store.clone();
            async move { store.maintain().await }
        });
        tokio::time::timeout(Duration::from_secs(60), store.writable()).await.expect("writable within 60 s");
        let revision = store.put("after", "1").expect("put");
        store.synced(revision).await.expect("on disk");
        maintained.abort();
        drop(maintained.await);
    });
    let (cluster_id, revision) = (store.cluster_id(), store.revision());
    let keys: Vec<_> = store.snapshot().range(&KeyRange::all()).map(|entry| entry.key.clone()).collect();
    runtime.block_on(store.close()).expect("close");
    // As a killed process leaves it, but for the lock.
    let copy = directory.with_file_name("copy");
    run("cp", &["-r", &text(directory), &text(&copy)]);
    let again = Store::open(&copy, StoreOptions::default()).expect("open the copy");
    assert_ne!(again.cluster_id(), cluster_id, "a copy is another store");
    let found: Vec<_> = again.snapshot().range(&KeyRange::all()).map(|entry| entry.key.clone()).collect();
    assert_eq!((again.revision(), found), (revision, keys));
}

/// Runs `test` in a mount namespace of its own with an empty folder.
fn inside(name: &str, test: impl FnOnce(&Path)) {
    if let Some(place) = std::env::var_os(INSIDE) {
        return test(Path::new(&place));
    }
    let place = tempfile::tempdir().expect("temporary directory");
    let own = std::env::current_exe().expect("own path");
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, place.path())
        .output()
        .expect("start unshare");
    let output =
        [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(child.status.success() && output.contains("1 passed"), "{}: {output}", child.status);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("start {program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}
