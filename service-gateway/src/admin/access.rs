//! Which requests the admin port takes at all.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, VIA};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpRequest};

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::actions::problem;
use crate::proxy::is_forwarded;

/// Refuses requests that came through a proxy, and answers HEAD wherever GET is answered.
///
/// If this port's address is registered as a node of another gateway, that one's clients could read the
/// page here, and its token, from wherever they are.
pub(crate) async fn guard(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if is_proxied(request.request()) {
        let detail = "the admin port takes no requests that came through a proxy: open it directly";
        return Ok(request.into_response(problem(StatusCode::FORBIDDEN, detail)));
    }
    if *request.method() != Method::HEAD {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    request.head_mut().method = Method::GET;
    let response = next.call(request).await?;
    Ok(response.map_body(|_, body| BoxBody::new(Empty(body.size()))))
}

fn is_proxied(request: &HttpRequest) -> bool {
    let by_proxy = |name: &HeaderName| *name == VIA || is_forwarded(name.as_str().as_bytes());
    request.headers().keys().any(by_proxy)
}

/// The body of a response to HEAD: none, with the length of that to GET.
struct Empty(BodySize);

impl MessageBody for Empty {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        match self.0 {
            BodySize::Stream => BodySize::None,
            size => size,
        }
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(None)
    }
}
