use std::os::unix::fs::symlink;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

struct Fixture {
    dir: tempfile::TempDir,
    folder: Folder,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(dir.path().to_owned());
        Self { dir, folder }
    }

    /// Replaces a file as an operator should: under another name first, then by a rename.
    fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.path().join(format!(".{name}.tmp"));
        fs::write(&temporary, text).expect("write");
        fs::rename(temporary, self.dir.path().join(name)).expect("rename");
    }

    /// What changed, such as `+Service shop/cart` and `-Service shop/cash`.
    fn look(&mut self) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Apply(object) => format!("+{}", object.reference()),
            Change::Delete(reference) => format!("-{reference}"),
        };
        self.folder.read(&Look::Everything).changes.iter().map(text).collect()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.folder.findings().iter().map(|finding| finding.reason).collect()
    }
}

#[test]
fn files_come_change_and_go() {
    let mut fixture = Fixture::new();
    assert!(fixture.look().is_empty());
    fixture.write("a.yaml", &format!("{}---\n{}", service("cart", 80), service("cash", 80)));
    fixture.write("notes.txt", "not a manifest");
    fs::create_dir(fixture.dir.path().join("sub.yaml")).expect("a folder");
    assert_eq!(fixture.look(), ["+Service shop/cart", "+Service shop/cash"]);
    assert!(fixture.look().is_empty(), "nothing has changed");
    fixture.write("a.yaml", &service("cart", 81));
    assert_eq!(fixture.look(), ["+Service shop/cart", "-Service shop/cash"]);
    fs::remove_file(fixture.dir.path().join("a.yaml")).expect("remove");
    assert_eq!(fixture.look(), ["-Service shop/cart"]);
    assert!(fixture.reasons().is_empty());
}

#[test]
fn nothing_that_works_is_lost_to_a_broken_file() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &format!("{}---\n{}", service("cart", 80), service("cash", 80)));
    fixture.look();
    // The document that defined cash is broken; cart's has a change that counts all the same.
    fixture.write("a.yaml", &format!("{}---\nkind: [oops\n", service("cart", 81)));
    assert_eq!(fixture.look(), ["+Service shop/cart"]);
    assert_eq!(fixture.reasons(), [Reason::DocumentInvalid]);
    fixture.write("a.yaml", "\u{0}\u{1}");
    assert!(fixture.look().is_empty());
    assert_eq!(fixture.folder.objects().count(), 2);
    fixture.write("a.yaml", &service("cart", 81));
    assert_eq!(fixture.look(), ["-Service shop/cash"]);
    assert!(fixture.reasons().is_empty());
}

#[test]
fn the_first_file_by_name_counts() {
    let mut fixture = Fixture::new();
    fixture.write("b.yaml", &service("cart", 80));
    assert_eq!(fixture.look(), ["+Service shop/cart"]);
    fixture.write("c.yaml", &service("cart", 90));
    assert!(fixture.look().is_empty());
    assert_eq!(fixture.reasons(), [Reason::DefinedTwice]);
    fixture.write("a.yaml", &service("cart", 70));
    assert_eq!(fixture.look(), ["+Service shop/cart"]);
    for name in ["a.yaml", "b.yaml"] {
        fs::remove_file(fixture.dir.path().join(name)).expect("remove");
        assert_eq!(fixture.look(), ["+Service shop/cart"], "the next file counts");
    }
    assert!(fixture.reasons().is_empty());
    fs::remove_file(fixture.dir.path().join("c.yaml")).expect("remove");
    assert_eq!(fixture.look(), ["-Service shop/cart"]);
}

#[test]
fn a_mounted_config_map_can_be_replaced() {
    let mut fixture = Fixture::new();
    let root = fixture.dir.path().to_owned();
    for (version, port) in [("..v1", 80), ("..v2", 81)] {
        fs::create_dir(root.join(version)).expect("a folder");
        fs::write(root.join(version).join("cart.yaml"), service("cart", port)).expect("write");
    }
    symlink("..v1", root.join("..data")).expect("a link");
    symlink("..data/cart.yaml", root.join("cart.yaml")).expect("a link");
    assert_eq!(fixture.look(), ["+Service shop/cart"]);
    symlink("..v2", root.join("..data_tmp")).expect("a link");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("rename");
    assert_eq!(fixture.look(), ["+Service shop/cart"]);
    fs::remove_file(root.join("..data")).expect("remove");
    assert_eq!(fixture.look(), ["-Service shop/cart"], "a dangling link defines nothing");
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &service("cart", 80));
    fixture.look();
    fs::write(fixture.dir.path().join("a.yaml"), "").expect("truncate");
    let read = fixture.folder.read(&Look::Everything);
    assert!(read.changes.is_empty() && read.unsettled, "{read:?}");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let file = fs::File::options().write(true).open(fixture.dir.path().join("a.yaml")).expect("open");
    file.set_modified(long_ago).expect("set the time");
    assert_eq!(fixture.look(), ["-Service shop/cart"], "it is meant to be empty");
}

/// Copies keep times, and clocks differ.
#[test]
fn a_time_to_come_is_not_a_write_under_way() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &service("cart", 80));
    fixture.look();
    let date = |text: &str| {
        fs::write(fixture.dir.path().join("a.yaml"), text).expect("write");
        let file = fs::File::options().write(true).open(fixture.dir.path().join("a.yaml")).expect("open");
        file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).expect("set the time");
    };
    date(&service("cart", 81));
    let read = fixture.folder.read(&Look::Settled);
    assert!(!read.unsettled && read.changes.len() == 1, "{read:?}");
    date("");
    let read = fixture.folder.read(&Look::Settled);
    assert!(!read.unsettled && read.changes.len() == 1, "{read:?}");
}

#[test]
fn a_broken_file_says_what_is_left_of_it() {
    let mut fixture = Fixture::new();
    let says = |fixture: &Fixture| {
        let findings = fixture.folder.findings();
        findings.into_iter().map(|finding| finding.consequence).collect::<Vec<_>>().join("\n")
    };
    for broken in ["kind: [oops\n".as_bytes(), b"\xff\xfe"] {
        fs::write(fixture.dir.path().join("a.yaml"), broken).expect("write");
        fixture.look();
        assert!(says(&fixture).starts_with("left out"), "nothing was known: {}", says(&fixture));
        fixture.write("a.yaml", &service("cart", 80));
        fixture.look();
        fs::write(fixture.dir.path().join("a.yaml"), broken).expect("write");
        assert!(fixture.look().is_empty());
        assert!(says(&fixture).starts_with("what this file defined before stays"), "{}", says(&fixture));
        fs::remove_file(fixture.dir.path().join("a.yaml")).expect("remove");
        fixture.look();
    }
}

#[test]
fn a_folder_that_goes_away_takes_nothing_with_it() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &service("cart", 80));
    fixture.look();
    let moved = fixture.dir.path().with_extension("moved");
    fs::rename(fixture.dir.path(), &moved).expect("rename");
    assert!(fixture.look().is_empty());
    assert_eq!(fixture.reasons(), [Reason::FileUnreadable]);
    fs::rename(&moved, fixture.dir.path()).expect("rename back");
    assert!(fixture.look().is_empty());
    assert!(fixture.reasons().is_empty());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let mut fixture = Fixture::new();
    let text = format!("{}# {}\n", service("cart", 80), "x".repeat(usize::try_from(MAX_FILE).expect("fits")));
    fixture.write("a.yaml", &text);
    assert!(fixture.look().is_empty());
    assert_eq!(fixture.reasons(), [Reason::FileTooLarge]);
}
