//! From a [`Config`] to a running gateway, and from a signal to its end.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::{App as ActixApp, HttpServer, web};
use anyhow::{Context, ensure};
use discovery::{DiscoveryClient, NodeRegistry, connect};
use log::info;
use service_runtime::line_writer::unbuffered;
use tokio::net::TcpSocket;

use crate::access_log::AccessLog;
use crate::admin::{self, Admin};
use crate::allowed::{RegistryEndpoints, allowed};
use crate::config::Config;
use crate::probe::Prober;
use crate::proxy::Gateway;
use crate::server::serve_proxy;

/// How long a request waits for the first list of a service that nobody asked for before.
const FIRST_LIST_LIMIT: Duration = Duration::from_secs(1);

/// Connections waiting to be accepted. The standard library allows 128: too few when a load test
/// opens all of its connections at once.
const BACKLOG: u32 = 1024;

/// What the kernel holds of an answer that is not read; by itself it would hold megabytes. Each
/// connection has it from its listener, and Linux doubles it.
const UNREAD_BYTES: u32 = 64 << 10;

/// A gateway that listens. It serves while [`run_until`](Self::run_until) is awaited.
pub struct App {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    servers: [Server; 2],
    admin: Arc<Admin>,
    prober: Prober,
    registry_endpoints: Arc<RegistryEndpoints>,
}

impl App {
    /// Listens on both ports and begins to follow the services of all routes.
    ///
    /// # Errors
    /// If a port cannot be had. A registry that cannot be reached is waited for.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let registry = connect(&config.registry)?;
        Self::start_with(config, registry)
    }

    /// The same with a registry that is there already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: Config, registry: Arc<dyn NodeRegistry>) -> anyhow::Result<Self> {
        let (listener, addr) = listen(config.listen)?;
        let (admin_listener, admin_addr) = listen(config.admin_listen)?;
        let registry_endpoints = RegistryEndpoints::new(config.registry.endpoints());
        let (own, endpoints) = ([addr, admin_addr], registry_endpoints.clone());
        let discovery = DiscoveryClient::new(registry)
            .with_allowed(allowed(config.allow.clone(), own, endpoints))
            .with_balancer(config.balancer)
            .with_first_list_limit(FIRST_LIST_LIMIT)
            .with_vanished_kept_for(config.keep_vanished);
        let (suspects, prober) = Prober::new(config.probe_path.0.clone(), config.probe_interval);
        let access_log = match config.access_log {
            true => Some(Arc::new(AccessLog::start(unbuffered(io::stdout())?)?)),
            false => None,
        };
        let gateway = Arc::new(Gateway::new(&config, discovery, suspects, access_log));
        let admin = Arc::new(Admin::new(gateway.clone(), config.admin_actions)?);
        for route in &gateway.routes {
            gateway.discovery.view(&route.service); // follow it before anybody asks
            info!(route:%; "routing");
        }
        info!(address:% = addr, admin:% = admin_addr, registry:% = config.registry; "listening");
        let servers = [
            serve_proxy(&config, listener, gateway)?,
            serve_admin(admin_listener, admin.clone())?,
        ];
        Ok(Self {
            addr,
            admin_addr,
            servers,
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

    /// Serves until `signal` completes. Then tells that it is not ready any more, takes no new
    /// connections, and ends when the requests in flight have ended or their time is over.
    ///
    /// # Errors
    /// If a server fails.
    pub async fn run_until(self, signal: impl Future<Output = impl Display>) -> anyhow::Result<()> {
        let [proxy, admin] = self.servers;
        let handles = [proxy.handle(), admin.handle()];
        let state = self.admin;
        let leave = async {
            let signal = signal.await;
            info!(signal:%; "leaving, finishing the requests in flight");
            state.gateway.leaving.cancel();
            for handle in &handles {
                ServerHandle::stop(handle, true).await;
            }
            pending().await // the servers say when they are done
        };
        let gateway = state.gateway.clone();
        tokio::select! {
            ended = async { tokio::try_join!(proxy, admin) } => ended.context("serving")?,
            never = self.prober.run(&gateway) => match never {},
            never = self.registry_endpoints.follow() => match never {},
            never = state.run() => match never {},
            never = leave => match never {},
        };
        if let Some(log) = &gateway.access_log {
            log.end();
        }
        ensure!(
            state.gateway.leaving.is_cancelled(),
            "the servers ended by themselves"
        );
        info!("stopped");
        Ok(())
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = open(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?; // or a restart would wait for the last run's connections
    socket.set_send_buffer_size(UNREAD_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn serve_admin(listener: TcpListener, admin: Arc<Admin>) -> io::Result<Server> {
    let admin = web::Data::from(admin);
    let factory = move || {
        ActixApp::new()
            .app_data(admin.clone())
            .configure(admin::routes)
    };
    let server = HttpServer::new(factory)
        .workers(1)
        .h1_allow_half_closed(false);
    Ok(server
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?
        .run())
}
