use std::fmt;

use actix_web::http::header::Accept;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

const PREFIX: &str = "gateway";

/// In which format numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/), version 1.0.0.
    OpenMetrics,
    /// The [older text format](https://prometheus.io/docs/instrumenting/exposition_formats/), which
    /// everybody reads.
    Text,
}

/// All numbers of one moment. Each metric is written as it comes: with a thousand services the numbers
/// of all of them take many times the memory of their text.
pub(super) struct Page {
    text: String,
    format: Format,
}

/// A metric, as a table: what is counted, and for each set of labels how much of it.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
pub(super) enum Value {
    Count(u64),
    Level(u64),
    /// The sum in seconds, and the buckets with their bounds.
    Latencies(f64, Vec<(f64, u64)>),
}

impl Format {
    /// The one that comes first in what somebody accepts.
    pub(crate) fn wanted(accept: &Accept) -> Self {
        let wanted = accept
            .ranked()
            .into_iter()
            .find_map(|kind| match kind.essence_str() {
                "application/openmetrics-text" => Some(Self::OpenMetrics),
                "text/plain" | "text/*" | "*/*" => Some(Self::Text),
                _ => None,
            });
        wanted.unwrap_or(Self::Text)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        let text = String::new();
        Self { text, format }
    }

    /// A counter's name gets `_total` at its end.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let begin = self.text.len();
        let samples = samples.into_iter().map(|(l, n)| (l, Value::Count(n)));
        self.add(name, help, MetricType::Counter, samples.collect());
        if self.format == Format::Text {
            // There a counter and its only series have the same name.
            for comment in ["HELP", "TYPE"] {
                let line = format!("# {comment} {PREFIX}_{name}");
                let found = self.text[begin..].find(&line);
                let at = begin + found.expect("both were written") + line.len();
                self.text.insert_str(at, "_total");
            }
        }
    }

    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, n)| (l, Value::Level(n)));
        self.add(name, help, MetricType::Gauge, samples.collect());
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: Vec<(Labels, Value)>,
    ) {
        self.add(name, help, MetricType::Histogram, samples);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        samples: Vec<(Labels, Value)>,
    ) {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Family {
            name,
            help,
            kind,
            samples,
        }));
        encode_registry(&mut self.text, &registry).expect("writing to a String does not fail");
    }

    /// The numbers of the process, which are text already.
    pub(super) fn process(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The text, whose end is marked in the newer format.
    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            encode_eof(&mut self.text).expect("writing to a String does not fail");
        }
        self.text
    }
}

impl Collector for Family {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (labels, value) in &self.samples {
            match labels.is_empty() {
                true => value.encode(&mut metric)?,
                false => value.encode(&mut metric.encode_family(labels)?)?,
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => metric.encode_counter::<NoLabelSet, _, f64>(count, None),
            Self::Level(level) => metric.encode_gauge(level),
            Self::Latencies(sum, buckets) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }
}
