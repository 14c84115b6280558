//! Stopping, asked for once and seen by everyone.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The request to stop. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A shutdown that only [`Shutdown::request`] brings about; for tests and for parts of a process.
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that the first SIGTERM or SIGINT brings about. The second one ends the process at once, with
    /// exit code 130: whoever sends it has stopped waiting.
    ///
    /// Fails if the signal handlers cannot be installed. Must be called within a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let token = shutdown.token.clone();
        tokio::spawn(async move {
            loop {
                // Both arms only receive, so losing the race loses nothing.
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if token.is_cancelled() {
                    warn!(signal = name, "second signal, exiting at once");
                    std::process::exit(130);
                }
                info!(signal = name, "shutting down");
                token.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether somebody has asked to stop.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until somebody asks to stop. Cancel-safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}
