//! A node's answer as the client gets it.

use std::time::Duration;

use actix_web::body::{BodySize, BoxBody};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use discovery::Endpoint;
use http1::ReasonPhrase;
use upstream::ResponseHead;

use super::attempts::Answer;
use super::request_body::ClientBody;
use super::response_body::{Download, Idle};
use crate::client::Exchange;
use crate::error::ATTEMPTS;

/// Which instance answered.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Which version it has.
pub(super) const SERVED_VERSION: HeaderName = HeaderName::from_static("x-served-version");

/// Passes an answer on, its body as it arrives.
pub(super) fn respond(
    request: &HttpRequest,
    answer: Answer,
    upload: ClientBody,
    idle_timeout: Duration,
    exchange: Exchange,
) -> HttpResponse {
    let Answer {
        head,
        body,
        endpoint,
        attempts,
    } = answer;
    let size = body_size(request.method(), &head);
    let idle = Idle::new(idle_timeout);
    let served_by = endpoint.clone();
    let download = BoxBody::new(Download {
        body,
        size,
        upload,
        idle,
        endpoint,
        exchange,
    });
    with_head(head, &served_by, attempts, download)
}

/// A response with the node's status and headers, and who it was.
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
        headers.insert(CONTENT_LENGTH, length.into()); // the length of what the client has
    }
    say(headers, SERVED_BY, Some(endpoint.authority()));
    say(headers, SERVED_VERSION, endpoint.version());
    headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    response
}

/// Says it in place of whatever the node may have said there.
fn say(headers: &mut HeaderMap, name: HeaderName, text: Option<&str>) {
    match text.map(HeaderValue::from_str) {
        Some(Ok(value)) => drop(headers.insert(name, value)),
        Some(Err(_)) | None => drop(headers.remove(name)),
    }
}

/// How the client learns where the body ends.
fn body_size(method: &Method, head: &ResponseHead) -> BodySize {
    match (head.status.as_u16(), head.length) {
        (204 | 304, _) => BodySize::None,
        (_, Some(length)) => BodySize::Sized(length),
        (_, None) if *method == Method::HEAD => BodySize::None,
        (_, None) => BodySize::Stream,
    }
}
