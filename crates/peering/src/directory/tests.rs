//! A folder that changes, seen through what a directory publishes. Nobody answers at the configured endpoints.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

const CONFIG: &str =
    "endpoints: [https://127.0.0.1:1]\ntrusted-ca-file: /no/ca\ncert-file: /no/crt\nkey-file: /no/key\n";

struct Folder {
    dir: TempDir,
    peers: watch::Receiver<Peers>,
}

impl Folder {
    /// A folder with these files, and a directory that follows it for as long as the test runs.
    fn of(files: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        files.iter().for_each(|file| fs::write(dir.path().join(file), CONFIG).expect("write a file"));
        let own: ClusterName = "paris".parse().expect("a name");
        let (directory, peers) = Directory::new(
            dir.path().join("."),
            own.clone(),
            MaxClusters::default(),
            Ids::new(own),
            Arc::new(Notify::new()),
        );
        tokio::spawn(directory.run());
        Self { dir, peers }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).expect("write a file");
    }

    /// Waits until what is published is as wanted; fails with what is published instead.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Peers) -> bool) {
        let in_time = timeout(Duration::from_secs(5), self.peers.wait_for(wanted)).await.is_ok();
        assert!(in_time, "{what}: found {:?}", *self.peers.borrow());
    }
}

fn names(peers: &Peers) -> Vec<&str> {
    peers.followed.keys().map(ClusterName::as_str).collect()
}

#[tokio::test]
async fn files_come_and_go_and_so_do_peers() {
    let mut folder = Folder::of(&["tokyo", "paris"]);
    folder.until("the own cluster is no peer", |p| p.known && names(p) == ["tokyo"]).await;
    folder.write("osaka", CONFIG);
    folder.until("a file that comes is a peer", |p| names(p) == ["osaka", "tokyo"]).await;
    fs::remove_file(folder.dir.path().join("tokyo")).expect("remove a file");
    folder.until("a file that goes ends it", |p| names(p) == ["osaka"]).await;
}

#[tokio::test]
async fn a_file_that_becomes_unusable_ends_nothing() {
    let mut folder = Folder::of(&["tokyo"]);
    folder.until("followed", |p| names(p) == ["tokyo"]).await;
    for text in ["", "endpoints: {"] {
        folder.write("tokyo", text);
        folder.until(text, |p| p.problems.contains_key("tokyo") && names(p) == ["tokyo"]).await;
        folder.write("tokyo", CONFIG);
        folder.until("mended", |p| p.problems.is_empty() && names(p) == ["tokyo"]).await;
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_ends_nothing() {
    let mut folder = Folder::of(&["tokyo"]);
    folder.until("followed", |p| names(p) == ["tokyo"]).await;
    let (path, aside) = (folder.dir.path().to_owned(), folder.dir.path().with_extension("aside"));
    fs::rename(&path, &aside).expect("move the folder away");
    // The watch stays with the moved folder, so a change there is what wakes the directory.
    fs::write(aside.join("note"), "moved").expect("write a file");
    folder.until("it is said", |p| !p.problems.is_empty() && names(p) == ["tokyo"]).await;
    fs::rename(&aside, &path).expect("move the folder back");
    folder.write("note", "moved back");
    folder.until("it is mended", |p| p.problems.is_empty() && names(p) == ["tokyo"]).await;
}
