use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What became of one request.
pub(crate) struct Answer {
    /// Who answered, its version, and how many nodes were asked; or why that is a failure.
    pub(crate) outcome: Result<(String, String, u32), String>,
    pub(crate) took: Duration,
}

/// What became of all requests, since the beginning and in the last second.
pub(crate) struct Tally {
    began: Instant,
    total: Window,
    second: Window,
}

#[derive(Default)]
struct Window {
    answers: BTreeMap<(String, String), u64>,
    failures: BTreeMap<String, u64>,
    retried: u64,
    /// In microseconds, and whether the answer was good.
    latencies: Vec<(u32, bool)>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            total: Window::default(),
            second: Window::default(),
        }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, answer: Answer) {
        self.second.add(&answer);
        self.total.add(&answer);
    }

    pub(crate) fn answered(&self) -> u64 {
        self.total.answered()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.total.failed()
    }

    /// How many answers came from whom, and of which version.
    pub(crate) fn answers(&self, of: impl Fn(&str, &str) -> bool) -> u64 {
        let answers = self.total.answers.iter();
        answers
            .filter(|((instance, version), _)| of(instance, version))
            .map(|(_, count)| count)
            .sum()
    }

    /// The failures, each kind with its number.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.total
            .failures
            .iter()
            .map(|(reason, count)| format!("{count} × {reason}"))
    }

    /// What so many percent of the good answers, or of the failures, took at most, in milliseconds.
    pub(crate) fn percentile(&self, percent: f64, good: bool) -> f64 {
        self.total.percentile(percent, |is_good| is_good == good)
    }

    /// The last second in a line, and the next second begins.
    pub(crate) fn live_line(&mut self) -> String {
        let second = std::mem::take(&mut self.second);
        let shares = second.answers.iter().map(|((instance, version), count)| {
            let (host, port) = instance.rsplit_once(':').unwrap_or_default();
            let distinct = if host == "127.0.0.1" { port } else { host };
            format!("{version}:{distinct} {count}")
        });
        let shares: Vec<_> = shares.take(8).collect();
        format!(
            "{:>4}s {:>6}/s  {} failed  p99 {:>5.1} ms  {}",
            self.began.elapsed().as_secs(),
            second.answered(),
            self.failed(),
            second.percentile(99.0, |_| true),
            shares.join("  ")
        )
    }
}

impl Window {
    fn add(&mut self, answer: &Answer) {
        match &answer.outcome {
            Ok((instance, version, attempts)) => {
                *self
                    .answers
                    .entry((instance.clone(), version.clone()))
                    .or_default() += 1;
                self.retried += u64::from(*attempts > 1);
            }
            Err(reason) => *self.failures.entry(reason.clone()).or_default() += 1,
        }
        let micros = u32::try_from(answer.took.as_micros()).unwrap_or(u32::MAX);
        self.latencies.push((micros, answer.outcome.is_ok()));
    }

    fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// In milliseconds, 0 if there was no request.
    fn percentile(&self, percent: f64, counts: impl Fn(bool) -> bool) -> f64 {
        let counted = self.latencies.iter().filter(|(_, good)| counts(*good));
        let mut sorted: Vec<_> = counted.map(|(micros, _)| *micros).collect();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        let micros = sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        f64::from(micros) / 1000.0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        let answered = total.answered();
        for ((instance, version), count) in &total.answers {
            let share = 100.0 * *count as f64 / answered as f64;
            writeln!(
                f,
                "  {instance:<21} {version:<8} {count:>8} answers  {share:>5.1} %"
            )?;
        }
        for (reason, count) in &total.failures {
            writeln!(f, "  {count:>8} FAILED: {reason}")?;
        }
        writeln!(
            f,
            "  {answered} answered, {} failed, {} after another attempt, in {:.1} s",
            total.failed(),
            total.retried,
            self.began.elapsed().as_secs_f64()
        )?;
        let [p50, p99, max] =
            [50.0, 99.0, 100.0].map(|percent| total.percentile(percent, |_| true));
        writeln!(
            f,
            "  latency: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
        )
    }
}
