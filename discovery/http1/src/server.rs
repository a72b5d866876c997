//! A port: actix's listener and workers, and connections of this crate.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, always_ready};
use actix_web::dev::{AppConfig, Server};
use futures_util::future::LocalBoxFuture;
use tokio::net::TcpStream;

use crate::connection::{Downstream, serve as serve_connection};

/// How a port is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of worker threads.
    pub workers: usize,
    /// The maximum number of connections that are accepted, of all workers together. More wait in the
    /// backlog.
    pub max_connections: usize,
    /// The time that requests have to end once the server is stopped. At least a second.
    pub shutdown_timeout: Duration,
}

/// An application of one worker, and what creates the [`Downstream`] of each of its connections.
pub struct Worker<F, C> {
    /// The application: an `actix_web::App`.
    pub app: F,
    /// Is called for each connection, as soon as it is accepted.
    pub connect: C,
}

/// Serves HTTP/1.1 on a port, with an application that `factory` creates for each worker. A stopped server
/// closes its port and idle connections, and the others with the response that is due.
///
/// # Errors
/// If the socket cannot be used.
pub fn serve<F, S, B, C, D>(
    name: &str,
    listener: TcpListener,
    options: &Options,
    factory: impl Fn() -> Worker<F, C> + Clone + Send + 'static,
) -> io::Result<Server>
where
    F: IntoServiceFactory<S, Request> + 'static,
    S: App<B>,
    B: MessageBody + 'static,
    C: Fn(&TcpStream) -> D + 'static,
    D: Downstream,
{
    let builder = Server::build()
        .workers(options.workers)
        .max_concurrent_connections(options.max_connections.div_ceil(options.workers))
        .shutdown_timeout(options.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let leaving = builder.graceful_shutdown_signal();
    let factory = move || {
        let Worker { app, connect } = factory();
        Factory {
            app: app.into_factory(),
            connect: Rc::new(connect),
            leaving: leaving.clone(),
            body: PhantomData,
        }
    };
    Ok(builder.listen(name, listener, factory)?.run())
}

/// What serves requests: an actix-web application.
pub trait App<B>:
    ServiceFactory<
        Request,
        Config = AppConfig,
        Response: Into<Response<B>>,
        Error: Into<Response<BoxBody>>,
        Service: 'static,
        Future: 'static,
    > + 'static
{
}

impl<B, S> App<B> for S where
    S: ServiceFactory<
            Request,
            Config = AppConfig,
            Response: Into<Response<B>>,
            Error: Into<Response<BoxBody>>,
            Service: 'static,
            Future: 'static,
        > + 'static
{
}

/// Creates the service of one worker.
struct Factory<S, C, B> {
    app: S,
    connect: Rc<C>,
    leaving: GracefulShutdownSignal,
    body: PhantomData<B>,
}

impl<S, B, C, D> ServiceFactory<TcpStream> for Factory<S, C, B>
where
    S: App<B>,
    B: MessageBody + 'static,
    C: Fn(&TcpStream) -> D + 'static,
    D: Downstream,
{
    type Response = ();
    type Error = Infallible;
    type Config = ();
    type Service = Connections<S::Service, C, B>;
    type InitError = S::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let app = self.app.new_service(AppConfig::default());
        let (connect, leaving) = (self.connect.clone(), self.leaving.clone());
        Box::pin(async move {
            Ok(Connections {
                app: Rc::new(app.await?),
                connect,
                leaving,
                body: PhantomData,
            })
        })
    }
}

/// Serves the connections of one worker.
struct Connections<A, C, B> {
    app: Rc<A>,
    connect: Rc<C>,
    leaving: GracefulShutdownSignal,
    body: PhantomData<B>,
}

impl<A, B, C, D> Service<TcpStream> for Connections<A, C, B>
where
    A: Service<Request, Response: Into<Response<B>>, Error: Into<Response<BoxBody>>> + 'static,
    B: MessageBody + 'static,
    C: Fn(&TcpStream) -> D,
    D: Downstream,
{
    type Response = ();
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<(), Infallible>>;

    always_ready!();

    fn call(&self, stream: TcpStream) -> Self::Future {
        let (app, leaving) = (self.app.clone(), self.leaving.clone());
        let downstream = (self.connect)(&stream);
        Box::pin(async move {
            if stream.set_nodelay(true).is_ok() {
                serve_connection(stream, &*app, &downstream, leaving.notified()).await;
            } // else the client has gone
            Ok(())
        })
    }
}
