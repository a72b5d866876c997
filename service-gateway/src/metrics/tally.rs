use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::versions::{Number, OTHER, VERSIONS};
use crate::error::Reason;

/// The bounds of the buckets that latencies are counted in, in microseconds: from a fast local
/// answer to the default timeout.
pub(super) const BUCKETS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How requests are counted by status: by its first digit, and some by the whole of it.
pub(super) const CODES: [&str; 8] = ["1xx", "2xx", "3xx", "4xx", "5xx", "502", "503", "504"];

/// The first of [`CODES`] that is a failure.
pub(super) const FAILURES: usize = 4;

/// To whom an answer counts. To begin with: no route took the request, and no node answered it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    pub(super) service: usize,
    pub(super) version: Number,
}

/// What may happen on the way of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// It was sent to a node.
    Attempt,
    /// That was another node, after an attempt that failed, or beside one that had no connection for too
    /// long.
    Retry,
    /// That was a second node, beside one that keeps silent.
    Hedge,
    /// There would have been another attempt, had the budget allowed it.
    BudgetRefusal,
}

/// What one worker counts. It locks, formats and allocates nothing, and shares no cache line with
/// other workers: a number has one writer, and whoever wants to know adds up those of all workers.
pub(crate) struct Tally {
    counts: Arc<Counts>,
    /// Keeps it on its thread.
    one_writer: PhantomData<Rc<()>>,
}

/// The numbers of one worker. 128 is two cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counts {
    pub(super) steps: [AtomicU64; 4],
    /// In the order of [`Reason::ALL`].
    pub(super) refusals: [AtomicU64; Reason::ALL.len()],
    pub(super) services: Box<[ServiceCounts]>,
}

#[derive(Debug)]
#[repr(align(128))]
pub(super) struct ServiceCounts {
    /// By version, and by status as in [`CODES`].
    requests: [[AtomicU64; CODES.len()]; VERSIONS],
    /// Which version that is: one that got the number later counts from zero.
    generations: [AtomicU64; VERSIONS],
    /// Requests to versions whose number another one has got.
    gone: [AtomicU64; CODES.len()],
    /// The last bucket has no bound.
    pub(super) latencies: [AtomicU64; BUCKETS.len() + 1],
    pub(super) nanoseconds: AtomicU64,
}

impl Counts {
    pub(super) fn new(services: usize) -> Self {
        let service = || ServiceCounts {
            requests: [const { [const { AtomicU64::new(0) }; CODES.len()] }; VERSIONS],
            generations: [const { AtomicU64::new(0) }; VERSIONS],
            gone: [const { AtomicU64::new(0) }; CODES.len()],
            latencies: [const { AtomicU64::new(0) }; BUCKETS.len() + 1],
            nanoseconds: AtomicU64::new(0),
        };
        Self {
            steps: [const { AtomicU64::new(0) }; 4],
            refusals: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            services: std::iter::repeat_with(service).take(services).collect(),
        }
    }
}

impl ServiceCounts {
    /// The counters of a version, by the one worker that writes here. A version that has given its
    /// number back in the meantime is counted with the others.
    fn of_version(&self, version: Number) -> &[AtomicU64; CODES.len()] {
        let generation = &self.generations[version.index];
        match generation.load(Ordering::Relaxed) {
            known if known == version.generation => &self.requests[version.index],
            known if known > version.generation => &self.requests[OTHER],
            _ => {
                let counters = &self.requests[version.index];
                for (counter, gone) in counters.iter().zip(&self.gone) {
                    add(gone, counter.swap(0, Ordering::Relaxed));
                }
                generation.store(version.generation, Ordering::Release);
                counters
            }
        }
    }

    /// What was counted of a version. None of it is another's, even while the worker goes on.
    pub(super) fn requests(&self, version: Number) -> [u64; CODES.len()] {
        let generation = &self.generations[version.index];
        let is_its = || generation.load(Ordering::Acquire) == version.generation;
        if !is_its() {
            return Default::default();
        }
        let counters = self.requests[version.index].each_ref();
        let counts = counters.map(|counter| counter.load(Ordering::Acquire));
        if is_its() { counts } else { Default::default() }
    }

    /// Requests whose status has this place in [`CODES`], to all versions that there were.
    pub(super) fn of_code(&self, code: usize) -> u64 {
        let counters = self.requests.iter().chain([&self.gone]);
        let counts = counters.map(|codes| codes[code].load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

fn code(status: u16) -> usize {
    match status {
        502..=504 => CODES.len() - 3 + usize::from(status - 502),
        _ => usize::from(status / 100).clamp(1, 5) - 1,
    }
}

impl Tally {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            one_writer: PhantomData,
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, to: Served, status: u16, took: Duration) {
        let service = &self.counts.services[to.service];
        add(&service.of_version(to.version)[code(status)], 1);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| bound * 1000 < nanoseconds);
        add(&service.latencies[bucket], 1);
        add(&service.nanoseconds, nanoseconds);
    }

    /// The gateway itself answered.
    pub(crate) fn refused(&self, reason: Reason) {
        add(&self.counts.refusals[reason as usize], 1);
    }

    pub(crate) fn count(&self, step: Step) {
        add(&self.counts.steps[step as usize], 1);
    }
}

/// With one writer, no addition gets lost between reading and writing, and that is several times
/// as fast as an atomic addition.
fn add(counter: &AtomicU64, more: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(more);
    counter.store(sum, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::Instant;

    #[test]
    fn a_bucket_includes_its_bound() {
        let tally = Tally::new(Arc::new(Counts::new(1)));
        for microseconds in [0, 500, 501, 10_000_000, 10_000_001] {
            tally.answered(Served::default(), 200, Duration::from_micros(microseconds));
        }
        let service = &tally.counts.services[0];
        let counted = |bucket: usize| service.latencies[bucket].load(Ordering::Relaxed);
        assert_eq!([0, 1, 13, 14].map(counted), [2, 1, 1, 1]);
        assert_eq!(service.nanoseconds.load(Ordering::Relaxed), 20_001_002_000);
    }

    #[test]
    fn a_status_of_no_class_is_counted_with_the_nearest() {
        let tally = Tally::new(Arc::new(Counts::new(1)));
        for status in [99, 101, 200, 501, 502, 504, 504, 505, 599, 999] {
            tally.answered(Served::default(), status, Duration::ZERO);
        }
        let counted = tally.counts.services[0].requests(Number::default());
        assert_eq!(counted, [2, 1, 0, 0, 4, 1, 0, 2]);
    }

    #[test]
    fn a_number_given_again_counts_from_zero() {
        let tally = Tally::new(Arc::new(Counts::new(1)));
        let version = |index, generation| Number { index, generation };
        let (old, new) = (version(5, 1), version(5, 2));
        let answered = |version| {
            let served = Served {
                service: 0,
                version,
            };
            tally.answered(served, 200, Duration::ZERO);
        };
        let service = &tally.counts.services[0];
        let counted = |version| service.requests(version)[1];
        (0..3).for_each(|_| answered(old));
        assert_eq!([old, new].map(counted), [3, 0]);
        answered(new);
        answered(old); // a late response
        assert_eq!([old, new, version(OTHER, 0)].map(counted), [0, 1, 1]);
        assert_eq!(service.of_code(1), 5, "none is lost");
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p service-gateway counting_costs -- --ignored --nocapture"]
    fn counting_costs_nanoseconds() {
        const ROUNDS: u32 = 10_000_000;
        let service = "greeter".parse().unwrap();
        let metrics = super::super::Metrics::new([&service]);
        let (tally, mut served) = (metrics.tally(), Served::default());
        let began = Instant::now();
        for round in 0..ROUNDS {
            metrics.went_to(&mut served, black_box(&service));
            metrics.came_from(&mut served, black_box(Some("v2")));
            tally.count(Step::Attempt);
            tally.answered(served, black_box(200), Duration::from_nanos(round.into()));
        }
        println!("{:?} for one request", began.elapsed() / ROUNDS);
    }
}
