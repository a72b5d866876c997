//! The way of a request to a node and of the answer back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody};
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use discovery::{DiscoveryClient, Endpoint, Error, InFlight, Resolver, Tags};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::error::{ATTEMPTS, Reason, Refusal};
use crate::metrics::Metrics;
use crate::{Config, Route};

mod attempt;
mod download;
mod headers;
mod target;
mod upload;
mod websocket;

use attempt::{Failure, Upstreams, is_idempotent};
use download::{Download, Idle};
use upload::{ClientBody, RequestBody};

/// With which a client asks for nodes with certain tags: `x-service-tags: version=v2,region=cn`.
const SERVICE_TAGS: &str = "x-service-tags";

/// What all workers share.
pub(crate) struct Gateway {
    pub(crate) routes: Vec<Route>,
    pub(crate) discovery: DiscoveryClient,
    pub(crate) metrics: Metrics,
    timeout: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    attempts: usize,
    /// Our name in `Via`. Different for each process, since it tells loops from chains.
    via: String,
}

/// What one worker has for itself: connections, and the resolvers of its routes.
pub(crate) struct Worker {
    gateway: Arc<Gateway>,
    resolvers: Vec<Arc<Resolver>>,
    upstreams: Upstreams,
}

impl Gateway {
    pub(crate) fn new(config: &Config, discovery: DiscoveryClient) -> Self {
        let mut routes = config.routes.clone();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len())); // the longest first
        Self {
            routes,
            discovery,
            metrics: Metrics::default(),
            timeout: config.timeout,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            attempts: config.attempts.get(),
            via: format!("1.1 gateway-{:08x}", fastrand::u32(..)),
        }
    }
}

impl Worker {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let resolver = |route: &Route| gateway.discovery.resolver(&route.service, &route.tags);
        let resolvers = gateway.routes.iter().map(resolver).collect();
        let upstreams = attempt::upstreams(gateway.connect_timeout);
        Self {
            gateway,
            resolvers,
            upstreams,
        }
    }
}

/// Answers every request to the proxy port.
pub(crate) async fn proxy(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let began = Instant::now();
    let mut response = match forward(&worker, &request, payload.into_inner(), began).await {
        Ok(response) => response,
        Err(refusal) => {
            worker.gateway.metrics.refused(refusal.reason);
            refusal.respond()
        }
    };
    if request.head().upgrade() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
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
    response
}

const SERVED_BY: &str = "x-served-by";
const SERVED_VERSION: &str = "x-served-version";

async fn forward(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
    began: Instant,
) -> Result<HttpResponse, Refusal> {
    let gateway = &worker.gateway;
    let target = target::origin_form(request.method(), request.uri())?;
    if headers::is_loop(request.headers(), &gateway.via) {
        return Err(Reason::Loop.because("this gateway is in the request's Via already"));
    }
    let (resolver, rest) = resolver(worker, request, target)?;
    resolver
        .ready()
        .await
        .map_err(|error| Reason::NoInstance.because(error))?;
    let deadline = began + gateway.timeout;
    if websocket::is_asked_for(request)? {
        return websocket::forward(worker, request, payload, &resolver, rest, deadline).await;
    }
    let mut body = take_body(request, payload, deadline).await?;
    let outgoing = Outgoing {
        request,
        target: rest,
        upgrade: false,
    };
    let (answer, endpoint, attempts) = outgoing
        .send(worker, &resolver, &mut body, deadline)
        .await?;
    Ok(respond(
        request,
        answer,
        endpoint,
        attempts,
        body,
        gateway.idle_timeout,
    ))
}

async fn take_body(
    request: &HttpRequest,
    payload: Payload,
    deadline: Instant,
) -> Result<ClientBody, Refusal> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = ClientBody::take(payload, length, is_idempotent(request.method()));
    match timeout_at(deadline, body).await {
        Ok(body) => body.map_err(|error| Reason::BadRequest.because(error)),
        Err(_) => Err(Reason::Timeout.because("the request's body did not arrive in time")),
    }
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
    let Some(tags) = request.headers().get(SERVICE_TAGS) else {
        return Ok((resolver.clone(), rest));
    };
    let bad = |error: &str| Reason::BadRequest.because(format!("{SERVICE_TAGS}: {error}"));
    let asked = tags.to_str().map_err(|_| bad("not text"))?;
    let asked: Tags = asked
        .parse()
        .map_err(|error: Error| bad(&error.to_string()))?;
    let tags = route.tags.clone().and(&asked).ok_or_else(|| {
        Reason::NoInstance.because(format!("the route has only nodes with {}", route.tags))
    })?;
    Ok((
        worker.gateway.discovery.resolver(&route.service, &tags),
        rest,
    ))
}

/// A request as it goes to nodes.
struct Outgoing<'a> {
    request: &'a HttpRequest,
    target: &'a str,
    upgrade: bool,
}

impl Outgoing<'_> {
    /// Sends it to one node after another until one answers or no other may be tried.
    async fn send(
        &self,
        worker: &Worker,
        resolver: &Resolver,
        body: &mut ClientBody,
        deadline: Instant,
    ) -> Result<(http::Response<Incoming>, InFlight, usize), Refusal> {
        let (gateway, method) = (&worker.gateway, self.request.method());
        let key = self.request.peer_addr().map(|peer| affinity_key(peer.ip()));
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let untried = |endpoint: &Endpoint| !tried.contains(&endpoint.address);
            let (endpoint, content) = match (
                resolver.resolve(key.as_ref().map(<[u8; 16]>::as_slice), untried),
                body.send(),
            ) {
                (Ok(endpoint), Some(content)) => (endpoint, content),
                (Err(error), _) => return Err(refusal(last, Some(error), tried.len())),
                (_, None) => return Err(refusal(last, None, tried.len())),
            };
            let request = self.to(&endpoint, content, &gateway.via)?;
            gateway.metrics.attempted(!tried.is_empty());
            let failure = match attempt::send(&worker.upstreams, request, body, deadline).await {
                Ok(answer) => return Ok((answer, endpoint, tried.len() + 1)),
                Err(failure) => failure,
            };
            log::debug!(instance:% = endpoint.address, method:%, error = failure.detail(); "attempt failed");
            tried.push(endpoint.address);
            if tried.len() >= gateway.attempts || !failure.permits_another(method, body.is_held()) {
                return Err(refusal(Some(failure), None, tried.len()));
            }
            if matches!(failure, Failure::NotConnected(_)) {
                body.take_back().await;
            }
            last = Some(failure);
        }
    }

    /// The request for one node.
    fn to(
        &self,
        node: &Endpoint,
        body: RequestBody,
        via: &str,
    ) -> Result<http::Request<RequestBody>, Refusal> {
        let peer = self.request.peer_addr().map(|peer| peer.ip());
        let mut headers = headers::request(self.request.headers(), peer, via);
        if self.upgrade {
            headers.insert("connection", http::HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
        }
        let slash = if self.target.starts_with('/') {
            ""
        } else {
            "/"
        };
        let uri = format!("http://{}{slash}{}", node.address, self.target);
        let request = http::Request::builder()
            .method(self.request.method().as_str())
            .uri(uri);
        let mut request = request
            .body(body)
            .map_err(|error| Reason::BadRequest.because(error))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// A client's address as a key: the same whether it came by IPv4 or by IPv4 in IPv6.
fn affinity_key(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What to tell the client: of the last attempt, or that there was none to make.
fn refusal(last: Option<Failure>, error: Option<Error>, attempts: usize) -> Refusal {
    let refusal = match (last, error) {
        (Some(failure), _) => failure.reason().because(failure.detail()),
        (None, Some(error)) => Reason::NoInstance.because(error),
        (None, None) => Reason::BadUpstream.because("the request's body is gone"),
    };
    Refusal {
        attempts,
        ..refusal
    }
}

/// The node's answer as the client gets it.
fn respond(
    request: &HttpRequest,
    answer: http::Response<Incoming>,
    endpoint: InFlight,
    attempts: usize,
    upload: ClientBody,
    idle_timeout: Duration,
) -> HttpResponse {
    let (head, body) = answer.into_parts();
    let size = body_size(request.method(), &head);
    let idle = Idle::new(idle_timeout);
    let served_by = endpoint.clone();
    let download = BoxBody::new(Download {
        body,
        size,
        upload,
        idle,
        endpoint,
    });
    let mut response = with_head(&head, &served_by, attempts, download);
    let chunks = request.version() >= Version::HTTP_11 && !request.head().upgrade();
    if size == BodySize::Stream && !chunks {
        // Then the end of the connection is the end of the body.
        response.head_mut().no_chunking(true);
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    response
}

/// A response with the node's status and headers, and who it was.
fn with_head(
    head: &http::response::Parts,
    endpoint: &Endpoint,
    attempts: usize,
    body: BoxBody,
) -> HttpResponse {
    let status = StatusCode::from_u16(head.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::with_body(status, body);
    headers::response(&head.headers, response.headers_mut());
    let mut say = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    };
    say(SERVED_BY, &endpoint.address.to_string());
    say(SERVED_VERSION, endpoint.version().unwrap_or_default());
    response
        .headers_mut()
        .insert(ATTEMPTS, HeaderValue::from(attempts));
    response
}

/// How the client learns where the body ends.
fn body_size(method: &Method, head: &http::response::Parts) -> BodySize {
    match (head.status.as_u16(), headers::content_length(&head.headers)) {
        (204 | 304, _) => BodySize::None,
        (_, Some(length)) => BodySize::Sized(length),
        (_, None) if *method == Method::HEAD => BodySize::None,
        (_, None) => BodySize::Stream,
    }
}
