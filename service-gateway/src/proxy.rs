//! The way of a request to a node and of the answer back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use discovery::{DiscoveryClient, Error, Resolver, Tags};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Clients, Exchange};
use crate::error::{Reason, Refusal};
use crate::metrics::Metrics;
use crate::probe::Suspects;
use crate::{Config, Route};

mod answer;
mod attempt;
mod budget;
mod connection;
mod download;
mod headers;
mod intake;
mod origin;
mod outgoing;
mod pool;
#[cfg(test)]
mod properties;
mod race;
mod stream;
mod target;
mod upload;
mod websocket;

use answer::{SERVED_BY, respond};
use budget::Budget;
use intake::{Cut, Intake};
pub(crate) use origin::Origin;
use outgoing::Outgoing;
use pool::Pool;
use race::{Race, is_idempotent};
use upload::ClientBody;

/// With which a client asks for nodes with certain tags: `x-service-tags: version=v2,region=cn`.
const SERVICE_TAGS: HeaderName = HeaderName::from_static("x-service-tags");

/// What all workers share.
pub(crate) struct Gateway {
    pub(crate) routes: Vec<Route>,
    pub(crate) discovery: DiscoveryClient,
    pub(crate) metrics: Metrics,
    pub(crate) suspects: Suspects,
    pub(crate) clients: Arc<Clients>,
    /// Cancelled when this instance begins to leave.
    pub(crate) leaving: CancellationToken,
    budget: Budget,
    timeout: Duration,
    hedge_after: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    attempts: usize,
    max_body: u64,
    /// Our name in `Via`. Different for each process, since it tells loops from chains.
    via: http::HeaderValue,
}

/// What one worker has for itself: connections, and the resolvers of its routes.
pub(crate) struct Worker {
    gateway: Arc<Gateway>,
    resolvers: Vec<Arc<Resolver>>,
    pool: Rc<Pool>,
}

impl Gateway {
    pub(crate) fn new(config: &Config, discovery: DiscoveryClient, suspects: Suspects) -> Self {
        let mut routes = config.routes.clone();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len())); // the longest first
        Self {
            routes,
            discovery,
            metrics: Metrics::default(),
            suspects,
            clients: Arc::new(Clients::new(config)),
            leaving: CancellationToken::new(),
            budget: Budget::default(),
            timeout: config.timeout,
            hedge_after: config.hedge_after,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            attempts: config.attempts.get(),
            max_body: config.max_body.0,
            via: via(),
        }
    }
}

impl Worker {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let resolver = |route: &Route| gateway.discovery.resolver(&route.service, &route.tags);
        let resolvers = gateway.routes.iter().map(resolver).collect();
        let pool = Pool::new(gateway.connect_timeout);
        Self {
            gateway,
            resolvers,
            pool,
        }
    }
}

fn via() -> http::HeaderValue {
    let via = format!("1.1 gateway-{:08x}", fastrand::u32(..));
    via.try_into().expect("plain ASCII")
}

/// Answers every request to the proxy port.
pub(crate) async fn proxy(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let began = Instant::now();
    let payload = payload.into_inner();
    let has_body = !matches!(payload, Payload::None);
    let client: &Rc<Client> = request.conn_data().expect("every connection has it");
    let exchange = client.begin(has_body);
    let mut response = match forward(&worker, &request, payload, exchange).await {
        Ok(response) => response,
        Err(refusal) => {
            worker.gateway.metrics.refused(refusal.reason);
            refusal.respond()
        }
    };
    let upgrades = request.head().upgrade() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if upgrades || client.is_surplus {
        // What follows on this connection would be taken for the upgraded protocol.
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    worker
        .gateway
        .metrics
        .answered(response.status(), began.elapsed());
    log::debug!(
        method:% = request.method(), target:% = request.uri(), status = response.status().as_u16(),
        instance:? = response.headers().get(SERVED_BY), took:? = began.elapsed(); "request"
    );
    if has_body {
        download::look_again().await;
    }
    response
}

async fn forward(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
    exchange: Exchange,
) -> Result<HttpResponse, Refusal> {
    let gateway = &worker.gateway;
    if exchange.is_surplus {
        return Err(Reason::Overloaded.because("as many requests as allowed are in flight"));
    }
    let target = target::origin_form(request.method(), request.uri())?;
    target::check_host(request.headers())?;
    if headers::is_loop(request.headers(), &gateway.via) {
        return Err(Reason::Loop.because("this gateway is in the request's Via already"));
    }
    let (resolver, rest) = resolver(worker, request, target)?;
    resolver
        .ready()
        .await
        .map_err(|error| Reason::NoInstance.because(error))?;
    if websocket::is_asked_for(request)? {
        return websocket::forward(worker, request, payload, &resolver, rest, exchange).await;
    }
    let intake = Intake::new(payload, exchange.client.clone(), gateway.max_body);
    let mut body = take_body(request, intake, gateway.max_body).await?;
    let deadline = Instant::now() + gateway.timeout;
    let outgoing = Outgoing {
        request,
        target: rest,
        upgrade: false,
    };
    let answer = Race::new(worker, &resolver, outgoing, &mut body, deadline)
        .run()
        .await?;
    Ok(respond(
        request,
        answer,
        body,
        gateway.idle_timeout,
        exchange,
    ))
}

async fn take_body(
    request: &HttpRequest,
    intake: Intake,
    limit: u64,
) -> Result<ClientBody, Refusal> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(Cut::TooLarge.refusal());
    }
    let body = ClientBody::take(intake, length, is_idempotent(request.method()));
    body.await.map_err(|cut| cut.refusal())
}

/// Who resolves this request, and the target without the route's prefix.
fn resolver<'a>(
    worker: &Worker,
    request: &HttpRequest,
    target: &'a str,
) -> Result<(Arc<Resolver>, &'a str), Refusal> {
    let path = request.uri().path();
    let mut routes = worker.gateway.routes.iter().zip(&worker.resolvers);
    let (route, resolver) = routes
        .find(|(route, _)| route.cut(path).is_some())
        .ok_or_else(|| Reason::NoRoute.because("no route begins with this path"))?;
    let rest = &target[route.prefix.len()..];
    if !request.headers().contains_key(SERVICE_TAGS) {
        return Ok((resolver.clone(), rest));
    }
    let mut tags = route.tags.clone();
    for line in request.headers().get_all(SERVICE_TAGS) {
        tags = tags.and(&asked_tags(line)?).ok_or_else(|| {
            Reason::NoInstance.because(format!("{SERVICE_TAGS}: no node has all of these tags"))
        })?;
    }
    let resolver = worker.gateway.discovery.resolver(&route.service, &tags);
    Ok((resolver, rest))
}

fn asked_tags(line: &HeaderValue) -> Result<Tags, Refusal> {
    let bad = |error: &str| Reason::BadRequest.because(format!("{SERVICE_TAGS}: {error}"));
    let text = line.to_str().map_err(|_| bad("not text"))?;
    text.parse().map_err(|error: Error| bad(&error.to_string()))
}
