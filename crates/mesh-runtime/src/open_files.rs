//! How many files a process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard one, as Go's runtime does: the soft one is often 1024, for programs that use
/// `select`. Says so if it stays below `wanted`.
pub fn raise_limit(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    // No limit is enough for everybody.
    match limit {
        Some(limit) if limit < wanted => {
            warn!(
                limit,
                wanted,
                "few files may be open at a time: clients may be turned away; raise the limit (ulimit -n)"
            );
        }
        _ => debug!(limit, "files that may be open at a time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit(1);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
