//! What an audit finds, and what it cannot.

use super::*;
use crate::certificate;
use crate::files::DENY_LISTS;

struct Stage {
    _dir: tempfile::TempDir,
    authority: Authority,
    path: PathBuf,
}

/// Paris, tokyo, a renewal of paris; tokyo revoked and gone.
fn stage() -> Stage {
    let (dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");
    authority.renew(&"paris".parse().expect("a name"), &signing()).expect("renewed");
    let tokyo = Subject::Cluster { name: "tokyo".parse().expect("a name"), leave: true };
    authority.revoke(&tokyo, "").expect("revoked");
    let path = authority.dir.clone();
    Stage { _dir: dir, authority, path }
}

impl Stage {
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path.join(LEDGER)).expect("read");
        text.lines().map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(self.path.join(LEDGER), lines.join("\n") + "\n").expect("written");
    }

    fn findings(&self) -> Vec<String> {
        let audit = audit(&self.path, None, &[]).expect("read");
        audit.findings.iter().map(ToString::to_string).collect()
    }

    fn finds(&self, parts: &[&str]) {
        let found = self.findings();
        for part in parts {
            assert!(found.iter().any(|finding| finding.contains(part)), "{part:?} expected in: {found:#?}");
        }
    }
}

#[test]
fn a_ledger_as_it_was_written_is_sound() {
    let stage = stage();
    let found = audit(&stage.path, None, &[]).expect("read");
    assert!(found.is_sound(), "{:#?}", found.findings);
    assert_eq!((found.lines, found.clusters, found.chained_from), (6, 1, Some(2)));
    assert_eq!(found.head, stage.authority.ledger().expect("read").head());
    // No key is needed.
    std::fs::remove_file(stage.path.join(ROOT_KEY)).expect("removed");
    assert!(audit(&stage.path, Some(found.head), &[]).expect("read").is_sound());
    assert_eq!(Ledger::open(&stage.path).expect("read").current().count(), 1);
}

#[test]
fn changed_added_and_removed_lines_show() {
    let stage = stage();
    let lines = stage.lines();
    let changed = |at: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replace(from, to);
        lines
    };
    stage.write(&changed(1, "10.1.0.0/16", "10.0.0.0/9"));
    stage.finds(&[
        "line 3: it names ",
        "a line was changed, added or taken out before it",
        "should have been refused",
    ]);
    let mut without = lines.clone();
    without.remove(2);
    stage.write(&without);
    stage.finds(&["line 3: it names ", "line 4: cluster tokyo was not enrolled before"]);
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    stage.write(&swapped);
    stage.finds(&["line 2: it names ", "line 3: it names "]);
    // A line made by hand, without naming the one before it.
    let mut added = lines.clone();
    added.push(r#"{"event":"leave","at":"2036-01-01T00:00:00Z","cluster":"paris"}"#.to_owned());
    stage.write(&added);
    stage.finds(&["line 7: it names no line before it"]);
    stage.write(&changed(5, "\"event\":\"leave\"", "\"event\":\"later\""));
    stage.finds(&["line 6: not an event that this version knows"]);
    stage.write(&changed(5, "\"at\":\"2", "\"at\":\"1"));
    stage.finds(&["line 6: it is of 1"]);
    stage.write(&changed(0, "\"format\":1", "\"format\":2"));
    stage.finds(&["line 1: an init event of format 1 is expected as the first line", "line 2: it names"]);
}

/// Whoever writes the file can write a whole other one; what was cut off at the end leaves no trace in it. Both show against a
/// fingerprint that was noted elsewhere.
#[test]
fn a_remembered_fingerprint_shows_what_the_file_alone_cannot() {
    let stage = stage();
    let lines = stage.lines();
    let noted = stage.authority.ledger().expect("read").head();
    stage.write(&lines[..2]);
    // The deny list tells in this case; it can be taken back as well.
    std::fs::remove_file(stage.path.join(DENY_LISTS)).expect("removed");
    assert_eq!(stage.findings(), Vec::<String>::new());
    let found = audit(&stage.path, Some(noted), &[]).expect("read");
    assert!(matches!(&found.findings[..], [Finding { flaw: Flaw::Lost(lost), .. }] if *lost == noted));
    // A line in the middle is as good.
    stage.write(&lines);
    let middle = Fingerprint::of(lines[3].as_bytes());
    let found = audit(&stage.path, Some(middle), &[]).expect("read");
    assert!(!found.findings.iter().any(|finding| matches!(finding.flaw, Flaw::Lost(_))));
}

#[test]
fn what_should_have_been_refused_shows_even_if_the_lines_fit() {
    let (_dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let mut ledger = authority.ledger().expect("read");
    let paris = ledger.enrolments()[0].clone();
    let mut tokyo = paris.clone();
    tokyo.request = request("tokyo", 1, &["10.1.128.0/17"]);
    let mut again = paris;
    again.request.pod_cidrs = vec!["10.1.2.3/16".parse().expect("a block")];
    ledger.append(vec![event::Event::Enrol(tokyo), event::Event::Enrol(again)]).expect("written");
    let found = audit(&authority.dir, None, &[]).expect("read");
    let found: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    for part in [
        "line 3: it should have been refused: id 1 wanted by cluster tokyo is cluster paris's",
        "line 3: it should have been refused: cluster tokyo's pod block 10.1.128.0/17 overlaps",
        "line 3: it should have been refused: the key was already enrolled, for cluster paris",
        "line 4: it should have been refused: its blocks are not in canonical form",
    ] {
        assert!(found.iter().any(|finding| finding.starts_with(part)), "{part:?} expected in: {found:#?}");
    }
}

#[test]
fn passports_signed_past_the_ledger_show() {
    let stage = stage();
    let recorded =
        stage.authority.enroll(&request("osaka", 3, &["10.3.0.0/16"]), &signing()).expect("granted");
    let spec = crate::profile::PassportSpec {
        uri: recorded.passport.uri.clone(),
        blocks: recorded.passport.blocks.clone(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        life: life::PASSPORT,
    };
    let (root, key) = (stage.authority.root(), &stage.authority.key);
    let past =
        crate::profile::issue_passport(root, key, &spec, &signing(), SystemTime::now()).expect("signed");
    let found = audit(&stage.path, None, &[recorded.passport.der, past.clone()]).expect("read");
    let found: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [format!("{} is not in the ledger: it was signed past it", certificate::describe(&past))]
    );
}

#[test]
fn root_and_deny_list_must_be_the_ledgers() {
    let stage = stage();
    let list = std::fs::read(stage.path.join(DENY_LISTS)).expect("read");
    std::fs::remove_file(stage.path.join(DENY_LISTS)).expect("removed");
    stage.finds(&["deny-list.jsonl: read "]);
    let paris = Subject::Cluster { name: "paris".parse().expect("a name"), leave: false };
    stage.authority.revoke(&paris, "").expect("revoked");
    std::fs::write(stage.path.join(DENY_LISTS), list).expect("written");
    stage.finds(&["deny-list.jsonl: it is list 1, the ledger has 3 revocations"]);
    let (_other, other) = init();
    std::fs::copy(other.dir.join(ROOT), stage.path.join(ROOT)).expect("copied");
    stage.finds(&["root.crt: its key is not the one that the ledger begins with"]);
}

/// A ledger begun by the version before, which named no lines.
#[test]
fn an_older_ledger_is_chained_from_its_next_line_on() {
    let (_dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let path = authority.dir.join(LEDGER);
    let text = std::fs::read_to_string(&path).expect("read");
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value.as_object_mut().expect("an object").remove("prev_sha256");
            value.to_string()
        })
        .collect();
    std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    let found = audit(&authority.dir, None, &[]).expect("read");
    assert!(found.is_sound() && found.chained_from.is_none(), "{found:?}");
    authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");
    let found = audit(&authority.dir, None, &[]).expect("read");
    assert!(found.is_sound() && found.chained_from == Some(3), "{found:?}");
}
