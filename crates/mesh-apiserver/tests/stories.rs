//! Story tests: Kubernetes objects in, keys and values out. Each file in `scripts/` is one story; a case is added by
//! adding a file, without any Rust.
//!
//! A story is a txtar archive. Text before the first section says what it is about. Then, in order:
//!
//! | section | meaning |
//! |---|---|
//! | `-- cluster --` | `name=`, `id=`, `max=255\|511`, `global-namespaces=true\|false`, `identities=<n>` (size of the range); once, first |
//! | `-- apply <file> --` | the folder now has this file with this text; what it defined before and does not define now is deleted |
//! | `-- delete <file> --` | the folder has this file no more |
//! | `-- records [prefix] --` | all that is published under the prefix (default `cilium/state/`): `<key> = <value>` a line |
//! | `-- wrote --` | what the last change wrote: `+<key>` and `-<key>`, without the allocations of identities |
//! | `-- findings --` | all that is odd: `<severity> <text>` a line |
//!
//! Slices are shown as JSON. `UPDATE_STORIES=1` writes what was found into the files, to be read before it is
//! committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use mesh_apiserver::export::exporter::identity_range;
use mesh_apiserver::export::{Cluster, Delta, Exporter};
use mesh_apiserver::finding::Finding;
use mesh_apiserver::identity::Allocator;
use mesh_apiserver::source::manifests::folder::{Folder, Look};
use serde_json::{Value, json};
use topology::cluster::{ClusterId, MaxClusters};
use topology::record::Origin;
use topology::record::slice::{MapEntry, SliceValue};

struct Section {
    title: String,
    text: String,
}

fn parse(archive: &str) -> (String, Vec<Section>) {
    let (mut preface, mut sections) = (String::new(), Vec::<Section>::new());
    for line in archive.split_inclusive('\n') {
        let title = line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
        match (title, sections.last_mut()) {
            (Some(title), _) => sections.push(Section { title: title.to_owned(), text: String::new() }),
            (None, Some(section)) => section.text.push_str(line),
            (None, None) => preface.push_str(line),
        }
    }
    (preface, sections)
}

fn cluster(text: &str) -> (Cluster, Option<u32>) {
    let settings: BTreeMap<&str, &str> =
        text.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let setting = |name, default| settings.get(name).copied().unwrap_or(default);
    let cluster = Cluster {
        name: setting("name", "north").parse().expect("a cluster name"),
        id: ClusterId::try_from(setting("id", "9").parse::<u32>().expect("a number")).expect("a cluster id"),
        max: if setting("max", "255") == "511" { MaxClusters::N511 } else { MaxClusters::N255 },
        global_namespaces: setting("global-namespaces", "true") == "true",
    };
    (cluster, settings.get("identities").map(|n| n.parse().expect("a number")))
}

/// Plays one story.
struct Stage {
    cluster: Cluster,
    exporter: Exporter,
    folder: Folder,
    dir: tempfile::TempDir,
    last: Delta,
}

impl Stage {
    fn new(text: &str) -> Self {
        let (cluster, identities) = cluster(text);
        let range = identity_range(&cluster);
        let range = identities.map_or_else(|| range.clone(), |count| *range.start()..=range.start() + count);
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self {
            exporter: Exporter::new(cluster.clone(), Allocator::new(range)),
            folder: Folder::new(dir.path().to_owned()),
            cluster,
            dir,
            last: Delta::default(),
        }
    }

    fn change(&mut self) {
        let seen = self.folder.read(&Look::Everything);
        self.last = self.exporter.apply(seen.changes);
    }

    fn apply(&mut self, file: &str, text: &str) {
        let temporary = self.dir.path().join(".temporary");
        std::fs::write(&temporary, text).expect("write");
        std::fs::rename(temporary, self.dir.path().join(file)).expect("rename");
        self.change();
    }

    fn delete(&mut self, file: &str) {
        std::fs::remove_file(self.dir.path().join(file)).expect("remove");
        self.change();
    }

    fn records(&self, prefix: &str) -> String {
        let mut text = String::new();
        for (key, value) in self.exporter.desired().range(prefix.to_owned()..) {
            if key.starts_with(prefix) {
                writeln!(text, "{key} = {}", self.show(key, value)).expect("into a text");
            }
        }
        text
    }

    fn show(&self, key: &str, value: &[u8]) -> String {
        let Some(suffix) = key.strip_prefix("cilium/state/endpointslices/v1/") else {
            return String::from_utf8(value.to_vec()).expect("records are text");
        };
        let suffix = suffix.split_once('/').expect("cluster and name").1;
        let Cluster { name, id, max, .. } = self.cluster.clone();
        let origin = Origin { cluster: name, id, max };
        let slice = SliceValue::decode_record(&origin, suffix, value).expect("readers accept our slices");
        slice_json(&slice).to_string()
    }

    fn findings(&self) -> String {
        let findings = self.folder.findings().into_iter().chain(self.exporter.findings().cloned());
        let line = |finding: Finding| format!("{} {finding}\n", finding.severity.as_str());
        findings.map(line).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn wrote(&self) -> String {
        let ours = |key: &&String| !key.starts_with("isthmus/v1/hub/");
        let puts = self.last.puts.keys().filter(ours).map(|key| format!("+{key}\n"));
        puts.chain(self.last.deletes.iter().map(|key| format!("-{key}\n"))).collect()
    }
}

fn slice_json(slice: &SliceValue) -> Value {
    let map = |entries: &[MapEntry]| -> Value {
        entries.iter().map(|entry| (entry.key.clone(), Value::from(entry.value.clone()))).collect()
    };
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let mut shown = json!({ "addresses": endpoint.addresses });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                shown[name] = value;
            }
        };
        set("ready", endpoint.conditions.ready.map(Value::from));
        set("serving", endpoint.conditions.serving.map(Value::from));
        set("terminating", endpoint.conditions.terminating.map(Value::from));
        set("hostname", endpoint.hostname.clone().map(Value::from));
        set("nodeName", endpoint.node_name.clone().map(Value::from));
        set("zone", endpoint.zone.clone().map(Value::from));
        let zones =
            |hints: &topology::record::slice::Hints| hints.for_zones.iter().map(|z| z.name.clone()).collect();
        set("forZones", endpoint.hints.as_ref().map(zones));
        shown
    });
    let ports = slice.ports.iter().map(|port| json!([port.name, port.protocol, port.port]));
    json!({
        "addressType": slice.address_type,
        "labels": map(&slice.labels),
        "annotations": map(&slice.annotations),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

/// Plays a story and returns it with what was found in place of what was expected.
fn play(archive: &str) -> (String, Vec<String>) {
    let (preface, sections) = parse(archive);
    let mut stage = None;
    let mut told = preface;
    let mut differences = Vec::new();
    for section in sections {
        let mut words = section.title.split_whitespace();
        let (verb, argument) = (words.next().unwrap_or_default(), words.next());
        if verb == "cluster" {
            stage = Some(Stage::new(&section.text));
        }
        let stage = stage.get_or_insert_with(|| Stage::new(""));
        let found = match verb {
            "cluster" => None,
            "apply" => {
                stage.apply(argument.expect("apply <file>"), &section.text);
                None
            }
            "delete" => {
                stage.delete(argument.expect("delete <file>"));
                None
            }
            "records" => Some(stage.records(argument.unwrap_or("cilium/state/"))),
            "wrote" => Some(stage.wrote()),
            "findings" => Some(stage.findings()),
            other => panic!("no such section: {other}"),
        };
        let blank = if section.text.ends_with("\n\n") || section.text == "\n" { "\n" } else { "" };
        let text = match found {
            Some(found) => {
                if found.trim() != section.text.trim() {
                    differences
                        .push(format!("-- {} --\nexpected:\n{}found:\n{found}", section.title, section.text));
                }
                format!("{found}{blank}")
            }
            None => section.text,
        };
        write!(told, "-- {} --\n{text}", section.title).expect("into a text");
    }
    (told, differences)
}

#[test]
fn stories() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let update = std::env::var_os("UPDATE_STORIES").is_some();
    let (mut count, mut failed) = (0, Vec::new());
    let mut paths: Vec<_> =
        std::fs::read_dir(&scripts).expect("scripts").map(|e| e.expect("a file").path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "txtar")) {
        let archive = std::fs::read_to_string(path).expect("a story");
        let (told, differences) = play(&archive);
        count += 1;
        if update && !differences.is_empty() {
            std::fs::write(path, told).expect("write the story");
        }
        failed.extend(differences.iter().map(|difference| format!("{}: {difference}", path.display())));
    }
    assert!(count >= 10, "only {count} stories in {}", scripts.display());
    assert!(update || failed.is_empty(), "\n{}", failed.join("\n"));
}
