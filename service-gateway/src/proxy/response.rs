//! The response to the client, from the response of a node.

use std::time::Duration;

use actix_web::body::{BodySize, BoxBody};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use discovery::Endpoint;
use http1::ReasonPhrase;
use upstream::ResponseHead;

use super::attempts::UpstreamResponse;
use super::request_body::ClientBody;
use super::response_body::{IdleTimeout, ResponseStream};
use crate::client::Exchange;
use crate::error::ATTEMPTS;

/// The field with the address of the node.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The field with the version of the node.
pub(super) const SERVED_VERSION: HeaderName = HeaderName::from_static("x-served-version");

/// Forwards a response, its body as it is received.
pub(super) fn respond(
    request: &HttpRequest,
    response: UpstreamResponse,
    request_body: ClientBody,
    idle_timeout: Duration,
    exchange: Exchange,
) -> HttpResponse {
    let UpstreamResponse {
        head,
        body,
        endpoint,
        attempts,
    } = response;
    let size = body_size(request.method(), &head);
    let idle = IdleTimeout::new(idle_timeout);
    let served_by = endpoint.clone();
    let body = BoxBody::new(ResponseStream {
        body,
        size,
        request_body,
        idle,
        endpoint,
        exchange,
    });
    with_head(head, &served_by, attempts, body)
}

/// Creates a response with the node's status and fields, and the fields that describe the node.
pub(super) fn with_head(
    head: ResponseHead,
    endpoint: &Endpoint,
    attempts: usize,
    body: BoxBody,
) -> HttpResponse {
    let mut response = HttpResponse::with_body(head.status, body);
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(ReasonPhrase(reason));
    }
    let headers = response.headers_mut();
    *headers = head.headers;
    if let (StatusCode::NOT_MODIFIED, Some(length)) = (head.status, head.length) {
        headers.insert(CONTENT_LENGTH, length.into()); // the length of the stored response
    }
    set(headers, SERVED_BY, Some(endpoint.authority()));
    set(headers, SERVED_VERSION, endpoint.version());
    headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    response
}

/// Sets a field, or removes what the node has sent in it.
fn set(headers: &mut HeaderMap, name: HeaderName, text: Option<&str>) {
    match text.map(HeaderValue::from_str) {
        Some(Ok(value)) => drop(headers.insert(name, value)),
        Some(Err(_)) | None => drop(headers.remove(name)),
    }
}

/// Returns the framing of the body for the client.
fn body_size(method: &Method, head: &ResponseHead) -> BodySize {
    match (head.status.as_u16(), head.length) {
        (204 | 304, _) => BodySize::None,
        (_, Some(length)) => BodySize::Sized(length),
        (_, None) if *method == Method::HEAD => BodySize::None,
        (_, None) => BodySize::Stream,
    }
}
