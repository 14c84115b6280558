//! What a command gives: a sentence for people, or one JSON object for scripts.

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::print;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people: sentences or aligned columns
    #[default]
    #[value(alias = "table")]
    Text,
    /// One JSON object; fields are only ever added
    Json,
}

impl Output {
    /// Prints a result in this form.
    pub(super) fn print(self, json: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self {
            Self::Text => print(&text()),
            Self::Json => print(&serde_json::to_string_pretty(json)?),
        }
    }
}
