//! An error with all of its causes on one line.

use std::error::Error;
use std::fmt;

/// Displays an error and, after `: ` each, the causes below it.
///
/// Our errors describe one layer each and leave the cause to `source()`, so a plain `{error}` shows only the
/// outermost one: `warn!(error = %Chain(&error), "…")`.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read trust bundle {path}")]
    struct Read {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn causes_follow_on_the_same_line() {
        let error = Read { path: "/tls/ca.crt", source: std::io::Error::other("disk on fire") };
        assert_eq!(Chain(&error).to_string(), "read trust bundle /tls/ca.crt: disk on fire");
    }
}
