//! What must survive, done for real: a table with a line for each fault. `scripts/faults.sh` builds
//! what it needs and runs it.
//!
//! A fault is a function with its name. It starts etcd, greeters and a gateway, puts a load on
//! them, does what its name says, and returns what it counted and whether that will do.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use load::Tally;
use testing::etcd::Etcd;

mod attempts;
mod backend;
mod bodies;
mod clock;
mod cluster;
mod crowd;
mod descriptors;
mod framing;
mod half_open;
mod headers;
mod held;
mod hung;
mod limits;
mod logs;
mod missed;
mod node;
mod nodes;
mod quiet;
mod refused_heads;
mod registry;
mod replaced;
mod running;
mod scale;
mod sick;
mod smuggling;
mod soak;
mod stand_in;
mod system;
mod unconfirmed;

use backend::Backend;

/// Runs faults against the real system, and tells which of them it survives.
#[derive(Debug, Parser)]
struct Cli {
    /// These faults only; all of them without
    names: Vec<String>,

    /// One of each kind, in less than four minutes
    #[arg(long, conflicts_with = "long")]
    quick: bool,

    /// Those too that take many minutes each
    #[arg(long)]
    long: bool,

    /// Say what there is
    #[arg(long)]
    list: bool,

    /// The registry it happens to. With another than etcd: what every registry has to survive
    #[arg(long, value_enum, default_value = "etcd")]
    registry: Registry,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Registry {
    Etcd,
    Consul,
    #[cfg(feature = "zookeeper")]
    Zookeeper,
}

/// What was counted, and whether it holds.
struct Verdict {
    /// None if it could not be tried here.
    held: Option<bool>,
    counted: Vec<String>,
}

impl Verdict {
    fn new(held: bool) -> Self {
        Self {
            held: Some(held),
            counted: Vec::new(),
        }
    }

    fn left_out(why: impl Display) -> Self {
        let counted = vec![why.to_string()];
        Self {
            held: None,
            counted,
        }
    }

    fn counted(self, tally: &Tally) -> Self {
        for failure in tally.failures() {
            eprintln!("  failed: {failure}");
        }
        self.note(format!(
            "{} requests, {} failed",
            tally.answered() + tally.failed(),
            tally.failed()
        ))
    }

    /// Says on the side what was otherwise than it should be.
    fn listing(self, wrong: &[String]) -> Self {
        for wrong in wrong.iter().take(9) {
            eprintln!("  wrong: {wrong:.500}");
        }
        self
    }

    fn note(mut self, what: impl Display) -> Self {
        self.counted.push(what.to_string());
        self
    }
}

struct Fault {
    name: String,
    what: String,
    size: Size,
    /// Whether it happens to every registry, or to etcd alone.
    everywhere: bool,
    run: fn() -> LocalBoxFuture<'static, anyhow::Result<Verdict>>,
}

/// In which runs a fault is, if it is not named.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    /// In all of them.
    Quick,
    /// In all but `--quick`.
    Usual,
    /// With `--long` only.
    Long,
}

macro_rules! faults {
    ($($kind:ident::$name:ident $(<$backend:ident>)? $what:literal $($size:ident)?;)*) => {
        [$(Fault {
            name: stringify!($name).replace("etcd", B::SCHEME),
            what: $what.replace("etcd", B::SCHEME),
            size: [$(Size::$size,)? Size::Usual][0],
            everywhere: [$(stringify!($backend),)? ""][0] != "",
            run: || $kind::$name$(::<$backend>)?().boxed_local(),
        }),*]
    };
}

/// What happens to everything on a registry of this kind.
fn all<B: Backend>() -> impl Iterator<Item = Fault> {
    faults! {
        nodes::killed<B> "kill -9 of one of three" Quick;
        nodes::scaled_down<B> "SIGTERM of four of five, one by one";
        nodes::scaled_up<B> "3, 10, 3 nodes";
        nodes::rolling<B> "v1 replaced by v2, one at a time" Quick;
        nodes::frozen "SIGSTOP of one of three, SIGCONT later" Quick;
        nodes::sick "one of three answers 500 to everything" Quick;
        nodes::all_sick "all of three do";
        hung::hung "one of three responds to health checks only, for 30 s" Quick;
        hung::hung_posts "the same under POST alone, without health checks";
        hung::hung_then_well "one of three does so for 30 s, then works";
        hung::slow_for_all "every node needs 4 s for each request";
        hung::unsafe_hedge "PUT and DELETE that take 1.5 s";
        hung::budget_apart "one service hangs, another one has a frozen node";
        hung::drained_stays "a drained node restarts, changes its tags, loses its lease";
        hung::health_liar "a node works, and its /health is 503";
        nodes::dead_entries "50 dead addresses beside 3 live nodes" Quick;
        nodes::same_address<B> "a successor on a dead node's address";
        attempts::retry_storm "every second connect fails on all nodes";
        attempts::reuse_race "kept connections end when they are used again";
        scale::gone_nodes "300 nodes come and go, four times";
        quiet::quiet<B> "no change in etcd for 20 s" Quick;
        registry::etcd_down<B> "etcd away for four times to live";
        registry::etcd_frozen<B> "etcd frozen for three times to live";
        registry::etcd_half_open<B> "bytes to and from etcd swallowed for three times to live";
        registry::etcd_wiped<B> "etcd replaced by an empty one" Quick;
        missed::etcd_compacted "history compacted while the watch is cut";
        missed::relist "the watch loses the news of a deletion" Long;
        cluster::etcd_cluster "of three members: leader killed, follower frozen, quorum lost";
        registry::key_deleted<B> "all keys deleted, the leases alive";
        registry::lease_revoked<B> "all leases revoked" Quick;
        registry::cold_start<B> "services first, etcd later" Quick;
        unconfirmed::unconfirmed "most nodes vanish from the list at once, then all";
        registry::junk<B> "junk in keys and values" Quick;
        registry::thousand<B> "1 000 nodes in the list, one more, and one less";
        crowd::many "10 000 nodes, 1 000 changes a second for a minute";
        scale::many_gateways "100 watchers, etcd away for a while";
        clock::clock "wall clock set an hour ahead, back, and right";
        framing::framing "odd and broken answers among good ones";
        bodies::cut_body "nodes die in the middle of a body" Quick;
        bodies::early_answer "413 in mid-upload; clients gone in mid-body";
        bodies::full_duplex "16 MiB echoed while they are sent";
        bodies::big "1 GiB down, 1 GiB up";
        smuggling::smuggling "requests that can be read in two ways" Quick;
        refused_heads::refused_heads "400, 414 and 431 at the head" Quick;
        logs::blocked_log "stderr is a pipe that nothing reads, 500 malformed entries" Quick;
        logs::log_forging "control characters in keys, tags, paths and header values";
        logs::access_log_full "the access log's file system is full for a while";
        headers::headers "headers of one connection, forged, repeated";
        soak::soak "10 minutes of nodes that come and go" Long;
        limits::overload "five times what it can do";
        held::held_bodies "4000 bodies to a node that takes them and does not respond";
        half_open::half_open_client "the links of clients and of a node are cut" Long;
        descriptors::descriptors "1200 idle clients, a limit of 1024 and of 64 open files";
        replaced::gateway_replaced "the gateway replaced three times, beside idle connections" Quick;
        replaced::hup "SIGUSR1, SIGUSR2, SIGHUP to a greeter and the gateway" Quick;
        limits::slow_clients "2000 slow heads, bodies and readers, 400 a second";
    }
    .into_iter()
    .filter(|fault| fault.everywhere || B::SCHEME == Etcd::SCHEME)
}

#[actix_web::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.registry {
        Registry::Etcd => run::<Etcd>(&cli).await,
        Registry::Consul => run::<backend::consul::Consul>(&cli).await,
        #[cfg(feature = "zookeeper")]
        Registry::Zookeeper => run::<backend::zookeeper::ZooKeeper>(&cli).await,
    }
}

async fn run<B: Backend>(cli: &Cli) -> ExitCode {
    let unknown = |name: &&String| !all::<B>().any(|fault| fault.name == name.as_str());
    if let Some(unknown) = cli.names.iter().find(unknown) {
        eprintln!("error: no fault is called {unknown}; --list says what there is");
        return ExitCode::from(2);
    }
    let wanted = |fault: &Fault| match cli.names.is_empty() {
        true => match fault.size {
            Size::Quick => true,
            Size::Usual => !cli.quick,
            Size::Long => cli.long,
        },
        false => cli.names.contains(&fault.name),
    };
    let mut fell_short = 0;
    println!("| fault | what happens | what was counted | | s |\n|---|---|---|---|---|");
    for fault in all::<B>().filter(wanted) {
        if cli.list {
            println!("| {} | {} | | | |", fault.name, fault.what);
            continue;
        }
        let began = Instant::now();
        let (counted, held) = match AssertUnwindSafe((fault.run)()).catch_unwind().await {
            Ok(Ok(verdict)) => (verdict.counted.join("; "), verdict.held),
            Ok(Err(error)) => (format!("{error:#}"), Some(false)),
            Err(_) => ("an assertion failed, see above".to_owned(), Some(false)),
        };
        fell_short += usize::from(held == Some(false));
        let held = match held {
            Some(true) => "ok",
            Some(false) => "NOT OK",
            None => "left out",
        };
        let took = seconds(began.elapsed());
        println!(
            "| {} | {} | {counted} | {held} | {took} |",
            fault.name, fault.what
        );
    }
    ExitCode::from(u8::from(fell_short > 0))
}

fn seconds(time: Duration) -> u64 {
    time.as_secs()
}
