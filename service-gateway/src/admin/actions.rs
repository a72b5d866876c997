//! What can be pressed on the page, if the gateway allows it: drain a node, and release it.
//!
//! A browser must not be made to press it by another site's page. Such a page cannot read the token,
//! nor send a header of its own without asking us first, which nobody answers; and one whose name
//! was made to lead here is [refused](super::access), or has no token if it is a name without a dot.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{HOST, ORIGIN};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use anyhow::Context;
use discovery::{Endpoint, ServiceName};
use serde::Deserialize;

use super::Admin;
use super::access::{HostKind, host_kind, problem};

/// Where a node can be drained or released.
pub(super) const PATH: &str = "/api/services/{service}/instances/{instance}/{action}";

/// The header with the token.
const TOKEN: &str = "x-admin-token";

/// A secret that is on the page, made anew by every gateway.
pub(super) struct Token(String);

#[derive(Deserialize)]
pub(super) struct Target {
    service: String,
    instance: String,
    action: Action,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Drain,
    Release,
}

impl Token {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).context("random numbers for the admin token")?;
        Ok(Self(format!("{:032x}", u128::from_ne_bytes(bytes))))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Drains or releases a node.
pub(super) async fn act(
    request: HttpRequest,
    target: Path<Target>,
    admin: Data<Admin>,
) -> HttpResponse {
    if let Err(detail) = admin.permit(&request) {
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let is_known = match admin.endpoint(&target) {
        Some(endpoint) => {
            match target.action {
                Action::Drain => endpoint.drain(),
                Action::Release => endpoint.undrain(),
            }
            true
        }
        None => matches!(target.action, Action::Release) && admin.release_unlisted(&target),
    };
    if is_known {
        HttpResponse::NoContent().finish()
    } else {
        problem(StatusCode::NOT_FOUND, "no such node")
    }
}

impl Admin {
    fn permit(&self, request: &HttpRequest) -> Result<(), &'static str> {
        let header = |name| request.headers().get(name)?.to_str().ok();
        let token = self
            .token
            .as_ref()
            .ok_or("the gateway runs without --admin-actions")?;
        if host_kind(request) != HostKind::Trusted {
            return Err("open the page by its address, as localhost, or as one of --admin-host");
        }
        let host = header(HOST.as_str()).unwrap_or_default();
        if header(ORIGIN.as_str()).is_some_and(|origin| origin != format!("http://{host}")) {
            return Err("another site's page asks for this");
        }
        match header(TOKEN) {
            Some(given) if given == token.0 => Ok(()),
            _ => Err("the header x-admin-token is not the page's: reload the page"),
        }
    }

    fn endpoint(&self, target: &Target) -> Option<Arc<Endpoint>> {
        let service: ServiceName = target.service.parse().ok()?;
        let address: SocketAddr = target.instance.parse().ok()?;
        let views = self.views();
        let endpoints = views.get(&service)?.as_ref()?.endpoints();
        let index = endpoints.binary_search_by_key(&address, |endpoint| endpoint.address);
        Some(endpoints[index.ok()?].clone())
    }

    /// Undrains an address where no node is registered now. Returns whether it was drained.
    fn release_unlisted(&self, target: &Target) -> bool {
        let (service, address) = (target.service.parse(), target.instance.parse());
        let (Ok(service), Ok(address)) = (service, address) else {
            return false;
        };
        let views = self.views();
        let view = views.get::<ServiceName>(&service).and_then(Option::as_ref);
        view.is_some_and(|view| view.undrain(address))
    }
}
