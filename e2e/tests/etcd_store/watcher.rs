//! Debian's `etcdctl` as a client that watches, and what it has been told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A change, as told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) key: String,
    pub(crate) revision: u64,
    /// Empty for a deletion.
    pub(crate) value: String,
    pub(crate) deleted: bool,
}

/// A client that watches all services of the cluster from the first revision on. It resumes by itself.
pub(crate) struct Watcher {
    name: String,
    child: Child,
    out: PathBuf,
    errors: PathBuf,
}

impl Watcher {
    /// Starts a command that writes what it is told, one response a line.
    pub(crate) fn start(name: &str, mut command: Command, dir: PathBuf) -> Result<Self> {
        let file = name.replace(' ', "-");
        let (out, errors) = (dir.join(format!("{file}.json")), dir.join(format!("{file}.err")));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&errors)?);
        let child = command.spawn().context("start etcdctl (Debian package etcd-client)")?;
        Ok(Self { name: name.to_owned(), child, out, errors })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it has complained about, for a failure.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// All that it was told, in order. Each response is of whole revisions, and none goes back.
    pub(crate) fn told(&self) -> Result<Vec<Told>> {
        let text = fs::read_to_string(&self.out)?;
        let mut all = Vec::new();
        // The last line may be half written.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let response: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(response["CompactRevision"].as_u64().unwrap_or(0) == 0, "told to list anew: {line}");
            for event in response["Events"].as_array().into_iter().flatten() {
                all.push(told(event)?);
            }
        }
        Ok(all)
    }

    /// The values of the counter, in the order in which they were told.
    pub(crate) fn counters(&self) -> Result<Vec<u64>> {
        Ok(self.told()?.iter().filter_map(counter).collect())
    }

    pub(crate) fn last_counter(&self) -> Result<Option<u64>> {
        Ok(self.counters()?.last().copied())
    }

    /// Fails unless it was told exactly this.
    pub(crate) fn is_exactly(&self, truth: &[Told]) -> Result<()> {
        let told = self.told()?;
        let differs = told.iter().zip(truth).position(|(told, truth)| told != truth);
        ensure!(
            differs.is_none() && told.len() == truth.len(),
            "{} was told {} changes, etcd has {}; the first other one: {:?}, {:?}",
            self.name,
            told.len(),
            truth.len(),
            differs.map(|at| &told[at]).or_else(|| told.get(truth.len())),
            differs.map(|at| &truth[at]).or_else(|| truth.get(told.len())),
        );
        ensure!(
            told.windows(2).all(|pair| pair[0].revision <= pair[1].revision),
            "{}: out of order",
            self.name
        );
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The value of the counter in a change of it.
pub(crate) fn counter(told: &Told) -> Option<u64> {
    let value: Value =
        told.key.ends_with("/shop/counter").then(|| serde_json::from_str(&told.value).ok())??;
    value["labels"]["n"].as_str()?.parse().ok()
}

/// What there is after these changes: the label `n` of each service.
pub(crate) fn state(told: &[Told]) -> Result<BTreeMap<String, String>> {
    let mut state = BTreeMap::new();
    for change in told {
        if change.deleted {
            state.remove(&change.key);
        } else {
            let value: Value = serde_json::from_str(&change.value).with_context(|| change.value.clone())?;
            let n = value["labels"]["n"].as_str().with_context(|| change.value.clone())?;
            state.insert(change.key.clone(), n.to_owned());
        }
    }
    Ok(state)
}

fn told(event: &Value) -> Result<Told> {
    let kv = &event["kv"];
    let text = |field: &str| -> Result<String> {
        let encoded = kv[field].as_str().unwrap_or_default();
        String::from_utf8(STANDARD.decode(encoded).context("base64")?).context("text")
    };
    Ok(Told {
        key: text("key")?,
        revision: kv["mod_revision"].as_u64().with_context(|| format!("no revision: {event}"))?,
        value: text("value")?,
        deleted: event["type"] == 1,
    })
}
