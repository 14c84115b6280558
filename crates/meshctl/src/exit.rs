//! From an outcome to what the operator sees and what a script tests.

use std::io::Write;
use std::process::ExitCode;

use pki::authority::AuthorityError;

/// Refused by a rule, and nothing was changed: every reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused: {}", .0.join("; "))]
pub(crate) struct Refused(pub(crate) Vec<String>);

/// Something that was to be checked is wrong; it was said already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not as it should be")]
pub(crate) struct Unsound;

/// Prints an error with its causes; tells refusals by a rule from failures.
pub(crate) fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if let Some(Refused(reasons)) = error.downcast_ref() {
        for reason in reasons {
            eprintln!("refused: {reason}");
        }
        return ExitCode::from(REFUSED);
    }
    if error.is::<Unsound>() {
        return ExitCode::from(REFUSED);
    }
    match error.downcast_ref::<AuthorityError>() {
        Some(AuthorityError::Refused { refusals }) => {
            for refusal in refusals {
                eprintln!("refused: {refusal}");
            }
            ExitCode::from(REFUSED)
        }
        _ => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a result to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

const REFUSED: u8 = 3;
