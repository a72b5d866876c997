//! Which requests the admin port takes at all.
//!
//! A page of another site can make a browser on this network send requests here: its name first leads to
//! its own server, then to this port's address ([DNS rebinding][1]), so that the browser takes the responses
//! for the page's own. Its requests have that name as their `Host`, so names that a stranger can own are
//! refused.
//!
//! [1]: https://en.wikipedia.org/wiki/DNS_rebinding

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderName, HeaderValue, VIA};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpRequest, HttpResponse};

use std::net::IpAddr;

use super::Admin;
use crate::proxy::is_forwarded;

/// The paths that are for every host: they contain no more than a status, and what checks it may have a name
/// of its own for this host.
const FOR_EVERY_HOST: [&str; 2] = ["/health", "/ready"];

/// How far the host that a request is for can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostKind {
    /// An address, `localhost`, a name below it ([RFC 6761, section 6.3][1]), or one of `--admin-host`.
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc6761#section-6.3
    Trusted,
    /// A name without a dot, as containers have it: `gateway`. It is resolved on the local network, and
    /// a site cannot own it. Also a request without a host, which no browser sends.
    Local,
    /// Any other name.
    Foreign,
}

/// Refuses requests that came through a proxy or are for a foreign host, and answers HEAD wherever GET is
/// answered.
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
    let is_foreign = || host_kind(request.request()) == HostKind::Foreign;
    if !FOR_EVERY_HOST.contains(&request.path()) && is_foreign() {
        let detail = "the admin port is not known by this host: open it by its address, or add the \
                      host to --admin-host";
        return Ok(request.into_response(problem(StatusCode::FORBIDDEN, detail)));
    }
    if *request.method() == Method::HEAD {
        request.head_mut().method = Method::GET; // the connection omits the body
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn is_proxied(request: &HttpRequest) -> bool {
    let by_proxy = |name: &HeaderName| *name == VIA || is_forwarded(name.as_str().as_bytes());
    request.headers().keys().any(by_proxy)
}

/// Classifies the host that a request to the admin port is for.
pub(super) fn host_kind(request: &HttpRequest) -> HostKind {
    let received = request.headers().get(HOST);
    let host = match (request.uri().authority(), received) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => match Authority::try_from(HeaderValue::as_bytes(host)) {
            Ok(authority) => Some(authority),
            Err(_) => return HostKind::Foreign,
        },
        (None, None) => None,
    };
    let Some(host) = host else {
        return HostKind::Local;
    };
    let admin = request.app_data::<Data<Admin>>();
    let allowed = admin.map_or(&[][..], |admin| &admin.gateway.admin_hosts);
    kind(host.host(), allowed)
}

fn kind(host: &str, allowed: &[String]) -> HostKind {
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return HostKind::Trusted;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = |one: &str| name.eq_ignore_ascii_case(one);
    let top = name.rsplit('.').next().unwrap_or_default();
    if top.eq_ignore_ascii_case("localhost") || allowed.iter().any(|one| is_name(one)) {
        HostKind::Trusted
    } else if host.contains('.') {
        HostKind::Foreign
    } else {
        HostKind::Local
    }
}

/// Returns a refusal as `application/problem+json`.
pub(super) fn problem(status: StatusCode, detail: &str) -> HttpResponse {
    let title = status.canonical_reason();
    let body = serde_json::json!({"title": title, "status": status.as_u16(), "detail": detail});
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_trusted_local_or_foreign() {
        let allowed = ["gateway.example.com".to_owned()];
        for (host, expected) in [
            ("127.0.0.1", HostKind::Trusted),
            ("[::1]", HostKind::Trusted),
            ("LocalHost", HostKind::Trusted),
            ("localhost.", HostKind::Trusted),
            ("gateway.localhost", HostKind::Trusted),
            ("Gateway.Example.com", HostKind::Trusted),
            ("gateway.example.com.", HostKind::Trusted),
            ("gateway", HostKind::Local),
            ("gateway_1", HostKind::Local),
            ("ai.", HostKind::Foreign),
            ("example.com", HostKind::Foreign),
            ("a.gateway.example.com", HostKind::Foreign),
            ("localhost.example", HostKind::Foreign),
            ("notlocalhost.example", HostKind::Foreign),
            ("127.0.0.1.example", HostKind::Foreign),
        ] {
            assert_eq!(kind(host, &allowed), expected, "{host}");
        }
    }
}
