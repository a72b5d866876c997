use std::fmt;

use actix_web::http::header::Accept;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
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

/// All numbers of one moment.
#[derive(Debug)]
pub(super) struct Page(pub(super) Vec<Family>);

/// A metric, as a table: what is counted, and for each set of labels how much of it.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) samples: Vec<(Labels, Value)>,
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
    pub(super) fn write(self, format: Format) -> String {
        let counter = |family: &Family| matches!(family.kind, MetricType::Counter);
        let counters = self.0.iter().filter(|family| counter(family));
        let counters: Vec<_> = counters.map(|family| family.name).collect();
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a String does not fail");
        match format {
            Format::OpenMetrics => text,
            Format::Text => older(text, &counters),
        }
    }
}

/// In the older format a counter and its only series have the same name, and nothing marks the end.
fn older(mut text: String, counters: &[&str]) -> String {
    for name in counters {
        for comment in ["HELP", "TYPE"] {
            let line = format!("# {comment} {PREFIX}_{name}");
            text = text.replace(&format!("{line} "), &format!("{line}_total "));
        }
    }
    text.truncate(text.trim_end_matches("# EOF\n").len());
    text
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = self.0.iter();
        families.try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
