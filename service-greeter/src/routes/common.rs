use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use log::debug;

use crate::state::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all answers have in common: the request's id, the hint to connect elsewhere while this
/// instance drains, and a line in the log.
pub(crate) async fn common(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let started = Instant::now();
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = next.call(request).await?;
    let status = response.status().as_u16();
    state.metrics.answered(status, started.elapsed());
    decorate(&mut response, id, state.draining.is_cancelled());
    log(&response, started);
    Ok(response)
}

fn decorate(response: &mut ServiceResponse, id: Option<HeaderValue>, draining: bool) {
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let head = response.response_mut().head_mut();
    if draining && !head.upgrade() {
        head.set_connection_type(ConnectionType::Close);
    }
}

fn log(response: &ServiceResponse, started: Instant) {
    let request = response.request();
    debug!(
        method:% = request.method(),
        target:% = request.uri(),
        status = response.status().as_u16(),
        took:? = started.elapsed();
        "answered"
    );
}
