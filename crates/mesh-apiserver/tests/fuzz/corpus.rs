//! Stored inputs, and how further ones are made of them.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// A stored or changed input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The file that it is, or was made of.
    pub(crate) name: String,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// It is not as it was stored.
    pub(crate) is_changed: bool,
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, Index),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
    /// Another input's end, from somewhere on.
    Splice(Index, Index, Index),
}

/// Runs `check` on every file of a folder of the corpus, and on inputs that are made of them.
pub(crate) fn run(folder: &str, check: impl Fn(&Input) -> Result<(), TestCaseError>) {
    let stored = stored(folder);
    for input in &stored {
        if let Err(cause) = check(input) {
            panic!("{folder}/{}: {cause}", input.name);
        }
    }
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2048);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 256, ..Config::default() };
    let others = stored.clone();
    let changed = (select(stored), vec(change(), 1..6)).prop_map(move |(mut input, changes)| {
        changes.into_iter().for_each(|change| change.apply(&mut input.bytes, &others));
        input.is_changed = true;
        input
    });
    // A failure prints the smallest input that fails: it belongs into the corpus.
    TestRunner::new(config)
        .run(&changed, |input| check(&input))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn stored(folder: &str) -> Vec<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut stored: Vec<Input> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).expect("read a stored input");
            Input { name, bytes, is_changed: false }
        })
        .collect();
    stored.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!stored.is_empty(), "no stored input in {}", folder.display());
    stored
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(place, byte)| Change::Set(place, byte)),
        3 => (at(), 0_u8..8).prop_map(|(place, bit)| Change::Flip(place, bit)),
        2 => (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        2 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        2 => (at(), at(), at()).prop_map(|(other, from, to)| Change::Splice(other, from, to)),
    ]
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, others: &[Input]) {
        let end = bytes.len() + 1;
        let part = |from: Index, to: Index| {
            let (from, to) = (from.index(end), to.index(end));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Set(place, byte) if !bytes.is_empty() => bytes[place.index(end - 1)] = byte,
            Self::Flip(place, bit) if !bytes.is_empty() => bytes[place.index(end - 1)] ^= 1 << bit,
            Self::Set(..) | Self::Flip(..) => {}
            Self::Remove(from, to) => drop(bytes.drain(part(from, to))),
            Self::Repeat(from, to) if bytes.len() < LONGEST => bytes.extend_from_within(part(from, to)),
            Self::Repeat(..) => {}
            Self::Insert(place, more) => {
                let place = place.index(end);
                bytes.splice(place..place, more);
            }
            Self::Splice(other, from, to) => {
                let other = &others[other.index(others.len())].bytes;
                bytes.truncate(to.index(end));
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

/// Longer inputs are not made longer still.
const LONGEST: usize = 16 << 10;
