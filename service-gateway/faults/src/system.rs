//! The real thing: a registry, greeters and a gateway as processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use awc::http::header::{CONNECTION, HeaderValue};
use awc::http::{Method, Uri};
use load::Load;
use serde_json::Value;
use testing::Directory;
use testing::etcd::Etcd;
use testing::http::{Upstream, Wire};
use testing::process::Process;
use testing::try_until;
use testing::usage::Usage;

use crate::backend::Backend;
use crate::running::Running;

/// Any free ports.
pub(crate) const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// The greeters' time to live in all faults.
pub(crate) const TTL: Duration = Duration::from_secs(5);

/// Everything at work on an etcd, as most faults have it.
pub(crate) type System = SystemOn<Etcd>;

/// Everything at work, and gone when this is dropped.
pub(crate) struct SystemOn<B> {
    pub(crate) server: B,
    /// The registry of those who start from now on: what follows `etcd://` and the like.
    pub(crate) registry: String,
    pub(crate) greeters: Vec<Process>,
    pub(crate) gateway: Process,
    directory: Directory,
    environment: Vec<(String, String)>,
}

impl<B: Backend> SystemOn<B> {
    /// A registry, a gateway, and greeters of these versions, all found by the gateway.
    pub(crate) async fn start(versions: &[&str]) -> anyhow::Result<Self> {
        let system = Self::around(B::started().await, versions, &[]).await?;
        system.until_known(versions.len()).await?;
        Ok(system)
    }

    /// The same with a registry that may not run yet, so that the gateway may know nobody, and with flags
    /// for the gateway.
    pub(crate) async fn around(
        server: B,
        versions: &[&str],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let registry = server.address();
        Self::at(server, &registry, versions, flags).await
    }

    /// The same with another way to the registry.
    pub(crate) async fn at(
        server: B,
        registry: &str,
        versions: &[&str],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        Self::within(Vec::new(), server, registry, versions, flags).await
    }

    /// The same with more in the environment of all processes but the registry.
    pub(crate) async fn within(
        environment: Vec<(String, String)>,
        server: B,
        registry: &str,
        versions: &[&str],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let directory = Directory::new()?;
        let mut system = Self {
            server,
            registry: registry.to_owned(),
            greeters: Vec::new(),
            gateway: gateway(&directory, &url(B::SCHEME, registry), flags, &environment).await?,
            directory,
            environment,
        };
        for version in versions {
            system.add(version).await?;
        }
        Ok(system)
    }

    /// Puts a gateway that knows nobody in the place of the one that knew.
    pub(crate) async fn replace_gateway(&mut self) -> anyhow::Result<()> {
        let (directory, registry) = (&self.directory, url(B::SCHEME, &self.registry));
        self.gateway = gateway(directory, &registry, &[], &self.environment).await?;
        Ok(())
    }

    /// Starts another gateway on the same ports, which has had its first list when this returns. The one
    /// before it goes on serving.
    pub(crate) async fn succeed_gateway(&mut self, flags: &[&str]) -> anyhow::Result<Process> {
        let (address, admin) = (self.gateway.address.to_string(), self.gateway.admin()?);
        let registry = url(B::SCHEME, &self.registry);
        let ports = ["--listen", &address, "--admin-listen", &admin];
        let flags = [&["--registry", &registry][..], &ports, flags].concat();
        let log = self.gateway_log();
        let program = "service-gateway";
        let next = Process::start(&log, program, &flags, &self.environment).await?;
        let is_ready = || async { next.logged("initial snapshot received") };
        try_until("the successor's list", Duration::from_secs(15), is_ready).await?;
        Ok(std::mem::replace(&mut self.gateway, next))
    }

    /// Puts another gateway in the place of the one before, within what ulimit(1) sets.
    pub(crate) async fn limit_gateway(&mut self, ulimit: &str) -> anyhow::Result<()> {
        let registry = url(B::SCHEME, &self.registry);
        let flags = [&["--registry", &registry][..], &FREE].concat();
        let log = self.gateway_log();
        self.gateway = Process::limited(&log, "service-gateway", &flags, ulimit).await?;
        Ok(())
    }

    fn gateway_log(&self) -> std::path::PathBuf {
        self.directory
            .file(&format!("gateway-{:08x}.log", fastrand::u32(..)))
    }

    /// One more greeter. It listens when this returns, and registers meanwhile.
    pub(crate) async fn add(&mut self, version: &str) -> anyhow::Result<&Process> {
        let greeter = self.greeter(version, &[]).await?;
        self.greeters.push(greeter);
        Ok(&self.greeters[self.greeters.len() - 1])
    }

    /// The same on an address that somebody else had.
    pub(crate) async fn add_at(&mut self, address: &str, version: &str) -> anyhow::Result<()> {
        let greeter = self.greeter(version, &["--listen", address]).await?;
        self.greeters.push(greeter);
        Ok(())
    }

    async fn greeter(&self, version: &str, more: &[&str]) -> anyhow::Result<Process> {
        let log = self
            .directory
            .file(&format!("greeter-{:08x}.log", fastrand::u32(..)));
        let registry = url(B::SCHEME, &self.registry);
        let (ttl, tag) = (format!("{}s", TTL.as_secs()), format!("version={version}"));
        let flags = [
            "--registry",
            &registry,
            "--ttl",
            &ttl,
            "--drain",
            "1s",
            "--tag",
            &tag,
        ];
        let flags = [&flags, more].concat();
        Process::start(&log, "service-greeter", &flags, &self.environment).await
    }

    /// Waits until the registry lists this address.
    pub(crate) async fn until_listed(&self, address: &str) -> anyhow::Result<()> {
        let listed = || async {
            Ok(self
                .server
                .listed()
                .await?
                .iter()
                .any(|name| name == address))
        };
        try_until("the node to be listed", Duration::from_secs(15), listed).await
    }

    /// Waits until the gateway thinks so of an instance.
    pub(crate) async fn until_state(
        &self,
        address: &SocketAddr,
        state: &str,
    ) -> anyhow::Result<()> {
        let address = address.to_string();
        let is_so = || async {
            Ok(self
                .states()
                .await?
                .get(&address)
                .is_some_and(|s| s == state))
        };
        try_until(
            &format!("{address} to be {state}"),
            Duration::from_secs(30),
            is_so,
        )
        .await
    }

    /// Whether the gateway can follow the registry: connected, away or pending.
    pub(crate) async fn registry_state(&self) -> anyhow::Result<String> {
        let page: Value = serde_json::from_str(&self.admin("/api/instances").await?.1)?;
        let state = page["services"][0]["registry"]["state"].as_str();
        state
            .map(str::to_owned)
            .context("the state of the registry")
    }

    /// A connection to the gateway, of which every byte is seen.
    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.gateway.address).await
    }

    /// What the gateway uses now.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.gateway.id())
    }

    pub(crate) fn url(&self, path: &str) -> Uri {
        let url = format!("http://{}/greeter{path}", self.gateway.address);
        url.parse().expect("an address and a path are a URL")
    }

    /// The admin port's page of this path.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<(u16, String)> {
        get(&format!("http://{}{path}", self.gateway.admin()?)).await
    }

    /// What the gateway knows of each instance: its address, and its state.
    pub(crate) async fn states(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let page: Value = serde_json::from_str(&self.admin("/api/instances").await?.1)?;
        let instances = page["services"][0]["instances"]
            .as_array()
            .context("a list of instances")?;
        let text =
            |instance: &Value, name: &str| instance[name].as_str().unwrap_or_default().to_owned();
        Ok(instances
            .iter()
            .map(|i| (text(i, "instance"), text(i, "state")))
            .collect())
    }

    /// A number from the gateway's metrics.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.admin("/metrics").await?.1;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no metric {name}"))?
            .parse()
            .context("a number")
    }

    /// Waits until the gateway knows so many instances.
    pub(crate) async fn until_known(&self, count: usize) -> anyhow::Result<()> {
        let known = || async { Ok(self.states().await?.len() == count) };
        try_until(
            &format!("{count} known instances"),
            Duration::from_secs(15),
            known,
        )
        .await
    }

    /// GET requests from now on, so many a second.
    pub(crate) fn gets(&self, rate: u32) -> Running {
        Running::begin(self.load(rate, Method::GET, "/greet/Ada"))
    }

    /// A load of GET requests, so many a second, each over a connection of its own.
    pub(crate) fn unkept_gets(&self, rate: u32) -> Load {
        let mut load = self.load(rate, Method::GET, "/greet/Ada");
        load.headers = vec![(CONNECTION, HeaderValue::from_static("close"))];
        load
    }

    /// GET requests whose answers take five seconds each, so many a second.
    pub(crate) fn slow(&self, rate: u32) -> Running {
        Running::begin(self.load(rate, Method::GET, "/slow?ms=5000"))
    }

    /// POST requests from now on, so many a second.
    pub(crate) fn posts(&self, rate: u32) -> Running {
        Running::begin(self.load(rate, Method::POST, "/echo"))
    }

    pub(crate) fn load(&self, rate: u32, method: Method, path: &str) -> Load {
        Load {
            url: self.url(path),
            body: if method == Method::POST {
                "hello".into()
            } else {
                "".into()
            },
            method,
            headers: Vec::new(),
            rate,
            timeout: Duration::from_secs(15),
            in_flight: 1024,
        }
    }
}

impl System {
    /// A gateway with these routes, before greeters of these versions, and before nodes of these, that a
    /// fault scripts. Nobody is asked for its health, so that those get what the fault sends, and
    /// nothing else.
    pub(crate) async fn routing(
        routes: &str,
        greeters: &[&str],
        nodes: &[(&Upstream, &str)],
    ) -> anyhow::Result<Self> {
        let flags = ["--route", routes, "--probe-path", "off"];
        let system = Self::around(Etcd::start().await, greeters, &flags).await?;
        for (node, version) in nodes {
            let tags = format!(r#"{{"version":"{version}"}}"#);
            system.list(&node.address.to_string(), &tags).await;
        }
        system.until_known(greeters.len() + nodes.len()).await?;
        Ok(system)
    }

    /// Lists a node that nobody keeps, as `etcdctl put` would.
    pub(crate) async fn put_node(&self, address: &str) {
        self.list(address, "null").await;
    }

    async fn list(&self, address: &str, tags: &str) {
        let (key, value) = entry(address, tags);
        self.server.put(&key, value).await;
    }

    /// Lists many such nodes.
    pub(crate) async fn put_nodes(&self, addresses: impl Iterator<Item = String>) {
        let entries = addresses.map(|address| entry(&address, "null"));
        self.server.put_all(entries).await;
    }
}

async fn gateway(
    directory: &Directory,
    registry: &str,
    flags: &[&str],
    environment: &[(String, String)],
) -> anyhow::Result<Process> {
    let log = directory.file(&format!("gateway-{:08x}.log", fastrand::u32(..)));
    let arguments = [&["--registry", registry][..], &FREE, flags].concat();
    Process::start(&log, "service-gateway", &arguments, environment).await
}

fn url(scheme: &str, rest: &str) -> String {
    format!("{scheme}://{rest}")
}

/// The key and the value of a node.
pub(crate) fn entry(address: &str, tags: &str) -> (String, String) {
    let (ip, port) = address.rsplit_once(':').expect("an address has a port");
    let value = format!(r#"{{"ServiceName":"greeter","IP":"{ip}","Port":{port},"Tags":{tags}}}"#);
    (format!("/services/greeter/{address}"), value)
}

/// The status and the text of a page.
pub(crate) async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let failed = |error: &dyn std::fmt::Display| anyhow::anyhow!("{url}: {error}");
    let mut answer = awc::Client::new()
        .get(url)
        .send()
        .await
        .map_err(|error| failed(&error))?;
    let body = answer
        .body()
        .limit(64 << 20)
        .await
        .map_err(|error| failed(&error))?;
    Ok((
        answer.status().as_u16(),
        String::from_utf8_lossy(&body).into_owned(),
    ))
}
