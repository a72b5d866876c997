use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

/// Decides which requests and streams fail, and how. By default none does.
#[derive(Default)]
pub struct Script {
    random: Option<Rng>,
    calls: VecDeque<(Call, Outcome)>,
    watches: VecDeque<(End, usize)>,
    renewals: VecDeque<(End, usize)>,
}

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// Reads keys.
    Range,
    /// Compares and writes a key.
    Txn,
    /// Grants a lease.
    Grant,
    /// Revokes a lease.
    Revoke,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Executed.
    Done,
    /// Not executed: the response is an error.
    Refused,
    /// Executed, but the response is an error.
    Lost,
    /// Executed, with a response after this time.
    Late(Duration),
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// It does not end.
    Never,
    /// It ends without an error.
    Over,
    /// It ends with an error.
    Failed,
    /// A watch is cancelled and silent afterwards; a lease is reported to have ended.
    Withdrawn,
    /// It stays open without a further message.
    Silent,
}

impl Script {
    /// Returns one that fails at random.
    pub(super) fn of(seed: u64) -> Self {
        Self {
            random: Some(Rng::with_seed(seed)),
            ..Self::default()
        }
    }

    /// Decides on the next request of this kind.
    pub fn call(&mut self, call: Call, outcome: Outcome) {
        self.calls.push_back((call, outcome));
    }

    /// Decides how the next watch ends, after this number of messages.
    pub fn watch(&mut self, end: End, messages: usize) {
        self.watches.push_back((end, messages));
    }

    /// Decides how the next stream of renewals ends, after this number of them.
    pub fn renewals(&mut self, end: End, renewals: usize) {
        self.renewals.push_back((end, renewals));
    }

    /// Returns true once every scripted request has been made.
    pub fn is_done(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the outcome of a request.
    pub(super) fn outcome(&mut self, call: Call) -> Outcome {
        let mut scripted = self.calls.iter();
        if let Some(index) = scripted.position(|(scripted, _)| *scripted == call) {
            let (_, outcome) = self.calls.remove(index).expect("it was found there");
            return outcome;
        }
        let Some(random) = &mut self.random else {
            return Outcome::Done;
        };
        match random.u8(0..20) {
            0..=1 => Outcome::Refused,
            2..=3 => Outcome::Lost,
            4 => Outcome::Late(Duration::from_millis(random.u64(1..500))),
            5 => Outcome::Late(Duration::from_secs(60)), // longer than any client waits
            _ => Outcome::Done,
        }
    }

    /// Returns how a watch ends, and after how many messages.
    pub(super) fn watch_end(&mut self) -> (End, usize) {
        let scripted = self.watches.pop_front();
        scripted.unwrap_or_else(|| self.end())
    }

    /// Returns how a stream of renewals ends, and after how many of them.
    pub(super) fn renewals_end(&mut self) -> (End, usize) {
        let scripted = self.renewals.pop_front();
        scripted.unwrap_or_else(|| self.end())
    }

    /// Returns how a stream ends, and after how many messages.
    fn end(&mut self) -> (End, usize) {
        let Some(random) = &mut self.random else {
            return (End::Never, usize::MAX);
        };
        let ends = [End::Over, End::Failed, End::Withdrawn, End::Silent];
        match random.u8(0..3) {
            0 => (End::Never, usize::MAX),
            _ => (ends[random.usize(..ends.len())], random.usize(0..8)),
        }
    }
}
