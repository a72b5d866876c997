use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

/// Tells how often a request was sent.
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("x-gateway-attempts");

/// Why the gateway itself answered, in place of a node. The names are part of the interface: they
/// are the `reason` in the answer and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The request's head, target, tags or framing make no sense.
    BadRequest,
    /// No route begins with this path.
    NoRoute,
    /// No node to send it to, or none known yet.
    NoInstance,
    /// No connection to any node that was tried.
    ConnectFailed,
    /// The node's answer broke off or was none.
    BadUpstream,
    /// No answer in time.
    Timeout,
    /// The request's head or body did not come in time.
    SlowRequest,
    /// The request's target is longer than allowed.
    TargetTooLong,
    /// The request's head has more fields or bytes than allowed.
    HeadTooLarge,
    /// The request's body is larger than allowed.
    TooLarge,
    /// There are as many requests or connections as allowed, or as this host has room for.
    Overloaded,
    /// The request has been here before.
    Loop,
    /// A method that is not for gateways.
    NotImplemented,
}

/// A request that could not be proxied: what the client gets to read instead.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) attempts: usize,
}

/// The body of such an answer ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    reason: Reason,
    detail: &'a str,
    attempts: usize,
}

impl Reason {
    pub(crate) const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::NoRoute,
        Self::NoInstance,
        Self::ConnectFailed,
        Self::BadUpstream,
        Self::Timeout,
        Self::SlowRequest,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::TooLarge,
        Self::Overloaded,
        Self::Loop,
        Self::NotImplemented,
    ];

    /// The reason as it is written in answers and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NoRoute => "no_route",
            Self::NoInstance => "no_instance",
            Self::ConnectFailed => "connect_failed",
            Self::BadUpstream => "bad_upstream",
            Self::Timeout => "timeout",
            Self::SlowRequest => "slow_request",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::NotImplemented => "not_implemented",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoInstance | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectFailed | Self::BadUpstream => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// A refusal for this reason before anything was sent to a node.
    pub(crate) fn because(self, detail: impl fmt::Display) -> Refusal {
        Refusal {
            reason: self,
            detail: detail.to_string(),
            attempts: 0,
        }
    }
}

impl Refusal {
    /// The body of the response, in JSON.
    pub(crate) fn problem(&self) -> String {
        let status = self.reason.status();
        let problem = Problem {
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            reason: self.reason,
            detail: &self.detail,
            attempts: self.attempts,
        };
        serde_json::to_string(&problem).expect("numbers and texts are JSON")
    }

    pub(crate) fn respond(&self) -> HttpResponse {
        let status = self.reason.status();
        let mut response = HttpResponseBuilder::new(status);
        response.content_type("application/problem+json");
        response.insert_header((ATTEMPTS, HeaderValue::from(self.attempts)));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, HeaderValue::from(1)));
        }
        response.body(self.problem())
    }
}
