//! From a [`Config`] to a running gateway, and from a signal to its end.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use anyhow::{Context, ensure};
use discovery::{DiscoveryClient, NodeRegistry, connect};
use log::{info, warn};
use service_runtime::descriptors::limit;
use service_runtime::line_writer::unbuffered;
use service_runtime::socket::{self, PortUse};
use tokio::time::sleep;

use crate::access_log::AccessLog;
use crate::admin::Admin;
use crate::allowed::{RegistryEndpoints, allowed};
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::probe::Prober;
use crate::proxy::Gateway;
use crate::server::{serve_admin, serve_proxy};

/// Maximum wait of a request for the initial snapshot of its service.
const INITIAL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long handshakes that have begun may take to complete before a shared port closes.
const HANDSHAKE_PERIOD: Duration = Duration::from_millis(300);

/// A gateway that listens. It serves while [`run_until`](Self::run_until) is awaited.
pub struct App {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    servers: [Server; 2],
    /// Of ports that other processes share: the servers' listening sockets once more.
    shared: Vec<TcpListener>,
    drain: Duration,
    admin: Arc<Admin>,
    prober: Prober,
    registry_endpoints: Arc<RegistryEndpoints>,
}

impl App {
    /// Listens on both ports and begins to follow the services of all routes.
    ///
    /// # Errors
    /// If a port cannot be had, or the process may open too few files. A registry that cannot be reached is waited for.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let registry = connect(&config.registry)?;
        Self::start_with(config, registry)
    }

    /// The same with a registry that is there already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: Config, registry: Arc<dyn NodeRegistry>) -> anyhow::Result<Self> {
        let descriptors = Descriptors::divide(limit(), &config)?;
        let port_use = match config.reuse_port {
            true => PortUse::Shared,
            false => PortUse::Exclusive,
        };
        let (listener, addr) = listen(config.listen, port_use)?;
        let (admin_listener, admin_addr) = listen(config.admin_listen, port_use)?;
        let shared = match port_use {
            PortUse::Shared => vec![listener.try_clone()?, admin_listener.try_clone()?],
            PortUse::Exclusive => Vec::new(),
        };
        let registry_endpoints = RegistryEndpoints::new(config.registry.endpoints());
        let (own, endpoints) = ([addr, admin_addr], registry_endpoints.clone());
        let discovery = DiscoveryClient::new(registry)
            .with_allowed(allowed(config.allow.clone(), own, endpoints))
            .with_balancer(config.balancer)
            .with_initial_snapshot_timeout(INITIAL_SNAPSHOT_TIMEOUT)
            .with_removal_protection(config.keep_unconfirmed);
        let (health_checks, prober) =
            Prober::new(config.probe_path.0.clone(), config.probe_interval);
        let access_log = match config.access_log {
            true => Some(Arc::new(AccessLog::start(unbuffered(io::stdout())?)?)),
            false => None,
        };
        let gateway = Arc::new(Gateway::new(
            &config,
            descriptors,
            discovery,
            health_checks,
            access_log,
        ));
        let admin = Arc::new(Admin::new(gateway.clone(), config.admin_actions)?);
        for route in &gateway.routes {
            gateway.discovery.view(&route.service); // follow it before anybody asks
            info!(route:%; "routing");
        }
        info!(address:% = addr, admin:% = admin_addr, registry:% = config.registry; "listening");
        let connections = descriptors.clients + descriptors.over_limit;
        let servers = [
            serve_proxy(&config, connections, listener, gateway)?,
            serve_admin(&config, admin_listener, admin.clone())?,
        ];
        Ok(Self {
            addr,
            admin_addr,
            servers,
            shared,
            drain: config.drain,
            admin,
            prober,
            registry_endpoints,
        })
    }

    /// Where requests to be proxied are taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where health, metrics and instances are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Serves until `signal` completes, then for the drain period: `/ready` is 503, and each response
    /// closes its connection. Then the port and idle connections close, and it ends when the requests
    /// in flight have ended or their time is over.
    ///
    /// # Errors
    /// If a server fails.
    pub async fn run_until(self, signal: impl Future<Output = impl Display>) -> anyhow::Result<()> {
        let Self {
            servers: [proxy, admin_server],
            shared,
            drain,
            admin,
            prober,
            registry_endpoints,
            ..
        } = self;
        let gateway = &admin.gateway;
        let services: Vec<_> = (gateway.routes.iter())
            .map(|route| route.service.clone())
            .collect();
        let (handle, admin_handle) = (proxy.handle(), admin_server.handle());
        let is_shared = !shared.is_empty();
        let stop = async {
            let signal = signal.await;
            gateway.clients.drain();
            info!(signal:%, time:? = drain; "draining");
            sleep(drain).await;
            finish_handshakes(shared).await;
            gateway.leaving.cancel();
            info!("finishing requests in flight");
            let stopped = handle.stop(true);
            if is_shared {
                drop(admin_handle.stop(true)); // another process answers there
            }
            tokio::select! {
                () = stopped => {} // or their time is over
                () = gateway.clients.all_closed() => {}
            }
        };
        tokio::select! {
            ended = proxy => ended.context("serving")?,
            ended = admin_ended(admin_server, gateway) => ended?,
            never = prober.run(&gateway.discovery, &services) => match never {},
            never = registry_endpoints.follow() => match never {},
            never = admin.run() => match never {},
            () = stop => {}
        };
        if let Some(log) = &gateway.access_log {
            log.end();
        }
        ensure!(
            gateway.leaving.is_cancelled(),
            "the servers ended by themselves"
        );
        info!("stopped");
        Ok(())
    }
}

/// Returns when the admin port ends before the time.
async fn admin_ended(server: Server, gateway: &Gateway) -> anyhow::Result<()> {
    server.await.context("serving the admin port")?;
    if gateway.leaving.is_cancelled() {
        pending::<()>().await; // for the requests in flight on the proxy port
    }
    Ok(())
}

/// Lets the handshakes on shared ports come to their end, and begins no more: another process takes
/// them. A connection that waits to be accepted when its socket closes would be reset.
async fn finish_handshakes(shared: Vec<TcpListener>) {
    if shared.is_empty() {
        return;
    }
    for listener in &shared {
        if let Err(error) = socket::refuse_handshakes(listener) {
            warn!(error:%; "clients that connect just now may be refused");
        }
    }
    sleep(HANDSHAKE_PERIOD).await;
}

fn listen(address: SocketAddr, port_use: PortUse) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener =
        socket::listen(address, port_use).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
