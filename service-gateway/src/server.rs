//! The servers of the proxy port and of the admin port.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::{HttpMessage, Request, Response};
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use http1::{Downstream, HeadError, Limits, Options, Timeout};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Config;
use crate::admin::{self, Admin};
use crate::client::{Client, Clients};
use crate::descriptors::ADMIN_CONNECTIONS;
use crate::head_refusal::HeadRefusals;
use crate::peer::Peer;
use crate::proxy::{Gateway, Worker, proxy};

/// The time that requests to the admin port have to end, once it is stopped.
const ADMIN_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the proxy port. All workers together accept `max_connections`, those over the limit included;
/// more wait in the backlog.
pub(crate) fn serve_proxy(
    config: &Config,
    max_connections: usize,
    listener: TcpListener,
    gateway: Arc<Gateway>,
) -> io::Result<Server> {
    let options = Options {
        workers: config.workers,
        max_connections,
        shutdown_timeout: config.shutdown_timeout,
    };
    http1::serve("proxy", listener, &options, move || {
        let worker = web::Data::new(Worker::new(gateway.clone()));
        let refusals = HeadRefusals::new(worker.tally.clone(), gateway.access_log.clone());
        let (refusals, gateway) = (Rc::new(refusals), gateway.clone());
        http1::Worker {
            app: App::new().app_data(worker).default_service(web::to(proxy)),
            connect: move |stream: &TcpStream| {
                let address = stream.peer_addr().ok();
                let peer = address.map(|address| Peer::new(address.ip(), &gateway.trust));
                ClientConnection::new(gateway.clients.clone(), peer, refusals.clone())
            },
        }
    })
}

/// Serves the admin port: the same limits for each connection, and a maximum number of its own.
pub(crate) fn serve_admin(
    config: &Config,
    listener: TcpListener,
    admin: Arc<Admin>,
) -> io::Result<Server> {
    let admin = web::Data::from(admin);
    let options = Options {
        workers: 1,
        max_connections: ADMIN_CONNECTIONS,
        shutdown_timeout: ADMIN_SHUTDOWN_TIMEOUT,
    };
    let limits = Limits::new(
        config.head_timeout,
        config.keep_alive,
        config.client_timeout,
    );
    http1::serve("admin", listener, &options, move || http1::Worker {
        app: App::new()
            .app_data(admin.clone())
            .wrap(from_fn(admin::guard))
            .configure(admin::routes),
        connect: move |_: &TcpStream| limits,
    })
}

/// A connection of the proxy port.
struct ClientConnection {
    client: Rc<Client>,
    refusals: Rc<HeadRefusals>,
}

impl ClientConnection {
    fn new(all: Arc<Clients>, peer: Option<Peer>, refusals: Rc<HeadRefusals>) -> Self {
        Self {
            client: Rc::new(Client::new(all, peer)),
            refusals,
        }
    }
}

impl Downstream for ClientConnection {
    fn limits(&self) -> Limits {
        self.client.limits()
    }

    fn prepare(&self, request: &mut Request) {
        request.extensions_mut().insert(self.client.clone());
    }

    fn refuse(&self, error: HeadError, began: Instant) -> Response<BoxBody> {
        let client = self.client.peer.as_ref().map(Peer::ip);
        self.refusals.refuse(error, client, began)
    }

    fn timed_out(&self, timeout: Timeout) {
        self.client.count_timeout(timeout);
    }
}
