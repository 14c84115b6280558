//! What the hub wants of the objects of identities.
//!
//! ```text
//!   Exporter: numbers without an object ─┐
//!   Collector: objects that nobody uses ─┴─> wants, as they change ─> Registrar ─> API server
//! ```

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::time::Instant;
use topology::Identity;

use crate::export::Exporter;
use crate::finding::{Finding, Reason};
use crate::identity::Numbering;
use crate::identity::collector::Collector;
use crate::identity::registrar::{Problems, Registrar, Want};

/// What has been asked of the registrar.
#[derive(Debug)]
pub(super) struct Registering {
    registrar: Option<Registrar>,
    problems: watch::Receiver<Problems>,
    /// Keeps the receiver open while there is no registrar.
    _none: watch::Sender<Problems>,
    opened: BTreeMap<Identity, Want>,
    collected: BTreeMap<Identity, Want>,
    collector: Collector,
    next_look: Instant,
}

impl Registering {
    /// No registrar yet.
    pub(super) fn new(collector: Collector) -> Self {
        let (_none, problems) = watch::channel(Problems::new());
        let (opened, collected) = Default::default();
        let next_look = Instant::now() + collector.interval();
        Self { registrar: None, problems, _none, opened, collected, collector, next_look }
    }

    /// Asks this one from now on.
    pub(super) fn ask(&mut self, registrar: Registrar) {
        self.problems = registrar.problems();
        self.registrar = Some(registrar);
    }

    /// What does not work; changes with it.
    pub(super) fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    /// Whether numbers wait for their objects. Where the API server never makes any, nothing waits.
    pub(super) fn holds(&self, numbering: Numbering) -> bool {
        let problems = self.problems.borrow();
        let denied = ["create", "patch"].iter().any(|verb| problems.get(verb).is_some_and(|p| p.denied));
        numbering == Numbering::Objects && self.registrar.is_some() && !denied
    }

    /// Asks for the objects that are not as they are to be.
    pub(super) fn open(&mut self, exporter: &Exporter) {
        let Some(registrar) = &self.registrar else { return };
        let open: BTreeMap<Identity, Want> = exporter.open().collect();
        let used = |identity: &Identity| exporter.is_used(*identity);
        let used: Vec<Identity> = self.collected.keys().filter(|identity| used(identity)).copied().collect();
        for identity in used {
            self.collected.remove(&identity);
            registrar.want(identity, None);
        }
        for identity in self.opened.keys().filter(|identity| !open.contains_key(identity)) {
            registrar.want(*identity, None);
        }
        for (identity, want) in
            open.iter().filter(|(identity, want)| self.opened.get(identity) != Some(*want))
        {
            registrar.want(*identity, Some(want.clone()));
        }
        self.opened = open;
    }

    /// When to look for objects that nobody uses.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks for objects that nobody uses. `complete`: all pods are known.
    pub(super) fn collect(&mut self, exporter: &Exporter, complete: bool) {
        let now = Instant::now();
        self.next_look = now + self.collector.interval();
        let Some(registrar) = &self.registrar else { return };
        if !complete {
            self.collector.reset();
        }
        let due = match complete {
            true => self.collector.look(exporter.idle(), now),
            false => BTreeMap::new(),
        };
        for identity in self.collected.keys().filter(|identity| !due.contains_key(identity)) {
            registrar.want(*identity, None);
        }
        for (identity, want) in
            due.iter().filter(|(identity, want)| self.collected.get(identity) != Some(*want))
        {
            registrar.want(*identity, Some(want.clone()));
        }
        self.collected = due;
    }

    /// What does not work, one finding for each verb.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let problems = self.problems.borrow();
        let finding = |(verb, problem): (&&'static str, &crate::identity::registrar::Problem)| {
            let so = match (*verb, problem.denied) {
                ("delete", _) => "identities that nobody uses stay; tried again every 30 s or sooner",
                (_, true) => {
                    "the numbers of new identities are kept in the hub's store alone: losing it renumbers; tried again \
                     every 30 s"
                }
                (_, false) => {
                    "pods of new identities are published when it works; tried again every 30 s or sooner"
                }
            };
            Finding::error(Reason::IdentityObjects, "kind MeshIdentity")
                .found(format_args!("{verb}: {}", problem.text))
                .expected(
                    "ClusterRole rule {apiGroups: [\"isthmus.dev\"], resources: [meshidentities], verbs: [list, watch, create, \
                     patch, delete]}",
                )
                .so(so)
        };
        problems.iter().map(finding).collect()
    }
}
