//! The life of an instance: listen, register, serve, leave, stop.

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::rt;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use anyhow::{Context, bail};
use discovery::{NodeRegistry, Registration};
use http1::{Limits, Options, Worker};
use log::{info, warn};
use service_runtime::descriptors::limit;
use service_runtime::socket::{self, PortUse};

use crate::state::State;
use crate::{Config, address, routes};

/// How long requests in flight may take to finish once the port is closed.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// How long an idle connection stays open. Longer than the gateway's pool keeps one (15 s): if we
/// closed it first, a request could cross the closing on its way.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may take for a request's head, and pause in the middle of a body.
const PAUSE: Duration = Duration::from_secs(30);

/// Descriptors that are not for clients: those of the registry, the log and the workers' runtimes.
const RESERVED_DESCRIPTORS: u64 = 128;

/// The connections that a worker accepts at most. More wait in the backlog.
const MAX_CONNECTIONS: usize = 25_600;

/// One instance of the service.
///
/// It listens from [`start`](Self::start) on, so that nobody is turned away, and serves while
/// [`run_until`](Self::run_until) is polled. There are no tasks besides that future: dropping it is
/// the end of everything, without goodbye.
#[must_use = "it serves while `run_until` is polled"]
pub struct App {
    server: Server,
    member: Member,
}

impl App {
    /// Opens the port.
    ///
    /// # Errors
    /// If it cannot be opened, or this build has no such registry.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let registry = discovery::connect(&config.registry)?;
        Self::start_with(config, registry)
    }

    /// Opens the port of an instance that is going to register itself here, and not in the
    /// registry that its configuration names.
    ///
    /// # Errors
    /// If the port cannot be opened.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start_with(config: Config, registry: Arc<dyn NodeRegistry>) -> anyhow::Result<Self> {
        let listen = config.listen;
        let listener = socket::listen(listen, PortUse::Exclusive)
            .with_context(|| format!("cannot listen on {listen}"))?;
        let listening = listener.local_addr()?;
        let version = config.node(listening).version().map(Into::into);
        let state = Data::new(State::new(listening, version));
        let server = serve(listener, config.workers, state.clone())?;
        info!(address:% = listening; "listening");
        let member = Member {
            config,
            registry,
            listening,
            state: state.into_inner(),
        };
        Ok(Self { server, member })
    }

    /// The address it listens on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.member.listening
    }

    /// Serves, registered as soon as the registry is there, until `signal` completes. Then it
    /// leaves in this order: `/health` turns 503, the registry forgets it, answers go on for the
    /// drain time but ask clients to connect elsewhere, the port closes, the rest finishes.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn run_until(self, signal: impl Future<Output = impl Display>) -> anyhow::Result<()> {
        let Self { mut server, member } = self;
        tokio::select! {
            ended = &mut server => {
                ended.context("the server failed")?;
                bail!("the server ended by itself");
            }
            () = member.stay_until(signal) => {}
        }
        finish(server).await
    }
}

fn serve(listener: TcpListener, workers: usize, state: Data<State>) -> io::Result<Server> {
    // Without a free descriptor there would be no way to the registry.
    let descriptors = limit().saturating_sub(RESERVED_DESCRIPTORS);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let options = Options {
        workers,
        max_connections: descriptors.clamp(workers, MAX_CONNECTIONS * workers),
        shutdown_timeout: FINISH_LIMIT,
    };
    let limits = Limits::new(PAUSE, KEEP_ALIVE, PAUSE);
    http1::serve("greeter", listener, &options, move || Worker {
        app: actix_web::App::new()
            .app_data(state.clone())
            .configure(routes::configure)
            .wrap(from_fn(routes::common)),
        connect: move |_: &TcpStream| limits,
    })
}

/// Closes the port, and idle connections with it; waits for the requests in flight.
async fn finish(server: Server) -> anyhow::Result<()> {
    let started = Instant::now();
    info!("finishing requests in flight");
    drop(server.handle().stop(true)); // the command is sent; the server itself says when it is done
    server.await.context("the server failed")?;
    if started.elapsed() >= FINISH_LIMIT {
        warn!(limit:? = FINISH_LIMIT; "requests still in flight were cut off");
    }
    info!("stopped");
    Ok(())
}

/// The instance as its registry sees it.
struct Member {
    config: Config,
    registry: Arc<dyn NodeRegistry>,
    listening: SocketAddr,
    state: Arc<State>,
}

impl Member {
    /// Joins, stays until the signal, leaves, and lets those come to an end who do not know yet.
    async fn stay_until(&self, signal: impl Future<Output = impl Display>) {
        let mut signal = pin!(signal);
        let (signal, registration) = tokio::select! {
            signal = &mut signal => (signal, None),
            registration = self.join() => (signal.await, Some(registration)),
        };
        self.state.draining.cancel();
        info!(signal:%, time:? = self.config.drain; "draining");
        if let Some(registration) = registration {
            self.leave(registration).await;
        }
        rt::time::sleep(self.config.drain).await;
    }

    async fn join(&self) -> Registration {
        let address = address::advertised(&self.config, self.listening).await;
        self.state.advertise(address);
        let node = self.config.node(address);
        let registration = self.registry.register(node, self.config.ttl);
        self.state.follow(&registration);
        registration
    }

    async fn leave(&self, registration: Registration) {
        if let Err(error) = registration.deregister().await {
            let ttl = self.config.ttl;
            warn!(error:%, ttl:?; "leaving was not confirmed, the instance may stay listed for its time to live");
        }
    }
}
