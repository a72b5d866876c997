use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The result of one request.
pub struct Answer {
    /// The instance that responded, its version, and the number of attempts; or the failure.
    pub outcome: Result<(String, String, u32), String>,
    /// The time from when it was due to the end of its response.
    pub took: Duration,
}

/// The results of all requests, in total and in the last second.
pub struct Tally {
    began: Instant,
    total: Window,
    second: Window,
}

#[derive(Default)]
struct Window {
    answers: BTreeMap<(String, String), u64>,
    failures: BTreeMap<String, u64>,
    retried: u64,
    /// Microseconds, and true for a successful request.
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
    /// Counts the result of one request.
    pub fn add(&mut self, answer: Answer) {
        self.second.add(&answer);
        self.total.add(&answer);
    }

    /// Returns the number of successful requests.
    pub fn answered(&self) -> u64 {
        self.total.answered()
    }

    /// Returns the number of failed requests.
    pub fn failed(&self) -> u64 {
        self.total.failed()
    }

    /// Counts the responses of the instances and versions for which `of` returns true.
    pub fn answers(&self, of: impl Fn(&str, &str) -> bool) -> u64 {
        let answers = self.total.answers.iter();
        answers
            .filter(|((instance, version), _)| of(instance, version))
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns each kind of failure with its number.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.total
            .failures
            .iter()
            .map(|(reason, count)| format!("{count} × {reason}"))
    }

    /// Returns a percentile of the latency in milliseconds: of successful requests, or of failed ones.
    pub fn percentile(&self, percent: f64, good: bool) -> f64 {
        self.total.percentile(percent, |is_good| is_good == good)
    }

    /// Returns a line about the last second, and begins the next second.
    pub fn live_line(&mut self) -> String {
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

    /// Returns milliseconds, 0 if there was no request.
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
