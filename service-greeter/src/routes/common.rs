use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use log::debug;

use crate::state::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all answers have in common: the request's id, the hint to connect elsewhere while this
/// instance drains, no body for HEAD, and a line in the log.
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
    if response.request().method() == Method::HEAD {
        return Ok(response.map_body(|_, body| BoxBody::new(OnlySize(body.size()))));
    }
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

/// A body of which only the size is told. The server would produce the whole body of an answer to
/// HEAD, however large or slow, and then not send it.
struct OnlySize(BodySize);

impl MessageBody for OnlySize {
    type Error = Error;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        Poll::Ready(None)
    }
}
