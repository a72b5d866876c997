//! The command line and the environment, read into values that need no further checks.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::exit;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::http::Uri;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use discovery::{Balancer, Network, RegistryUrl};
use service_runtime::logging::{self, LogFormat};

use crate::Route;

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
    /// Exit with 0 if the instance at --admin-listen is healthy, else with 1
    Healthcheck,
}

/// How to serve. Every flag is an environment variable too.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Where to take requests; port 0 means any free port
    #[arg(
        long,
        env,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:8080",
        value_parser = ip_port
    )]
    pub listen: SocketAddr,

    /// Let other gateways of this user listen on the same ports (SO_REUSEPORT), so that a new one can
    /// start before the old one ends. Without, a port in use is an error
    #[arg(long, env, value_parser = switch)]
    pub reuse_port: bool,

    /// Where to show health, metrics and instances; never the same as --listen
    #[arg(
        long,
        env,
        global = true,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9090",
        value_parser = ip_port
    )]
    pub admin_listen: SocketAddr,

    /// Names of the admin port's host, such as gateway.example.com. Requests for another name with a dot in
    /// it are refused with 403, except /health and /ready, since a website can make its name lead here (DNS
    /// rebinding). Addresses, localhost and names without a dot need no flag. Repeatable
    #[arg(long = "admin-host", env = "ADMIN_HOST", value_name = "HOST", value_delimiter = ',', value_parser = host)]
    pub admin_hosts: Vec<String>,

    /// Let the dashboard drain nodes and release them again. A drained node gets no new requests from
    /// this gateway, nor does one that registers at its address later; when all are drained, requests are refused with 503 no_instance. For
    /// demonstrations: whoever can open the dashboard can do it
    #[arg(long, env, value_parser = switch)]
    pub admin_actions: bool,

    /// The registry to follow: etcd://HOST:PORT, more of them after commas, a /prefix for the keys if
    /// wanted; etcd+tls:// for TLS (?ca=FILE&cert=FILE&key=FILE), USER:PASSWORD@ before the host or
    /// USER@ with ?password-file=FILE; or consul://HOST:PORT (?token-file=FILE), or zookeeper:// with
    /// hosts and a prefix as for etcd
    #[arg(
        long,
        env,
        hide_env_values = true,
        value_name = "URL",
        default_value = "etcd://127.0.0.1:2379",
        value_parser = registry
    )]
    pub registry: RegistryUrl,

    /// PREFIX=SERVICE[?tag=value&…]: requests below the prefix go to nodes of the service, without
    /// the prefix; of several the longest counts. Repeatable
    #[arg(
        long = "route",
        env = "ROUTE",
        value_name = "ROUTE",
        default_value = "/greeter=greeter",
        value_delimiter = ','
    )]
    pub routes: Vec<Route>,

    /// Networks that nodes may be in; those listed elsewhere are skipped. Never link-local or multicast
    /// addresses, clouds' metadata services, the gateway's own addresses or the registry's
    #[arg(
        long,
        env,
        value_name = "NETWORKS",
        default_value = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7",
        value_delimiter = ','
    )]
    pub allow: Vec<Network>,

    /// Networks of proxies in front of the gateway, such as 10.0.0.0/8. Their X-Forwarded-Proto, -Host,
    /// -Port and -Prefix go on, and the client's address is read from their X-Forwarded-For; from all
    /// others such fields are dropped and set anew
    #[arg(long, env, value_name = "NETWORKS", value_delimiter = ',')]
    pub trust: Vec<Network>,

    /// How to choose among the nodes: round-robin, random, weighted (by the tag weight), ip-hash
    /// (by the client's address) or least-request
    #[arg(long, env, value_name = "NAME", default_value_t)]
    pub balancer: Balancer,

    /// How long a request waits for the head of its answer, all attempts together; a body that is
    /// still going on is waited for
    #[arg(long, env, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub timeout: Duration,

    /// How long connecting to one node may take. Long enough by default for a lost SYN to be sent again
    /// twice; after 250ms another node is tried too
    #[arg(long, env, value_name = "TIME", default_value = "4s", value_parser = time)]
    pub connect_timeout: Duration,

    /// How long a node may keep silent before a GET, HEAD or OPTIONS request goes to another one too, once;
    /// the first answer wins. Longer where responses usually take longer
    #[arg(long, env, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub hedge_after: Duration,

    /// What nodes are asked when they join, keep silent, or were ejected; any answer but 5xx is
    /// good. A node whose requests timed out, or whose answer is 5xx for ever, returns by a request. off:
    /// nobody is asked, and ejected nodes are tried again by requests
    #[arg(long, env, value_name = "PATH", default_value = "/health", value_parser = probe_path)]
    pub probe_path: ProbePath,

    /// How often ejected nodes are checked
    #[arg(long, env, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub probe_interval: Duration,

    /// How long to keep nodes after a mass removal from the registry (more than half of them at once): use
    /// the nodes' TTL
    #[arg(long, env, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub keep_unconfirmed: Duration,

    /// How long the head of a request may take, from the connection or the head's first byte on
    #[arg(long, env, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub head_timeout: Duration,

    /// How long a client may pause in the middle of the body it sends (less than 500 bytes a second
    /// count as a pause), or of the one it reads
    #[arg(long, env, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub client_timeout: Duration,

    /// How long a connection may be idle between two requests
    #[arg(long, env, value_name = "TIME", default_value = "75s", value_parser = time)]
    pub keep_alive: Duration,

    /// The largest body of a request, such as 1048576 or 64MiB; larger ones are refused with 413. off:
    /// as large as the nodes take them
    #[arg(long, env, value_name = "BYTES", default_value = "off", value_parser = size)]
    pub max_body: Size,

    /// The memory for request bodies that are held for a retry, of all requests together, such as
    /// 64MiB. Beyond it a body is streamed, and its request is not repeated once it is sent
    #[arg(long, env, value_name = "BYTES", default_value = "64MiB", value_parser = size)]
    pub held_bodies: Size,

    /// Connections served at once; on any further one the first request is refused with 503. Fewer
    /// if the process may not open two files for each
    #[arg(long, env, value_name = "N", default_value = "10000", value_parser = many)]
    pub max_connections: usize,

    /// Requests in flight at once; any further one is refused with 503
    #[arg(long, env, value_name = "N", default_value = "4096", value_parser = many)]
    pub max_in_flight: usize,

    /// How long an answer's body may pause before it is cut off, if the request's pauses too
    #[arg(long, env, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub idle_timeout: Duration,

    /// How often a request is sent at most, to one node after the other: 1 to 100
    #[arg(long, env, value_name = "N", default_value = "3", value_parser = attempts)]
    pub attempts: NonZeroUsize,

    /// How long to go on serving on SIGTERM, SIGINT, SIGHUP or SIGQUIT while /ready is 503 and each
    /// response asks the client to connect elsewhere: 0s to 10m. Then the port closes
    #[arg(long, env, value_name = "TIME", default_value = "2s", value_parser = drain)]
    pub drain: Duration,

    /// How long requests in flight may take to finish once the port is closed
    #[arg(long, env, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub shutdown_timeout: Duration,

    /// Write a line of JSON for each request to standard output, when its answer has ended: never with the query
    #[arg(long, env, value_parser = switch)]
    pub access_log: bool,

    /// How to write the log on standard error: text, or json with one object on each line
    #[arg(long, env, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// Threads that serve requests: 1 to 512, by default one for each core
    #[arg(long, env, value_name = "N", default_value_t = cores(), value_parser = workers)]
    pub workers: usize,
}

/// What nodes are asked for their health, if they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePath(pub Option<String>);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

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

    /// Refuses two routes with the same prefix, of which one would never be used.
    fn checked(self) -> Result<Self, clap::Error> {
        let mut prefixes = HashSet::new();
        let routes = &self.config.routes;
        match routes.iter().find(|route| !prefixes.insert(&route.prefix)) {
            None => Ok(self),
            Some(again) => {
                let text = format!("--route {again}: another route has this prefix");
                Err(Self::command().error(ErrorKind::ValueValidation, text))
            }
        }
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

/// The name of a host, without a port.
fn host(text: &str) -> Result<String, &'static str> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = !name.is_empty() && name.bytes().all(is_of_name);
    let name = is_name.then(|| name.to_owned());
    name.ok_or("expected the name of a host, such as gateway.example.com")
}

/// What the environment may say of a flag that has no value on the command line.
fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("expected true or false"),
    }
}

fn attempts(text: &str) -> Result<NonZeroUsize, &'static str> {
    let number = text.parse().ok();
    number
        .filter(|n: &NonZeroUsize| n.get() <= 100)
        .ok_or("expected a number from 1 to 100")
}

/// A duration such as `500ms` or `1m 30s`.
fn time(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(1)..=Duration::from_secs(86_400);
    let time = humantime::parse_duration(text)
        .ok()
        .filter(|time| allowed.contains(time));
    time.ok_or_else(|| "expected a time from 1ms to 1day, such as 10s".into())
}

fn drain(text: &str) -> Result<Duration, &'static str> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| *time <= Duration::from_secs(600))
        .ok_or("expected a time from 0s to 10m, such as 2s")
}

fn probe_path(text: &str) -> Result<ProbePath, String> {
    let uri: Option<Uri> = text.parse().ok();
    match uri {
        _ if text == "off" => Ok(ProbePath(None)),
        Some(uri) if text.starts_with('/') && uri.authority().is_none() => {
            Ok(ProbePath(Some(text.into())))
        }
        _ => Err("expected a path such as /health, or off".into()),
    }
}

fn size(text: &str) -> Result<Size, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let bytes = units.iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << bits)
    });
    match text {
        "off" => Ok(Size(u64::MAX)),
        _ => bytes
            .map(Size)
            .ok_or("expected a number of bytes, such as 1048576 or 64MiB, or off"),
    }
}

fn many(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok();
    number
        .filter(|n| (1..=1_000_000).contains(n))
        .ok_or("expected a number from 1 to 1000000")
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
