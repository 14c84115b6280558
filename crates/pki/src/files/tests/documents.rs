//! Deny lists beside `ca.crt`, also in a volume that shows a Secret.

use std::os::unix::fs::symlink;

use super::*;
use crate::authority::Subject;

fn authority(stage: &Stage) -> Authority {
    Authority::open(&stage.dir.path().join("authority")).expect("opened")
}

fn revoke(stage: &Stage, leaf: &Path) -> String {
    let authority = authority(stage);
    let leaf = read_certificates(&leaf.join(CERTIFICATE)).expect("read").remove(0);
    authority.revoke(&Subject::Certificate { der: &leaf, keep_key: false }, "lost").expect("revoked");
    authority.bundle().expect("made").deny_lists
}

#[test]
fn documents_lie_beside_the_roots_and_faults_in_them_are_named() {
    let stage = stage();
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    let lists = revoke(&stage, &dir);
    assert!(Credentials::load(&dir).expect("usable").denial().is_none());
    fs::write(dir.join(DENY_LISTS), &lists).expect("written");
    let denial =
        Credentials::load(&dir).expect("usable, if of little use").denial().expect("known").to_string();
    assert!(denial.contains("(lost), deny list 1 of CN=isthmus root"), "{denial}");
    for (content, part) in [
        ("hello\n".to_owned(), "deny-list.jsonl: line 1 is no signed document"),
        (lists[..lists.len() / 2].to_owned(), "deny-list.jsonl: line 1 is no signed document"),
        (format!("{lists}{{}}\n"), "deny-list.jsonl: line 2 is no signed document"),
        (lists.replace("\"sig\":\"", "\"sig\":\"AAAA"), "the signature is not of that key; it was changed"),
    ] {
        fs::write(dir.join(DENY_LISTS), content).expect("written");
        let text = failure(&dir);
        assert!(text.contains(part), "{part:?} expected in: {text}");
    }
    fs::rename(dir.join(DENY_LISTS), dir.join(STATEMENTS)).expect("renamed");
    fs::write(dir.join(STATEMENTS), &lists).expect("written");
    let text = failure(&dir);
    assert!(text.contains("block-statements.jsonl: found a deny list, expected a block statement"), "{text}");
}

/// A volume with a Secret in it: the files are links through `..data`, which is swapped as a whole.
struct Volume {
    dir: PathBuf,
    version: usize,
}

impl Volume {
    fn show(&mut self, files: &[(&str, Vec<u8>)]) {
        self.version += 1;
        let name = format!("..{}", self.version);
        fs::create_dir_all(self.dir.join(&name)).expect("made");
        for (file, content) in files {
            fs::write(self.dir.join(&name).join(file), content).expect("written");
            if fs::symlink_metadata(self.dir.join(file)).is_err() {
                symlink(Path::new("..data").join(file), self.dir.join(file)).expect("linked");
            }
        }
        symlink(&name, self.dir.join("..data_tmp")).expect("linked");
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).expect("swapped");
    }
}

#[tokio::test]
async fn a_secret_in_a_volume_is_followed_with_its_deny_list() {
    let stage = stage();
    let issued = |role| {
        let dir = stage.issue(role, KeyKind::P256);
        [CERTIFICATE, KEY, AUTHORITIES].map(|file| (file, fs::read(dir.join(file)).expect("read")))
    };
    let mut volume = Volume { dir: stage.dir.path().join("volume"), version: 0 };
    let first = issued(LeafRole::Hub);
    volume.show(&first);
    let (mut live, reloader) = LiveCredentials::watch(Files::in_dir(&volume.dir)).expect("watched");
    let task = tokio::spawn(reloader.run());
    let limit = Duration::from_secs(30);

    let lists = revoke(&stage, &volume.dir).into_bytes();
    volume.show(&[&first[..], &[(DENY_LISTS, lists.clone())]].concat());
    let denied = async {
        while live.current().denial().is_none() {
            live.changed().await;
        }
    };
    timeout(limit, denied)
        .await
        .unwrap_or_else(|_| panic!("the list is seen; problem: {:?}", live.problem()));

    volume.show(&[&issued(LeafRole::Hub)[..], &[(DENY_LISTS, lists)]].concat());
    let replaced = async {
        while live.current().denial().is_some() {
            live.changed().await;
        }
    };
    timeout(limit, replaced)
        .await
        .unwrap_or_else(|_| panic!("the new leaf is seen; problem: {:?}", live.problem()));
    assert_eq!(live.problem(), None);
    task.abort();
}
