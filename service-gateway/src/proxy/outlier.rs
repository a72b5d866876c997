//! Outlier detection: the report about a node at the end of an attempt.
//!
//! | an attempt | reports |
//! |---|---|
//! | has a response below 500 | a success |
//! | has a 5xx response | a failure |
//! | gets no connection | a connect failure, which ejects at once |
//! | gets no connection in time | a connect timeout |
//! | gets none for lack of descriptors, memory or ports on this host | nothing |
//! | breaks before the end of the response's head, or gets no HTTP | a failure |
//! | gets a response that can be read in two ways | a failure |
//! | finds that a pooled connection was closed before reuse | nothing |
//! | has no response at the deadline, and had the hedging delay for it | a timeout |
//! | has no response at the deadline, and began shortly before | nothing |
//! | has no response when another attempt has one below 500 in half the time or less | a timeout |
//! | has no response when another attempt has one after more time, or a 5xx | nothing |
//! | is given up since the client has disconnected or its body is incomplete | nothing |
//!
//! A node that waits for the rest of the client's body is not at fault: its attempt counts among the
//! node's failures if it broke, and does not lead to an ejection.
//!
//! A connect timeout is weaker evidence than a refused connection: a node whose backlog is full drops
//! connections, and responds to those that it has. So one does not eject, several in a row do.
//!
//! A lost hedge alone is no evidence: where all nodes are slow, the first attempt has its response
//! first, and where all of them wait for the same event, all respond at once. `discovery/src/ejection.rs` has what follows from several reports in a row.

use std::time::Duration;

use discovery::{Ejection, InFlight};

/// The end of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Response {
        is_error: bool,
    },
    Failed(FailureKind),
    Deadline {
        waited: Duration,
        enough: Duration,
    },
    Overtaken {
        waited: Duration,
        winner_took: Duration,
        by_error: bool,
    },
}

/// The kind of a [`Failure`](super::attempt::Failure), without its details.
#[derive(Clone, Copy, Debug)]
pub(super) enum FailureKind {
    NotConnected,
    ConnectTimeout,
    Local,
    NoResponse,
    ClosedBeforeReuse,
    AmbiguousFraming,
}

/// A report about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Success,
    Failure,
    Timeout,
    ConnectFailure,
    ConnectTimeout,
    /// A failure that was not the node's.
    Excused,
    Nothing,
}

impl End {
    pub(super) fn report(self, node_awaits_client: bool) -> Report {
        match self {
            Self::Response { is_error: false } => Report::Success,
            Self::Response { is_error: true } => Report::Failure,
            Self::Failed(FailureKind::NotConnected) => Report::ConnectFailure,
            Self::Failed(FailureKind::ConnectTimeout) => Report::ConnectTimeout,
            Self::Failed(FailureKind::NoResponse) if node_awaits_client => Report::Excused,
            Self::Failed(FailureKind::NoResponse | FailureKind::AmbiguousFraming) => {
                Report::Failure
            }
            Self::Failed(FailureKind::Local | FailureKind::ClosedBeforeReuse) => Report::Nothing,
            Self::Deadline { .. } | Self::Overtaken { .. } if node_awaits_client => Report::Nothing,
            Self::Deadline { waited, enough } if waited >= enough => Report::Timeout,
            Self::Overtaken {
                waited,
                winner_took,
                by_error: false,
            } if waited >= winner_took * 2 => Report::Timeout,
            Self::Deadline { .. } | Self::Overtaken { .. } => Report::Nothing,
        }
    }
}

impl Report {
    /// Records it for the node.
    pub(super) fn record(self, node: &InFlight) {
        match self {
            Self::Success => node.responded(true),
            Self::Failure => node.responded(false),
            Self::Timeout => node.timed_out(),
            Self::ConnectFailure => node.eject(Ejection::Unreachable),
            Self::ConnectTimeout => node.connect_timed_out(),
            Self::Excused => {}
            Self::Nothing => return,
        }
        node.ended(self == Self::Success);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_end_reports_as_in_the_table() {
        let deadline = |waited| End::Deadline {
            waited,
            enough: SECOND,
        };
        let overtaken = |waited, by_error| End::Overtaken {
            waited,
            winner_took: SECOND,
            by_error,
        };
        let response = |is_error| End::Response { is_error };
        // Of a node that does not wait for the client, and of one that does.
        for (end, reports) in [
            (response(false), [Report::Success; 2]),
            (response(true), [Report::Failure; 2]),
            (
                End::Failed(FailureKind::NotConnected),
                [Report::ConnectFailure; 2],
            ),
            (
                End::Failed(FailureKind::ConnectTimeout),
                [Report::ConnectTimeout; 2],
            ),
            (
                End::Failed(FailureKind::NoResponse),
                [Report::Failure, Report::Excused],
            ),
            (
                End::Failed(FailureKind::AmbiguousFraming),
                [Report::Failure; 2],
            ),
            (End::Failed(FailureKind::Local), [Report::Nothing; 2]),
            (
                End::Failed(FailureKind::ClosedBeforeReuse),
                [Report::Nothing; 2],
            ),
            (deadline(SECOND), [Report::Timeout, Report::Nothing]),
            (deadline(SECOND / 2), [Report::Nothing; 2]),
            (
                overtaken(SECOND * 2, false),
                [Report::Timeout, Report::Nothing],
            ),
            (overtaken(SECOND * 2, true), [Report::Nothing; 2]),
            (overtaken(SECOND * 3 / 2, false), [Report::Nothing; 2]),
            (overtaken(SECOND * 3 / 2, true), [Report::Nothing; 2]),
        ] {
            assert_eq!(
                [false, true].map(|awaits| end.report(awaits)),
                reports,
                "{end:?}"
            );
        }
    }
}
