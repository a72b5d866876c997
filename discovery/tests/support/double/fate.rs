use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

/// Decides what goes wrong. By default nothing does.
#[derive(Default)]
pub(crate) struct Fate {
    random: Option<Rng>,
    scripted: VecDeque<(Call, Outcome)>,
    watches: VecDeque<(End, usize)>,
    renewals: VecDeque<(End, usize)>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
    Range,
    Txn,
    Grant,
    Revoke,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    /// Done, and the answer is an error.
    Lost,
    /// Done, and the answer takes this long.
    Late(Duration),
}

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Never,
    /// It ends as if all had been said.
    Over,
    Failed,
    /// A watch is cancelled and silent afterwards; a lease is said to be gone.
    Withdrawn,
    Silent,
}

impl Fate {
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            random: Some(Rng::with_seed(seed)),
            ..Self::default()
        }
    }

    pub(crate) fn script(&mut self, call: Call, outcome: Outcome) {
        self.scripted.push_back((call, outcome));
    }

    /// Decides on the next watch, and after how many messages.
    pub(crate) fn script_watch(&mut self, end: End, messages: usize) {
        self.watches.push_back((end, messages));
    }

    /// Decides on the next stream of renewals, and after how many of them.
    pub(crate) fn script_renewals(&mut self, end: End, renewals: usize) {
        self.renewals.push_back((end, renewals));
    }

    /// Whether all that was scripted has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.scripted.is_empty()
    }

    pub(crate) fn outcome(&mut self, call: Call) -> Outcome {
        let mut scripted = self.scripted.iter();
        if let Some(index) = scripted.position(|(scripted, _)| *scripted == call) {
            let (_, outcome) = self.scripted.remove(index).expect("it was found there");
            return outcome;
        }
        let Some(random) = &mut self.random else {
            return Outcome::Done;
        };
        match random.u8(0..20) {
            0..=1 => Outcome::Refused,
            2..=3 => Outcome::Lost,
            4 => Outcome::Late(Duration::from_millis(random.u64(1..500))),
            5 => Outcome::Late(Duration::from_secs(60)), // longer than anybody waits
            _ => Outcome::Done,
        }
    }

    /// How a watch ends, and after how many messages.
    pub(crate) fn watch_end(&mut self) -> (End, usize) {
        let scripted = self.watches.pop_front();
        scripted.unwrap_or_else(|| self.end())
    }

    /// How a stream of renewals ends, and after how many of them.
    pub(crate) fn renewals_end(&mut self) -> (End, usize) {
        let scripted = self.renewals.pop_front();
        scripted.unwrap_or_else(|| self.end())
    }

    /// How a stream ends, and after how many messages.
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
