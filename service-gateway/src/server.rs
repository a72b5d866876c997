//! The server of the proxy port: actix's, over connections that have limits.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use actix_http::{HttpService, KeepAlive, Payload, Request};
use actix_service::{Service, ServiceFactoryExt, apply_fn_factory, map_config};
use actix_web::dev::{AppConfig, Server, fn_service};
use actix_web::{App, web};
use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::Config;
use crate::client::ClientStream;
use crate::head_refusal::HeadRefusals;
use crate::proxy::{Gateway, Origin, Worker, proxy};

/// The fields of a request with a larger body are detached, in bytes.
const SMALL_BODY_BYTES: u64 = 4 << 10;

/// Serves the proxy port. The same as actix's `HttpServer` does it, but that it hands out no
/// connection before the guard is around it. All workers together accept `max_connections`, those over
/// the limit included; more wait in the backlog.
pub(crate) fn serve_proxy(
    config: &Config,
    max_connections: usize,
    listener: TcpListener,
    gateway: Arc<Gateway>,
) -> io::Result<Server> {
    let builder = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(max_connections.div_ceil(config.workers))
        .shutdown_timeout(config.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let leaving = builder.graceful_shutdown_signal();
    let factory = move || {
        let (clients, trust) = (gateway.clients.clone(), gateway.trust.clone());
        let worker = web::Data::new(Worker::new(gateway.clone()));
        let refusals = HeadRefusals::new(worker.tally.clone(), gateway.access_log.clone());
        let refusals = Rc::new(refusals);
        let guard = move |stream: TcpStream| {
            let (clients, refusals) = (clients.clone(), refusals.clone());
            async move {
                let peer = stream.peer_addr().ok();
                stream.set_nodelay(true)?;
                Ok::<_, DispatchError>((ClientStream::new(stream, clients, refusals), peer))
            }
        };
        let app = App::new().app_data(worker).default_service(web::to(proxy));
        let leaving = leaving.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let leaving = leaving.clone();
                async move { leaving.notified().await }
            })
            .keep_alive(KeepAlive::Os) // the guard's affair, as are heads
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(Duration::from_secs(1))
            // A client that closes has gone: its request must not keep a node busy.
            .h1_allow_half_closed(false)
            .on_connect_ext(move |stream: &ClientStream, data| {
                data.insert(stream.client());
                if let Ok(peer) = stream.peer_addr() {
                    data.insert(Origin::new(peer.ip(), &trust));
                }
            })
            .h1(apply_fn_factory(
                map_config(app, |()| AppConfig::default()),
                |mut request: Request, app| {
                    if !matches!(request.payload(), Payload::None) {
                        detach_fields(&mut request.head_mut().headers);
                    }
                    app.call(request)
                },
            ));
        let served = apply_fn_factory(http, |(stream, peer): (ClientStream, _), http| {
            let client = stream.client();
            let served = http.call((stream, peer));
            async move { served.await.inspect_err(|error| client.failed(error)) }
        });
        fn_service(guard).and_then(served)
    };
    Ok(builder.listen("proxy", listener, factory)?.run())
}

/// Copies the values of a request's fields, unless its body is small. As actix decodes them, they share
/// the read buffer's memory with the beginning of the body, and would keep all of it until the response.
fn detach_fields(headers: &mut HeaderMap) {
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
    let length = length.and_then(|length| length.ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length <= SMALL_BODY_BYTES) {
        return;
    }
    let size = headers.iter().map(|(_, value)| value.len()).sum();
    let mut copies = BytesMut::with_capacity(size);
    headers.retain(|_, value| {
        copies.extend_from_slice(value.as_bytes());
        if let Ok(copy) = HeaderValue::from_maybe_shared(copies.split().freeze()) {
            *value = copy;
        }
        true
    });
}
