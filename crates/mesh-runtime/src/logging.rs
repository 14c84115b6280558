//! Log output: one line an event on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends events to standard error from now on, filtered by the environment variable `RUST_LOG`, or by `filter`
/// where that is not set. A second call changes nothing.
///
/// Fails if `filter` is no filter.
pub fn init(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => EnvFilter::try_new(&text)
            .or_else(|_: tracing_subscriber::filter::ParseError| EnvFilter::try_new(filter))?,
        Err(_) => EnvFilter::try_new(filter)?,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber is already installed");
    }
    Ok(())
}
