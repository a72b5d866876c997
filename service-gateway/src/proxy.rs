//! The handler of the proxy port: forwards a request to a node, and the response to the client.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, EXPECT};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::time::Instant;

use crate::access_log::{self, AccessLog, Line, Logged};
use crate::client::{Client, Exchange};
use crate::error::{ATTEMPTS, Reason, Refusal};
use crate::metrics::{Metrics, Served};

mod attempt;
mod attempts;
mod budget;
mod destination;
mod fields;
mod forwarded;
mod gateway;
mod headers;
mod latency;
mod outlier;
mod payload;
#[cfg(test)]
mod properties;
mod request_body;
mod response;
mod response_body;
mod target;
mod trace;
mod upgrade;
mod upstream_request;

use attempts::{Attempts, is_idempotent};
use destination::Destination;
pub(crate) use forwarded::is_forwarded;
pub(crate) use gateway::{Gateway, Worker};
use payload::{BodyError, LimitedPayload};
use request_body::ClientBody;
use response::{SERVED_BY, SERVED_VERSION, respond};
use trace::Ids;
use upstream_request::UpstreamRequest;

/// The state of a request that the metrics and the access log need after the response.
struct RequestContext {
    started: Instant,
    ids: Ids,
    served: Served,
}

/// Responds to each request to the proxy port.
pub(crate) async fn proxy(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let mut context = RequestContext {
        started: Instant::now(),
        ids: Ids::of(request.headers()),
        served: Served::default(),
    };
    let payload = payload.into_inner();
    let client = Client::of(&request);
    let exchange = client.clone().begin();
    let mut response = match forward(&worker, &request, payload, exchange, &mut context).await {
        Ok(response) => response,
        Err(refusal) => {
            worker.tally.refused(refusal.reason);
            refusal.respond()
        }
    };
    let headers = response.headers_mut();
    context.ids.set_response_field(request.headers(), headers);
    if client.is_surplus || worker.gateway.clients.is_draining() {
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    let (status, duration) = (response.status().as_u16(), context.started.elapsed());
    worker.tally.answered(context.served, status, duration);
    log::debug!(
        method:% = request.method(), target:% = request.uri(), status,
        instance:? = response.headers().get(SERVED_BY), took:? = duration; "request"
    );
    match &worker.gateway.access_log {
        None => response,
        Some(log) => log_access(
            log,
            &worker.gateway.metrics,
            &request,
            &client,
            response,
            &context,
        ),
    }
}

/// Returns the response, which is logged when its body has ended.
fn log_access(
    log: &Arc<AccessLog>,
    metrics: &Metrics,
    request: &HttpRequest,
    client: &Client,
    response: HttpResponse,
    context: &RequestContext,
) -> HttpResponse {
    let (received, sent) = (request.headers(), response.headers());
    let field = |name| Some(sent.get(name)?.to_str().ok()?.to_owned());
    let line = Line {
        time: access_log::came(context.started.elapsed()),
        client: client.peer.as_ref().map(|peer| peer.client(received).ip),
        method: Some(request.method().to_string()),
        path: Some(access_log::shortened(request.path())),
        status: response.status().as_u16(),
        service: metrics.service(context.served).map(str::to_owned),
        instance: field(SERVED_BY),
        version: field(SERVED_VERSION),
        attempts: field(ATTEMPTS).map_or(0, |text| text.parse().unwrap_or_default()),
        duration: Duration::ZERO,
        bytes: 0,
        request_id: context.ids.request_id(received).to_owned(),
        trace_id: trace::trace_id(received).map(str::to_owned),
    };
    let (log, started) = (log.clone(), context.started);
    response.map_body(|_, body| BoxBody::new(Logged::new(body, log, started, line)))
}

/// Forwards a request. A node that does not agree to an upgrade responds as to any other request.
async fn forward(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
    exchange: Exchange,
    context: &mut RequestContext,
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
    let destination = Destination::of(worker, request, target, &mut context.served)?;
    destination
        .resolver
        .ready()
        .await
        .map_err(|error| Reason::NoInstance.because(error))?;
    // The payload of an upgrade is what follows the switch of protocols.
    let (body, upgrade) = if upgrade::is_requested(request)? {
        (ClientBody::empty(), Some(payload))
    } else {
        if request.headers().contains_key(EXPECT) {
            // Without a node, the response to this head needs no body (RFC 9110, section 10.1.1).
            let endpoint = destination.resolver.resolve(None);
            endpoint.map_err(|error| Reason::NoInstance.because(error))?;
        }
        let payload = LimitedPayload::new(payload, gateway.max_body);
        (receive_body(request, payload, gateway).await?, None)
    };
    let deadline = Instant::now() + gateway.timeout;
    let upstream_request = UpstreamRequest {
        received: request,
        client: &exchange.client,
        target: destination.target,
        is_upgrade: upgrade.is_some(),
        ids: &context.ids,
    };
    let attempts = Attempts::new(worker, &destination, upstream_request, &body, deadline);
    let response = attempts.run().await?;
    let version = response.endpoint.version();
    gateway.metrics.came_from(&mut context.served, version);
    match upgrade {
        Some(payload) if response.head.status == StatusCode::SWITCHING_PROTOCOLS => {
            upgrade::respond(response, payload, exchange, gateway.leaving.clone())
        }
        _ => Ok(respond(
            request,
            response,
            body,
            gateway.idle_timeout,
            exchange,
        )),
    }
}

async fn receive_body(
    request: &HttpRequest,
    payload: LimitedPayload,
    gateway: &Gateway,
) -> Result<ClientBody, Refusal> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > gateway.max_body) {
        return Err(BodyError::TooLarge.refusal());
    }
    // Only a body that may be sent again is held.
    let memory = is_idempotent(request.method()).then_some(&gateway.held_bodies);
    let body = ClientBody::receive(payload, length, memory);
    body.await.map_err(|error| error.refusal())
}
