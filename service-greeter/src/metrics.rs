use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service_runtime::{logging, process};

/// The bounds of the buckets that latencies are counted in, in microseconds.
const BUCKETS: [u64; 8] = [
    100, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000,
];

/// What all workers together answered, for [Prometheus][1].
///
/// [1]: https://prometheus.io/docs/instrumenting/exposition_formats/
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By the first digit of the status, 1 to 5.
    requests: [AtomicU64; 5],
    /// The last bucket has no bound.
    latencies: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Metrics {
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| bound * 1000 < nanoseconds);
        self.latencies[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Everything, in the text format 0.0.4.
    pub(crate) fn text(&self, registered: bool) -> String {
        let head = |name: &str, kind: &str, help: &str| {
            format!("# HELP greeter_{name} {help}\n# TYPE greeter_{name} {kind}\n")
        };
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].iter();
        let requests = classes.zip(&self.requests).map(|(class, count)| {
            let count = count.load(Ordering::Relaxed);
            format!("greeter_requests_total{{code=\"{class}\"}} {count}\n")
        });
        [
            head("requests_total", "counter", "Requests answered"),
            requests.collect(),
            head(
                "request_duration_seconds",
                "histogram",
                "Time to the head of the answer",
            ),
            self.latencies(),
            head("registered", "gauge", "1 while this instance is listed"),
            format!("greeter_registered {}\n", u8::from(registered)),
            head(
                "log_lines_dropped_total",
                "counter",
                "Lines of the program's own log that standard error did not take in time",
            ),
            format!(
                "greeter_log_lines_dropped_total {}\n",
                logging::dropped_lines()
            ),
            head(
                "build_info",
                "gauge",
                "The version of this program, always 1",
            ),
            format!(
                "greeter_build_info{{version=\"{}\"}} 1\n",
                env!("CARGO_PKG_VERSION")
            ),
            process::metrics(false),
        ]
        .concat()
    }

    fn latencies(&self) -> String {
        let bounds = BUCKETS
            .iter()
            .map(|bound| (*bound as f64 / 1e6).to_string())
            .chain(["+Inf".to_owned()]);
        let mut so_far = 0;
        let buckets = bounds.zip(&self.latencies).map(|(bound, count)| {
            so_far += count.load(Ordering::Relaxed);
            format!("greeter_request_duration_seconds_bucket{{le=\"{bound}\"}} {so_far}\n")
        });
        let buckets: String = buckets.collect();
        let seconds = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        format!(
            "{buckets}greeter_request_duration_seconds_sum {seconds}\n\
             greeter_request_duration_seconds_count {so_far}\n"
        )
    }
}
