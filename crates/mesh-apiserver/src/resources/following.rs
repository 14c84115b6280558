//! What the hub itself does with `ClusterPeer` objects: those who follow peers are told, and what became of it is said of
//! each object.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_resources::condition::{ENFORCED, FOLLOWED, PUBLISHED, Statement};
use tokio::sync::watch;
use tokio::time::timeout;
use topology::ClusterName;

use super::decide::{Decision, Followed, Judged};
use super::follow::Seen;
use super::material::Materials;
use crate::peers::{FromObjects, Input, Standing, Standings, objects};

/// Tells those who follow peers, and hears from them.
#[derive(Clone, Debug)]
pub struct Following {
    /// Where this hub's certificate for peers is; `None` if it does not follow objects, whose pauses then count all the same.
    tls_dir: Option<PathBuf>,
    said: Arc<watch::Sender<FromObjects>>,
    standings: watch::Receiver<Standings>,
}

impl Following {
    /// Tells by `said`; `tls_dir` has the certificate with which the hub goes to peers, if it follows objects.
    pub fn new(
        tls_dir: Option<PathBuf>,
        said: Arc<watch::Sender<FromObjects>>,
        standings: watch::Receiver<Standings>,
    ) -> Self {
        Self { tls_dir, said, standings }
    }

    /// The objects are to be read anew: another replica may have known better.
    pub fn begin(&self) {
        self.said.send_modify(|from| {
            from.said.is_read = false;
            from.said.trouble = None;
        });
    }

    /// Whether the hub follows objects.
    pub fn follows(&self) -> bool {
        self.tls_dir.is_some()
    }

    /// Waits for news of how peers are followed. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.standings.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells what the objects say.
    pub fn say<K>(&self, seen: &Seen<K>, decision: &Decision, materials: &Materials) {
        self.said.send_if_modified(|from| {
            let mut said = from.said.clone();
            said.is_read = decision.filters.is_known;
            let denied = seen.trouble.as_ref().filter(|trouble| trouble.class.is_denial());
            said.trouble = denied.filter(|_| !said.is_read).map(|trouble| trouble.text.clone());
            if said.is_read {
                said.paused.clone_from(&decision.paused);
                said.problems.clear();
                let before = std::mem::take(&mut said.configs);
                let tls_dir = self.tls_dir.iter();
                for (tls_dir, (cluster, (object, followed))) in
                    tls_dir.flat_map(|dir| decision.followed.iter().map(move |entry| (dir, entry)))
                {
                    let config = match (followed, materials.get(cluster)) {
                        (Followed::Anew(peer), Some(Ok(material))) => {
                            Ok(objects::config(object, peer, material, tls_dir))
                        }
                        (Followed::Anew(_), Some(Err(problem))) => Err(problem.clone()),
                        _ => Err("the object has no meaning at present".to_owned()),
                    };
                    match config {
                        Ok(config) => drop(said.configs.insert(cluster.clone(), config)),
                        Err(problem) => {
                            let before = before.get(cluster).cloned();
                            said.configs.extend(before.map(|config| (cluster.clone(), config)));
                            said.problems.insert(cluster.to_string(), problem);
                        }
                    }
                }
            }
            let differs = said != from.said;
            if differs {
                *from = FromObjects { number: from.number + 1, said };
            }
            differs
        });
    }

    /// Adds to the decision how each peer is followed. Waits until what was said is taken up; not for ever.
    pub async fn answer(&mut self, decision: &mut Decision) {
        if self.tls_dir.is_none() {
            return;
        }
        let FromObjects { number, said } = self.said.borrow().clone();
        let taken = timeout(PATIENCE, self.standings.wait_for(|standings| standings.number >= number)).await;
        let is_taken = taken.is_ok_and(|taken| taken.is_ok());
        let standings = self.standings.borrow_and_update().clone();
        for (cluster, (object, _)) in &decision.followed {
            let standing = standings.peers.get(cluster).filter(|_| is_taken);
            let problem = said.problems.get(cluster.as_str());
            if let Some(judged) = decision.peers.get_mut(object) {
                judged.statements.push(followed(cluster, standing, problem));
            }
        }
    }
}

/// How a peer is followed, in words.
fn followed(cluster: &ClusterName, standing: Option<&Standing>, problem: Option<&String>) -> Statement {
    let say = |holds, reason, message: String| Statement::new(FOLLOWED, holds, reason, message);
    let Some(standing) = standing else {
        return say(false, "Waiting", "the other inputs of peers have not been read yet".to_owned());
    };
    if standing.input != Input::Objects {
        let from = &standing.from;
        let message = format!(
            "{from} names cluster {cluster}, too, and counts: nothing that this object says about it"
        );
        return say(false, "Conflict", message);
    }
    if let Some(problem) = problem {
        let so =
            if standing.link.is_some() { "the hub follows the peer as before" } else { "it is not followed" };
        return say(false, "AsBefore", format!("{problem}; {so}"));
    }
    match &standing.link {
        None => say(false, "Waiting", "the other inputs of peers have not been read yet".to_owned()),
        Some((word, reason)) => {
            let (holds, name) = match *word {
                "fresh" => (true, "Fresh"),
                "syncing" => (true, "Syncing"),
                "stale" => (false, "Stale"),
                "refused" => (false, "Refused"),
                _ => (false, "Joining"),
            };
            let message = reason.clone().unwrap_or_else(|| match holds {
                true => format!("the hub of cluster {cluster} is followed"),
                false => (*word).to_owned(),
            });
            say(holds, name, message)
        }
    }
}

/// Whether what bounds a peer is in force with all who follow it; `None` if nothing does. To be asked last: it reads what is
/// said of the hub and of the agents' Secret.
pub fn enforced(judged: &Judged, agents: Option<&str>) -> Option<Statement> {
    if judged.bounds.is_empty() {
        return None;
    }
    let bounds = judged.bounds.join(", ");
    let said = |kind| judged.statements.iter().find(|said| said.kind == kind);
    let (mut by, mut not_by): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    match said(FOLLOWED) {
        // A connection that is lost unbinds nothing.
        Some(said) if matches!(said.reason, "Conflict" | "AsBefore" | "Waiting") => {
            not_by.push(format!("this hub ({FOLLOWED} is {})", said.reason));
        }
        Some(_) => by.push("this hub, on what it writes into endpoint slices".to_owned()),
        None => {}
    }
    match (said(PUBLISHED), agents) {
        (Some(said), Some(secret)) if said.holds => by.push(format!(
            "agents of this version, as soon as their mount of Secret {secret} has it (Cilium's pass it over)"
        )),
        (Some(said), Some(secret)) => {
            not_by.push(format!("agents that mount Secret {secret} ({PUBLISHED} is {})", said.reason));
        }
        _ => {}
    }
    let statement = match (by.is_empty(), not_by.is_empty()) {
        (true, true) => Statement::new(
            ENFORCED,
            false,
            "NotFollowed",
            format!(
                "{bounds}: nobody follows the peer by this object; the hub does with --peers-objects, agents with --agent-peers-secret"
            ),
        ),
        (false, true) => Statement::new(
            ENFORCED,
            true,
            "Enforced",
            format!("{bounds}: every record is held against it by {}", by.join("; and by ")),
        ),
        (by_nobody, false) => {
            let not = format!("{bounds}: not by {}", not_by.join(", nor by "));
            let but = if by_nobody { String::new() } else { format!("; by {}", by.join("; and by ")) };
            Statement::new(ENFORCED, false, if by_nobody { "NotEnforced" } else { "InPart" }, not + &but)
        }
    };
    Some(statement)
}

/// Time for those who follow peers to take up what was said.
const PATIENCE: Duration = Duration::from_secs(5);
