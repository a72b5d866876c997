//! How the process's open files are divided among clients, nodes and everything else.
//!
//! A gateway without a free descriptor accepts nothing, reaches no node and no registry, and its
//! admin port hangs. So none of its parts may take all: what is reserved for the admin port, the
//! registry and health checks is never used for clients or nodes.

use anyhow::ensure;
use log::warn;

use crate::Config;

/// Connections that the admin port accepts.
pub(crate) const ADMIN_CONNECTIONS: usize = 64;

/// Descriptors for the admin port, for health checks (64 at once), for the registry, and for what the
/// process has open anyway.
const RESERVED: usize = ADMIN_CONNECTIONS + 64 + 64 + 32;

/// Descriptors that the runtime of each worker has open.
const RESERVED_PER_WORKER: usize = 8;

/// Connections over the limit that are accepted, to refuse a request on them with 503. More wait in
/// the backlog.
const MAX_OVER_LIMIT: usize = 1024;

/// Below this a gateway does not start: it could serve next to nothing.
const LEAST: usize = 64;

/// The most that may be open of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// Clients' connections that are served.
    pub(crate) clients: usize,
    /// Clients' connections beyond these, which are refused.
    pub(crate) over_limit: usize,
    /// Connections to nodes, idle ones included.
    pub(crate) upstream: usize,
}

impl Descriptors {
    /// Divides `limit` descriptors. Where they do not suffice for `--max-connections` clients and a
    /// connection to a node for each request in flight, a warning is logged and the two share what
    /// is there.
    ///
    /// # Errors
    /// If there are too few for anything.
    pub(crate) fn divide(limit: u64, config: &Config) -> anyhow::Result<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let reserved = RESERVED + RESERVED_PER_WORKER * config.workers;
        let available = limit.saturating_sub(reserved);
        ensure!(
            available >= LEAST,
            "the limit of open files is {limit}, at least {} are needed: raise it (ulimit -n)",
            reserved + LEAST
        );
        let divided = Self::share(available, config);
        if divided.clients < config.max_connections {
            warn!(
                limit, max_connections = divided.clients, wanted = config.max_connections;
                "the limit of open files is too low for --max-connections"
            );
        }
        Ok(divided)
    }

    fn share(available: usize, config: &Config) -> Self {
        let in_flight = config.max_in_flight.min(config.max_connections);
        let needed = config.max_connections + MAX_OVER_LIMIT + in_flight;
        let (clients, over_limit) = if needed <= available {
            (config.max_connections, MAX_OVER_LIMIT)
        } else {
            let over_limit = (available / 8).min(MAX_OVER_LIMIT);
            let half = (available - over_limit) / 2;
            (half.min(config.max_connections), over_limit)
        };
        Self {
            clients,
            over_limit,
            upstream: available - clients - over_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Cli;

    fn divide(limit: u64, flags: &str) -> anyhow::Result<Descriptors> {
        let flags = flags.split_whitespace();
        let arguments = ["gateway", "--workers", "2"].into_iter().chain(flags);
        Descriptors::divide(limit, &Cli::parse_from(arguments).config)
    }

    #[test]
    fn enough_descriptors_change_no_limit() {
        for limit in [u64::MAX, 1 << 20, 16_000] {
            let divided = divide(limit, "").unwrap();
            assert_eq!(divided.clients, 10_000);
            assert!(divided.upstream >= 4096);
        }
        assert_eq!(
            divide(4096, "--max-connections 1000").unwrap().clients,
            1000
        );
    }

    #[test]
    fn clients_and_nodes_share_what_is_there() {
        for limit in [304, 1024, 4096, 12_000] {
            let divided = divide(limit, "").unwrap();
            let Descriptors {
                clients,
                over_limit,
                upstream,
            } = divided;
            let reserved = RESERVED + 2 * RESERVED_PER_WORKER;
            assert_eq!(clients + over_limit + upstream + reserved, limit as usize);
            assert!(
                clients >= 28 && upstream >= clients && over_limit > 0,
                "{divided:?}"
            );
        }
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many_are_needed() {
        let error = divide(64, "").unwrap_err().to_string();
        let expected =
            "the limit of open files is 64, at least 304 are needed: raise it (ulimit -n)";
        assert_eq!(error, expected);
    }
}
