//! The way of a request to a node and of the answer back.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::ConnectionType;
use actix_web::http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use discovery::{DiscoveryClient, Error, Network, Resolver, ServiceName, Tags};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use upstream::Pool;

use crate::access_log::{self, AccessLog, Line, Logged};
use crate::client::{Client, Clients, Exchange};
use crate::descriptors::Descriptors;
use crate::error::{ATTEMPTS, Reason, Refusal};
use crate::metrics::{Metrics, Served, Tally};
use crate::probe::Suspects;
use crate::{Config, Route};

mod answer;
mod attempt;
mod budget;
mod download;
mod forwarded;
mod headers;
mod intake;
mod latency;
mod outgoing;
mod outlier;
#[cfg(test)]
mod properties;
mod race;
mod target;
mod trace;
mod upgrade;
mod upload;

use answer::{SERVED_BY, SERVED_VERSION, respond};
use budget::Budget;
pub(crate) use forwarded::{client_address, is_forwarded};
use intake::{Cut, Intake};
use latency::{Latencies, Latency};
use outgoing::Outgoing;
use race::{Race, is_idempotent};
use trace::Ids;
pub(crate) use trace::new_request_id;
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
    /// Where each request is written down, if that is wanted.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// Cancelled when the drain period is over and the port closes.
    pub(crate) leaving: CancellationToken,
    /// The retry budget of each route's service, in the order of the routes. A service whose nodes fail
    /// takes nothing from another one.
    budgets: Vec<Arc<Budget>>,
    /// A permit for each byte of request bodies that may be held for a retry.
    held_bodies: Arc<Semaphore>,
    /// A permit for each connection to a node that may be open.
    upstream: Arc<Semaphore>,
    timeout: Duration,
    hedge_after: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    attempts: usize,
    max_body: u64,
    /// Networks whose proxies may describe the client.
    pub(crate) trust: Arc<[Network]>,
    /// Names that the admin port's host may have.
    pub(crate) admin_hosts: Vec<String>,
    /// Our name in `Via`. Different for each process, since it tells loops from chains.
    via: HeaderValue,
}

/// What one worker has for itself: connections, the resolvers of its routes, and what it counts.
pub(crate) struct Worker {
    gateway: Arc<Gateway>,
    pub(crate) tally: Rc<Tally>,
    resolvers: Vec<Arc<Resolver>>,
    /// In the order of the routes.
    latencies: Vec<Latencies>,
    pool: Rc<Pool>,
}

/// Where a request goes: what its route and its tags lead to.
struct Destination<'a> {
    resolver: Arc<Resolver>,
    budget: &'a Budget,
    latency: &'a Latency,
    /// The request's target without the route's prefix.
    target: &'a str,
}

impl Gateway {
    pub(crate) fn new(
        config: &Config,
        descriptors: Descriptors,
        discovery: DiscoveryClient,
        suspects: Suspects,
        access_log: Option<Arc<AccessLog>>,
    ) -> Self {
        let mut routes = config.routes.clone();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len())); // the longest first
        let budgets = budgets(&routes);
        let metrics = Metrics::new(routes.iter().map(|route| &route.service));
        Self {
            routes,
            discovery,
            metrics,
            access_log,
            suspects,
            clients: Arc::new(Clients::new(config, descriptors.clients)),
            leaving: CancellationToken::new(),
            budgets,
            held_bodies: permits(config.held_bodies.0),
            upstream: permits(descriptors.upstream as u64),
            timeout: config.timeout,
            hedge_after: config.hedge_after,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            attempts: config.attempts.get(),
            max_body: config.max_body.0,
            trust: config.trust.clone().into(),
            admin_hosts: config.admin_hosts.clone(),
            via: via(),
        }
    }
}

impl Worker {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let resolver = |route: &Route| gateway.discovery.resolver(&route.service, &route.tags);
        let resolvers = gateway.routes.iter().map(resolver).collect();
        let latencies = gateway.routes.iter().map(|_| Latencies::default());
        let latencies = latencies.collect();
        let pool = Pool::new(gateway.connect_timeout, gateway.upstream.clone());
        let tally = Rc::new(gateway.metrics.tally());
        Self {
            gateway,
            tally,
            resolvers,
            latencies,
            pool,
        }
    }
}

fn permits(count: u64) -> Arc<Semaphore> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// One budget for each service, in the order of the routes.
fn budgets(routes: &[Route]) -> Vec<Arc<Budget>> {
    let mut services = BTreeMap::<&ServiceName, Arc<Budget>>::new();
    let budgets = routes
        .iter()
        .map(|route| services.entry(&route.service).or_default().clone());
    budgets.collect()
}

fn via() -> HeaderValue {
    let via = format!("1.1 gateway-{:08x}", fastrand::u32(..));
    via.try_into().expect("plain ASCII")
}

/// What is known of a request on its way, whatever becomes of it.
struct Way {
    began: Instant,
    ids: Ids,
    served: Served,
}

/// Answers every request to the proxy port.
pub(crate) async fn proxy(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let mut way = Way {
        began: Instant::now(),
        ids: Ids::of(request.headers()),
        served: Served::default(),
    };
    let payload = payload.into_inner();
    let client = Client::of(&request);
    let exchange = client.clone().begin();
    let mut response = match forward(&worker, &request, payload, exchange, &mut way).await {
        Ok(response) => response,
        Err(refusal) => {
            worker.tally.refused(refusal.reason);
            refusal.respond()
        }
    };
    way.ids
        .tell_client(request.headers(), response.headers_mut());
    if client.is_surplus || worker.gateway.clients.is_draining() {
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    let (status, took) = (response.status().as_u16(), way.began.elapsed());
    worker.tally.answered(way.served, status, took);
    log::debug!(
        method:% = request.method(), target:% = request.uri(), status,
        instance:? = response.headers().get(SERVED_BY), took:?; "request"
    );
    match &worker.gateway.access_log {
        None => response,
        Some(log) => written_down(
            log,
            &worker.gateway.metrics,
            &request,
            &client,
            response,
            &way,
        ),
    }
}

/// The same answer, which is written down as soon as its body has ended.
fn written_down(
    log: &Arc<AccessLog>,
    metrics: &Metrics,
    request: &HttpRequest,
    client: &Client,
    response: HttpResponse,
    way: &Way,
) -> HttpResponse {
    let (received, answered) = (request.headers(), response.headers());
    let said = |name| Some(answered.get(name)?.to_str().ok()?.to_owned());
    let line = Line {
        time: access_log::came(way.began.elapsed()),
        client: (client.origin.as_ref()).map(|origin| origin.client(received).ip),
        method: Some(request.method().to_string()),
        path: Some(access_log::shortened(request.path())),
        status: response.status().as_u16(),
        service: metrics.service(way.served).map(str::to_owned),
        instance: said(SERVED_BY),
        version: said(SERVED_VERSION),
        attempts: said(ATTEMPTS).map_or(0, |text| text.parse().unwrap_or_default()),
        duration: Duration::ZERO,
        bytes: 0,
        request_id: way.ids.request_id(received).to_owned(),
        trace_id: trace::trace_id(received).map(str::to_owned),
    };
    let (log, began) = (log.clone(), way.began);
    response.map_body(|_, body| BoxBody::new(Logged::new(body, log, began, line)))
}

async fn forward(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
    exchange: Exchange,
    way: &mut Way,
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
    let destination = destination(worker, request, target, &mut way.served)?;
    destination
        .resolver
        .ready()
        .await
        .map_err(|error| Reason::NoInstance.because(error))?;
    if upgrade::is_asked_for(request)? {
        return upgrade::forward(worker, request, payload, &destination, exchange, way).await;
    }
    if request.headers().contains_key(EXPECT) {
        // Without a node, the response to this head needs no body (RFC 9110, section 10.1.1).
        let endpoint = destination.resolver.resolve(None);
        endpoint.map_err(|error| Reason::NoInstance.because(error))?;
    }
    let intake = Intake::new(payload, gateway.max_body);
    let body = take_body(request, intake, gateway).await?;
    let deadline = Instant::now() + gateway.timeout;
    let outgoing = Outgoing {
        request,
        client: &exchange.client,
        target: destination.target,
        upgrade: false,
        ids: &way.ids,
    };
    let answer = Race::new(worker, &destination, outgoing, &body, deadline)
        .run()
        .await?;
    gateway
        .metrics
        .came_from(&mut way.served, answer.endpoint.version());
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
    gateway: &Gateway,
) -> Result<ClientBody, Refusal> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > gateway.max_body) {
        return Err(Cut::TooLarge.refusal());
    }
    // Only a body that may be sent again is worth holding.
    let memory = is_idempotent(request.method()).then_some(&gateway.held_bodies);
    let body = ClientBody::take(intake, length, memory);
    body.await.map_err(|cut| cut.refusal())
}

/// Where this request goes.
fn destination<'a>(
    worker: &'a Worker,
    request: &HttpRequest,
    target: &'a str,
    served: &mut Served,
) -> Result<Destination<'a>, Refusal> {
    let path = request.uri().path();
    let gateway = &worker.gateway;
    let mut routes = gateway.routes.iter().enumerate();
    let (number, route) = routes
        .find(|(_, route)| route.cut(path).is_some())
        .ok_or_else(|| Reason::NoRoute.because("no route begins with this path"))?;
    gateway.metrics.went_to(served, &route.service);
    let target = &target[route.prefix.len()..];
    let mut destination = Destination {
        resolver: worker.resolvers[number].clone(),
        budget: &gateway.budgets[number],
        latency: worker.latencies[number].of(target),
        target,
    };
    if !request.headers().contains_key(SERVICE_TAGS) {
        return Ok(destination);
    }
    let mut tags = route.tags.clone();
    for line in request.headers().get_all(SERVICE_TAGS) {
        tags = tags.and(&asked_tags(line)?).ok_or_else(|| {
            Reason::NoInstance.because(format!("{SERVICE_TAGS}: no node has all of these tags"))
        })?;
    }
    destination.resolver = gateway.discovery.resolver(&route.service, &tags);
    Ok(destination)
}

fn asked_tags(line: &HeaderValue) -> Result<Tags, Refusal> {
    let bad = |error: &str| Reason::BadRequest.because(format!("{SERVICE_TAGS}: {error}"));
    let text = line.to_str().map_err(|_| bad("not text"))?;
    text.parse().map_err(|error: discovery::ParseError| bad(&error.to_string()))
}
