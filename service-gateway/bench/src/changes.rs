//! How soon a change in etcd is felt, and what very many nodes and services cost.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use awc::Client;
use discovery::ServiceNode;
use etcd_client::{Txn, TxnOp};
use testing::Directory;
use testing::etcd::Etcd;
use testing::process::Process;
use testing::usage::Usage;
use tokio::time::{MissedTickBehavior, interval, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Nodes that join and leave, one after the other.
const SAMPLES: usize = 200;

/// How far apart changes are: of many in a row, the gateway takes what comes in 20 ms at once.
const APART: Duration = Duration::from_millis(50);

/// The time for which many nodes change, a thousand times a second, and the changes in one transaction.
const CHANGING: Duration = Duration::from_secs(20);
const AT_ONCE: usize = 20;

/// Prints as Markdown how soon a change is felt.
pub(crate) async fn felt_in() -> anyhow::Result<()> {
    println!("### From a change in etcd to the requests\n");
    println!("| | p50 ms | p99 ms | max ms |\n|---|---|---|---|");
    let [joined, left] = felt().await?;
    row("put, until the first request on the new node", joined);
    row("deleted, until the last request on the old one", left);
    Ok(())
}

/// Prints as Markdown what very many nodes cost.
pub(crate) async fn nodes() -> anyhow::Result<()> {
    println!("\n### Many nodes\n");
    println!(
        "| | first answer after ms | all known after ms | RSS MiB | with 1 000 changes/s: % of a core | RSS MiB |\n|---|---|---|---|---|---|"
    );
    for (services, nodes) in [(1, 10_000), (1000, 10)] {
        println!("{}", Crowd { services, nodes }.cost().await?);
    }
    Ok(())
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let [p50, p99, most] = [50, 99, 100].map(|percent| at(percent).as_secs_f64() * 1000.0);
    println!("| {what} | {p50:.1} | {p99:.1} | {most:.1} |");
}

/// One node after the other joins and leaves, and four stay. All are one greeter: Linux has all of
/// 127.0.0.0/8.
async fn felt() -> anyhow::Result<[Vec<Duration>; 2]> {
    let (etcd, directory) = (Etcd::start().await, Directory::new()?);
    let greeter = greeter(&directory).await?;
    let port = greeter.address.port();
    let system = Running::start(&etcd, &directory, "/s0=s0").await?;
    etcd.put_all((1..5).map(|number| entry(0, number, port, "stays")))
        .await;
    system.until_answered("/s0/greet/Ada", "n=stays").await?;
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let tag = format!("n=s{sample}");
        let (key, value) = entry(0, 10 + sample, port, &tag[2..]);
        sleep(APART).await;
        etcd.put(&key, value).await;
        let put = Instant::now();
        system.until_answered("/s0/greet/Ada", &tag).await?;
        joined.push(put.elapsed());
        sleep(APART).await;
        etcd.delete(&key).await;
        let deleted = Instant::now();
        let mut last = Duration::ZERO;
        while system.answers("/s0/greet/Ada", &tag).await {
            last = deleted.elapsed();
        }
        left.push(last);
    }
    Ok([joined, left])
}

/// Services, and the nodes of each.
struct Crowd {
    services: usize,
    nodes: usize,
}

impl Crowd {
    async fn cost(&self) -> anyhow::Result<String> {
        let (etcd, directory) = (Etcd::start().await, Directory::new()?);
        let greeter = greeter(&directory).await?;
        let port = greeter.address.port();
        let entries =
            (0..self.services).flat_map(|service| (0..self.nodes).map(move |n| (service, n)));
        etcd.put_all(entries.map(|(service, n)| entry(service, n, port, "0")))
            .await;
        let routes: Vec<_> = (0..self.services).map(|n| format!("/s{n}=s{n}")).collect();
        let last = format!("/s{}/greet/Ada", self.services - 1);
        let began = Instant::now();
        let system = Running::start(&etcd, &directory, &routes.join(",")).await?;
        system.until_answered(&last, "n=0").await?;
        let first = began.elapsed();
        while system.known().await? < self.services * self.nodes {}
        let all = began.elapsed();
        let before = Usage::of(system.gateway.id())?;
        self.change(&etcd, port).await?;
        let after = Usage::of(system.gateway.id())?;
        Ok(format!(
            "| {} × {} nodes | {} | {} | {:.0} | {:.0} | {:.0} |",
            self.services,
            self.nodes,
            first.as_millis(),
            all.as_millis(),
            before.memory,
            100.0 * (after.cpu - before.cpu).div_duration_f64(CHANGING),
            after.peak
        ))
    }

    /// Gives nodes chosen at random another tag, or takes them off the list, a thousand a second.
    async fn change(&self, etcd: &Etcd, port: u16) -> anyhow::Result<()> {
        let mut client = etcd.client().await;
        let mut ticks = interval(SECOND * AT_ONCE as u32 / 1000);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let began = Instant::now();
        while began.elapsed() < CHANGING {
            ticks.tick().await;
            let chosen = fastrand::choose_multiple(0..self.services * self.nodes, AT_ONCE);
            let changes = chosen.into_iter().map(|number| {
                let tag = fastrand::u32(..).to_string();
                let (key, value) = entry(number / self.nodes, number % self.nodes, port, &tag);
                match fastrand::u8(..4) {
                    0 => TxnOp::delete(key, None),
                    _ => TxnOp::put(key, value, None),
                }
            });
            client
                .txn(Txn::new().and_then(changes.collect::<Vec<_>>()))
                .await?;
        }
        Ok(())
    }
}

/// A gateway in front of the nodes in an etcd.
pub(crate) struct Running {
    pub(crate) gateway: Process,
    client: Client,
}

impl Running {
    pub(crate) async fn start(
        etcd: &Etcd,
        directory: &Directory,
        routes: &str,
    ) -> anyhow::Result<Self> {
        let registry = format!("etcd://{}", etcd.address());
        let flags = [
            "--registry",
            &registry,
            "--route",
            routes,
            "--listen",
            "127.0.0.1:0",
        ];
        let flags = [&flags[..], &["--admin-listen", "127.0.0.1:0"]].concat();
        let log = directory.file("gateway.log");
        let gateway = Process::start(&log, "service-gateway", &flags, &[]).await?;
        let client = Client::default();
        Ok(Self { gateway, client })
    }

    /// Whether a node with this tag answers.
    async fn answers(&self, path: &str, tag: &str) -> bool {
        let url = format!("http://{}{path}", self.gateway.address);
        let request = self.client.get(url).insert_header(("x-service-tags", tag));
        let answer = request.send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Returns the number of nodes that it knows, of all services.
    async fn known(&self) -> anyhow::Result<usize> {
        let url = format!("http://{}/metrics", self.gateway.admin()?);
        let answer = self.client.get(url).send().await;
        let mut answer = answer.map_err(|error| anyhow!("the admin port: {error}"))?;
        let text = String::from_utf8(answer.body().limit(64 << 20).await?.into())?;
        let nodes = text
            .lines()
            .filter(|line| line.starts_with("gateway_nodes{"));
        let counts = nodes.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
        Ok(counts.sum())
    }

    pub(crate) async fn until_answered(&self, path: &str, tag: &str) -> anyhow::Result<()> {
        let answered = async { while !self.answers(path, tag).await {} };
        let answered = tokio::time::timeout(SECOND * 20, answered).await;
        answered.with_context(|| format!("no answer from {tag}"))
    }
}

/// A greeter on all addresses of this machine, that registers nowhere anybody looks.
pub(crate) async fn greeter(directory: &Directory) -> anyhow::Result<Process> {
    let flags = ["--registry", "memory:", "--listen", "0.0.0.0:0"];
    let flags = [&flags[..], &["--advertise", "127.0.0.1:1"]].concat();
    let log = directory.file("greeter.log");
    Process::start(&log, "service-greeter", &flags, &[]).await
}

/// The key and the value of a node.
pub(crate) fn entry(service: usize, node: usize, port: u16, tag: &str) -> (String, String) {
    let ip = [127, 1, (node / 250) as u8, (node % 250 + 1) as u8];
    let name = format!("s{service}")
        .parse()
        .expect("a letter and digits are a name");
    let node = ServiceNode::new(name, (ip, port).into());
    let tags = format!("n={tag}")
        .parse()
        .expect("a letter and digits are a tag");
    let node = node.with_tags(tags);
    (
        format!("/services/s{service}/{}", node.address),
        node.to_json(),
    )
}
