//! The command line and the environment, read into values that need no further checks.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::process::exit;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use discovery::{RegistryUrl, ServiceName, ServiceNode, Tags};
use service_runtime::logging::{self, LogFormat};

use crate::Advertise;

/// The command line.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do, if not to serve.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to serve.
    #[command(flatten)]
    pub config: Config,
}

/// What else than serving can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Exit with 0 if the instance at --listen is healthy, else with 1
    Healthcheck,
}

/// How to serve. Every flag is an environment variable too.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Where to take requests; port 0 means any free port
    #[arg(
        long,
        env,
        global = true,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:0",
        value_parser = ip_port
    )]
    pub listen: SocketAddr,

    /// Where others reach this instance; port 0 means the port it listens on. By default the
    /// address of --listen, or if that stands for all addresses, the local one of a connection to
    /// the registry
    #[arg(long, env, value_name = "HOST:PORT")]
    pub advertise: Option<Advertise>,

    /// The registry to be listed in: etcd://HOST:PORT, more of them after commas, a /prefix for the
    /// keys if wanted; etcd+tls:// for TLS (?ca=FILE&cert=FILE&key=FILE), USER:PASSWORD@ before the
    /// host or USER@ with ?password-file=FILE; or consul://HOST:PORT (?token-file=FILE), or
    /// zookeeper:// with hosts and a prefix as for etcd, or memory: for one in this process
    #[arg(
        long,
        env,
        hide_env_values = true,
        value_name = "URL",
        default_value = "etcd://127.0.0.1:2379",
        value_parser = registry
    )]
    pub registry: RegistryUrl,

    /// The name of the service to be listed under
    #[arg(long, env, value_name = "NAME", default_value = "greeter")]
    pub service: ServiceName,

    /// What this instance says of itself: version=v1, region=cn, weight=5 (1 to 1000). Repeatable,
    /// or several separated by commas; of two values of one key the last counts
    #[arg(long = "tag", env = "TAG", value_name = "KEY=VALUE", value_parser = tags)]
    pub tags: Vec<Tags>,

    /// How long a dead instance stays listed: 2s (etcd's least) to 1h
    #[arg(long, env, value_name = "TIME", default_value = "10s", value_parser = ttl)]
    pub ttl: Duration,

    /// How long to go on serving after leaving the registry, so that those who still know this
    /// instance do not run into a closed port: 0s to 10m
    #[arg(long, env, value_name = "TIME", default_value = "2s", value_parser = drain)]
    pub drain: Duration,

    /// How to write the log on standard error: text, or json with one object on each line
    #[arg(long, env, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// Threads that serve requests: 1 to 512, by default one for each core
    #[arg(long, env, value_name = "N", default_value_t = cores(), value_parser = workers)]
    pub workers: usize,
}

impl Cli {
    /// Reads the process's arguments and environment. Where they are wrong, ends it: exit code 2,
    /// and one line that says what is wrong and what is allowed.
    pub fn read() -> Self {
        let checked = Self::try_parse().and_then(Self::checked);
        checked.unwrap_or_else(|error| match error.exit_code() {
            0 => error.exit(), // --help and --version
            code => {
                logging::print_error(&message(error));
                exit(code)
            }
        })
    }

    /// Refuses what those who read the registry would refuse, such as too many tags.
    fn checked(self) -> Result<Self, clap::Error> {
        let node = self.config.node(([127, 0, 0, 1], 1).into());
        match ServiceNode::from_json(node.to_json().as_bytes()) {
            Ok(_) => Ok(self),
            Err(error) => {
                let text = format!("--tag: {error}");
                Err(Self::command().error(ErrorKind::ValueValidation, text))
            }
        }
    }
}

impl Config {
    /// What is listed in the registry, for an instance that others reach at `address`.
    pub fn node(&self, address: SocketAddr) -> ServiceNode {
        let mut tags = Tags::new();
        for (key, value) in self.tags.iter().flat_map(Tags::iter) {
            tags.insert(key, value).expect("it was a tag before");
        }
        ServiceNode::new(self.service.clone(), address).with_tags(tags)
    }
}

/// Returns what is wrong, without the URL of a registry: a password may be in it. It may also stand where
/// another flag's value or no value is expected, and clap repeats it, as does that flag's parser.
fn message(mut error: clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let (flag, value) = (
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    );
    let is_registry = flag.starts_with("--registry");
    if !is_registry && RegistryUrl::may_be(&value) {
        let value = RegistryUrl::redact(&value);
        return format!("error: invalid value '{value}' for '{flag}'");
    }
    let redacted = |(kind, value): (ContextKind, &ContextValue)| match value {
        ContextValue::String(text)
            if RegistryUrl::may_be(text) || (is_registry && kind == ContextKind::InvalidValue) =>
        {
            Some((kind, RegistryUrl::redact(text)))
        }
        _ => None,
    };
    let redacted: Vec<_> = error.context().filter_map(redacted).collect();
    for (kind, text) in redacted {
        error.insert(kind, ContextValue::String(text));
    }
    one_line(&error)
}

/// What clap says in its first paragraph. The usage and the like follow in more of them.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let words: Vec<_> = what.split_whitespace().collect();
    let more = match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => "",
        _ => ", see --help",
    };
    words.join(" ") + more
}

/// The URL of a registry that this build has.
fn registry(text: &str) -> Result<RegistryUrl, discovery::Error> {
    let url = text.parse()?;
    discovery::connect(&url)?; // which takes no server
    Ok(url)
}

fn ip_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "expected an address and a port, such as 0.0.0.0:8080 or [::]:8080")
}

/// Tags that other programs will take as they are meant.
fn tags(text: &str) -> Result<Tags, String> {
    let tags: Tags = text
        .parse()
        .map_err(|error: discovery::ParseError| error.to_string())?;
    let sound = |weight: &str| weight.parse().is_ok_and(|n: u16| (1..=1000).contains(&n));
    if tags.get("weight").is_some_and(|weight| !sound(weight)) {
        return Err("expected a weight from 1 to 1000".into());
    }
    Ok(tags)
}

fn ttl(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_secs(2)..=Duration::from_secs(3600))
}

fn drain(text: &str) -> Result<Duration, String> {
    time(text, Duration::ZERO..=Duration::from_secs(600))
}

/// A duration such as `10s` or `1m 30s`.
fn time(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| allowed.contains(time)).ok_or_else(|| {
        let [least, most] =
            [allowed.start(), allowed.end()].map(|d| humantime::format_duration(*d));
        format!("expected a time from {least} to {most}, such as 10s")
    })
}

/// actix-web panics outside of this range.
fn workers(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    number
        .filter(|n| (1..=512).contains(n))
        .ok_or_else(|| "expected a number from 1 to 512".into())
}

fn cores() -> usize {
    available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(512)
}
