//! The files of a folder, what each defines, and what that comes to in sum.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::document::{self, Contents};
use crate::finding::{Finding, Reason};
use crate::index::Change;
use crate::object::{Object, ObjectRef};

/// A folder's files as they were last read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<String, File>,
    /// Which files define an object. The first by name counts.
    definitions: BTreeMap<ObjectRef, BTreeSet<String>>,
    /// Objects that several files define.
    contested: BTreeSet<ObjectRef>,
    /// What is defined in sum.
    objects: BTreeMap<ObjectRef, Object>,
    /// What is odd about the folder as a whole.
    findings: Vec<Finding>,
}

/// Which files to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Every file.
    Everything,
    /// Every file that is not being written at this moment.
    Settled,
    /// The files of these names.
    Files(BTreeSet<String>),
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Seen {
    /// What is to be told about objects.
    pub changes: Vec<Change>,
    /// Whether [`Folder::findings`] says something else than before.
    pub findings_changed: bool,
    /// Whether a file was in the middle of a change and is to be looked at again soon.
    pub unsettled: bool,
}

/// Holds what a file defined when it was last read.
#[derive(Debug, Default)]
struct File {
    hash: u64,
    objects: BTreeMap<ObjectRef, Object>,
    findings: Vec<Finding>,
}

/// Why a file is not taken as it is now.
enum Trouble {
    /// It is not there, or not a file.
    Gone,
    /// It is being written.
    Unsettled,
    /// It cannot be used: what it defined before stays.
    Unusable(Finding),
}

impl Folder {
    /// A folder of which nothing has been read yet.
    pub fn new(path: PathBuf) -> Self {
        let (files, definitions, contested, objects) = Default::default();
        Self { path, files, definitions, contested, objects, findings: Vec::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// What the files define in sum.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// All that is odd at present.
    pub fn findings(&self) -> Vec<Finding> {
        let files = self.files.values().flat_map(|file| &file.findings);
        let twice = self.contested.iter().map(|reference| {
            let files = self.definitions.get(reference).into_iter().flatten();
            let names = files.map(String::as_str).collect::<Vec<_>>().join(", ");
            Finding::warning(Reason::DefinedTwice, reference)
                .found(format_args!("defined in {names}"))
                .expected("one file to define it")
                .so("the first file by name counts")
        });
        self.findings.iter().chain(files).cloned().chain(twice).collect()
    }

    /// Looks at files, and says what changed. O(files looked at, and objects in those that changed).
    pub fn read(&mut self, look: &Look) -> Seen {
        let before = self.findings();
        let mut touched = BTreeSet::new();
        let mut unsettled = false;
        let names = match look {
            Look::Files(names) => Ok(names.clone()),
            Look::Everything | Look::Settled => self.names(),
        };
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                // Nothing is let go of because the folder cannot be listed.
                self.findings = vec![
                    Finding::error(Reason::FileUnreadable, format_args!("folder {}", self.path.display()))
                        .found(error)
                        .expected("a folder that can be listed")
                        .so("what was read before stays"),
                ];
                return Seen { findings_changed: self.findings() != before, ..Seen::default() };
            }
        };
        for name in names.iter().filter(|name| is_manifest(name)) {
            let known = self.files.get(name);
            match self.load(name, known, matches!(look, Look::Settled)) {
                Ok(Some(file)) => self.replace(name, Some(file), &mut touched),
                Ok(None) => {}
                Err(Trouble::Gone) => self.replace(name, None, &mut touched),
                Err(Trouble::Unsettled) => unsettled = true,
                Err(Trouble::Unusable(finding)) => {
                    self.files.entry(name.clone()).or_default().findings = vec![finding];
                    // Whatever it holds when it can be used again is news.
                    self.files.entry(name.clone()).or_default().hash = 0;
                }
            }
        }
        let changes = self.settle(touched);
        Seen { changes, findings_changed: self.findings() != before, unsettled }
    }

    /// Names of the files that are there, and of those that were.
    fn names(&mut self) -> io::Result<BTreeSet<String>> {
        self.findings.clear();
        let mut names: BTreeSet<String> = self.files.keys().cloned().collect();
        let mut count = 0;
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if !is_manifest(&name) {
                continue;
            }
            count += 1;
            if count > MAX_FILES && !self.files.contains_key(&name) {
                self.findings = vec![
                    Finding::error(Reason::TooManyFiles, format_args!("folder {}", self.path.display()))
                        .found("more files than are read")
                        .expected(format_args!("at most {MAX_FILES}"))
                        .so("the others are not read"),
                ];
                continue;
            }
            names.insert(name);
        }
        Ok(names)
    }

    /// Reads a file; `None` if it is as it was.
    fn load(&self, name: &str, known: Option<&File>, only_settled: bool) -> Result<Option<File>, Trouble> {
        let unusable = |reason, found: &dyn std::fmt::Display, expected: &str| {
            let finding = Finding::error(reason, format_args!("file {name}")).found(found).expected(expected);
            Trouble::Unusable(finding.so(what_stays(known)))
        };
        let path = self.path.join(name);
        // Follows links: a mounted ConfigMap is made of them.
        let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Gone,
            _ => unusable(Reason::FileUnreadable, &error, "a file that can be read"),
        })?;
        if !metadata.is_file() {
            return Err(Trouble::Gone);
        }
        if metadata.len() > MAX_FILE {
            let found = format!("{} bytes", metadata.len());
            return Err(unusable(Reason::FileTooLarge, &found, &format!("at most {MAX_FILE} bytes")));
        }
        let fresh = metadata.modified().is_ok_and(is_fresh);
        let had_objects = known.is_some_and(|known| !known.objects.is_empty());
        if fresh && had_objects && (only_settled || metadata.len() == 0) {
            return Err(Trouble::Unsettled);
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Gone,
            _ => unusable(Reason::FileUnreadable, &error, "a file that can be read"),
        })?;
        let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
        read.map_err(|error| unusable(Reason::FileUnreadable, &error, "a file that can be read"))?;
        let hash = hash(&bytes);
        if known.is_some_and(|known| known.hash == hash) {
            return Ok(None);
        }
        if bytes.is_empty() && had_objects && fresh {
            // Somebody has opened it for writing and has not written yet.
            return Err(Trouble::Unsettled);
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| unusable(Reason::FileUnreadable, &error.utf8_error(), "UTF-8"))?;
        Ok(Some(File::new(name, hash, document::read(name, &text), known)))
    }

    /// Puts a file in the place of what it was, and notes the objects that either defines.
    fn replace(&mut self, name: &str, file: Option<File>, touched: &mut BTreeSet<ObjectRef>) {
        if let Some(before) = self.files.remove(name) {
            for reference in before.objects.into_keys() {
                if let Some(files) = self.definitions.get_mut(&reference) {
                    files.remove(name);
                }
                touched.insert(reference);
            }
        }
        let Some(file) = file else { return };
        for reference in file.objects.keys() {
            self.definitions.entry(reference.clone()).or_default().insert(name.to_owned());
            touched.insert(reference.clone());
        }
        self.files.insert(name.to_owned(), file);
    }

    /// What the touched objects are now, where that differs from what they were.
    fn settle(&mut self, touched: BTreeSet<ObjectRef>) -> Vec<Change> {
        let mut changes = Vec::new();
        for reference in touched {
            let files = self.definitions.get(&reference);
            if files.is_some_and(|files| files.len() > 1) {
                self.contested.insert(reference.clone());
            } else {
                self.contested.remove(&reference);
            }
            let first = files.and_then(|files| files.first());
            let object =
                first.and_then(|name| self.files.get(name)).and_then(|file| file.objects.get(&reference));
            match object.cloned() {
                Some(object) if self.objects.get(&reference) != Some(&object) => {
                    self.objects.insert(reference, object.clone());
                    changes.push(Change::Apply(object));
                }
                Some(_) => {}
                None => {
                    self.definitions.remove(&reference);
                    if self.objects.remove(&reference).is_some() {
                        changes.push(Change::Delete(reference));
                    }
                }
            }
        }
        changes
    }
}

impl File {
    /// What a file defines now. If a document of it is broken, it may be the one that defined an object which is
    /// missing now, so what the file defined before stays beside what it defines soundly.
    fn new(name: &str, hash: u64, contents: Contents, known: Option<&Self>) -> Self {
        let Contents { objects: sound, mut findings } = contents;
        for finding in findings.iter_mut().filter(|finding| finding.reason == Reason::DocumentInvalid) {
            finding.consequence = format!("{}; correct the file", what_stays(known));
        }
        let broken = findings.iter().any(|finding| finding.reason == Reason::DocumentInvalid);
        let mut objects = BTreeMap::new();
        for object in sound {
            let reference = object.reference().clone();
            match objects.entry(reference) {
                Entry::Vacant(vacant) => {
                    vacant.insert(object);
                }
                Entry::Occupied(occupied) => findings.push(
                    Finding::warning(Reason::DefinedTwice, format_args!("{} of file {name}", occupied.key()))
                        .found("defined twice in the file")
                        .expected("one document to define it")
                        .so("the first one counts"),
                ),
            }
        }
        for (reference, object) in known.filter(|_| broken).into_iter().flat_map(|known| &known.objects) {
            objects.entry(reference.clone()).or_insert_with(|| object.clone());
        }
        Self { hash, objects, findings }
    }
}

/// What is left of a file that cannot be used as it is now. What a file defined is remembered as long as the process
/// lives.
fn what_stays(known: Option<&File>) -> &'static str {
    match known {
        Some(known) if !known.objects.is_empty() => "what this file defined before stays",
        _ => "left out: the file has not been read soundly since the hub started",
    }
}

/// Whether a file that was last written at `time` may still be in the middle of a change. A time to come is one that a
/// copy brought along from a clock that was ahead, and says no more than one long ago.
fn is_fresh(time: SystemTime) -> bool {
    let now = SystemTime::now();
    let distance = now.duration_since(time).unwrap_or_else(|ahead| ahead.duration());
    distance < SETTLED
}

/// Whether a file of this name is read.
pub fn is_manifest(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    !name.starts_with('.') && matches!(ending, Some("yaml" | "yml" | "json"))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    // 0 stands for a file that has not been read.
    hasher.finish().max(1)
}

/// Bytes of one file.
pub const MAX_FILE: u64 = 4 << 20;
/// Files of one folder.
pub const MAX_FILES: usize = 16_384;
/// How long ago a file was last written when it counts as no longer being written.
const SETTLED: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
