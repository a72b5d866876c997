//! The limit of open files ([getrlimit(2)][1], `RLIMIT_NOFILE`).
//!
//! Most systems start a process with a soft limit of 1 024, for the sake of programs that use
//! `select(2)`, and with a far higher hard limit. A server needs a descriptor for each connection.
//!
//! [1]: https://man7.org/linux/man-pages/man2/getrlimit.2.html

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns the new limit.
///
/// # Errors
/// If the system refuses; the limit stays as it was.
pub fn raise_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(limit())
}

/// Returns the limit of open files; `u64::MAX` without one.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = Rlimit {
            current: Some(limit() - 1),
            maximum: hard,
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        assert_eq!(raise_limit().unwrap(), hard.unwrap_or(u64::MAX));
        assert_eq!(limit(), hard.unwrap_or(u64::MAX));
    }
}
