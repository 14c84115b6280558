//! The tasks of a process: each has a name, and none may end unnoticed.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::{debug, warn};

use crate::shutdown::Shutdown;

/// A set of named tasks that live as long as the process.
#[derive(Debug)]
pub struct TaskSet {
    shutdown: Shutdown,
    names: HashMap<Id, &'static str>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Why a process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task failed.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// What it returned.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// A task returned although nobody had asked it to stop.
    #[error("task {task} ended although no shutdown was requested")]
    EndedEarly {
        /// Its name.
        task: &'static str,
    },
    /// Tasks were still running when the time to drain was over; they were aborted.
    #[error("still running after {after:?}: {}", tasks.join(", "))]
    Overdue {
        /// Their names.
        tasks: Vec<&'static str>,
        /// The time they had.
        after: Duration,
    },
}

impl TaskSet {
    /// An empty set whose tasks end when `shutdown` is requested.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, names: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Starts a task. It should end, with `Ok`, when the shutdown is requested, and not before.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until the shutdown is requested and every task has ended. A task that ends before that, however it
    /// ends, requests the shutdown itself, and its error is returned when the others have ended.
    ///
    /// Tasks that have not ended `drain` after the request are aborted; that is an error too.
    pub async fn run(mut self, drain: Duration) -> Result<(), TaskError> {
        let mut outcome = Ok(());
        loop {
            // `join_next_with_id` and `requested` are cancel-safe.
            let ended = tokio::select! {
                ended = self.tasks.join_next_with_id() => ended,
                () = self.shutdown.requested() => break,
            };
            let Some(ended) = ended else { break };
            // A task may have seen the request before we did.
            let early = self.judge(ended, self.shutdown.is_requested());
            if early.is_err() {
                outcome = early;
                self.shutdown.request();
                break;
            }
        }
        let deadline = tokio::time::sleep(drain);
        tokio::pin!(deadline);
        while !self.tasks.is_empty() {
            let ended = tokio::select! {
                ended = self.tasks.join_next_with_id() => ended,
                () = &mut deadline => {
                    let mut tasks: Vec<_> = self.names.values().copied().collect();
                    tasks.sort_unstable();
                    self.tasks.abort_all();
                    return outcome.and(Err(TaskError::Overdue { tasks, after: drain }));
                }
            };
            let Some(ended) = ended else { break };
            let late = self.judge(ended, true);
            if let Err(error) = &late {
                warn!(error = %crate::Chain(error), "task ended badly while shutting down");
            }
            outcome = outcome.and(late);
        }
        outcome
    }

    fn judge(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
        stopping: bool,
    ) -> Result<(), TaskError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let task = self.names.remove(&id).expect("every task of the set was spawned with a name");
        match ended {
            Ok((_, Ok(()))) if stopping => {
                debug!(task, "task ended");
                Ok(())
            }
            Ok((_, Ok(()))) => Err(TaskError::EndedEarly { task }),
            Ok((_, Err(error))) => Err(TaskError::Failed { task, source: error.into() }),
            Err(error) => Err(TaskError::Panicked { task, message: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn tasks_end_when_asked() {
        let shutdown = Shutdown::new();
        let mut tasks = TaskSet::new(shutdown.clone());
        let inner = shutdown.clone();
        tasks.spawn("waiter", async move {
            inner.requested().await;
            Ok(())
        });
        shutdown.request();
        assert!(tasks.run(DRAIN).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ended_on_request_did_not_end_early() {
        for _ in 0..100 {
            let shutdown = Shutdown::new();
            let mut tasks = TaskSet::new(shutdown.clone());
            tasks.spawn("quick", async { Ok(()) });
            shutdown.request();
            tokio::task::yield_now().await;
            assert!(tasks.run(DRAIN).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_end_stops_the_others() {
        let shutdown = Shutdown::new();
        let mut tasks = TaskSet::new(shutdown.clone());
        let inner = shutdown.clone();
        tasks.spawn("waiter", async move {
            inner.requested().await;
            Ok(())
        });
        tasks.spawn("brief", async { Err(anyhow::anyhow!("no more disk")) });
        let error = tasks.run(DRAIN).await.expect_err("brief failed");
        assert_eq!(crate::Chain(&error).to_string(), "task brief failed: no more disk");
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn ending_well_but_early_is_an_error() {
        let mut tasks = TaskSet::new(Shutdown::new());
        tasks.spawn("brief", async { Ok(()) });
        assert!(matches!(tasks.run(DRAIN).await, Err(TaskError::EndedEarly { task: "brief" })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_named() {
        let shutdown = Shutdown::new();
        let mut tasks = TaskSet::new(shutdown.clone());
        tasks.spawn("stubborn", std::future::pending());
        shutdown.request();
        let error = tasks.run(DRAIN).await.expect_err("it never ends");
        assert_eq!(error.to_string(), "still running after 5s: stubborn");
    }
}
