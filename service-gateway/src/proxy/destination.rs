//! The nodes that a request may be sent to, by its route and its tags.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use discovery::{ParseError, Resolver, Tags};

use super::budget::Budget;
use super::gateway::Worker;
use super::latency::Latency;
use crate::error::{Reason, Refusal};
use crate::metrics::Served;

/// The field with which a client limits the nodes to those with certain tags:
/// `x-service-tags: version=v2,region=cn`.
const SERVICE_TAGS: HeaderName = HeaderName::from_static("x-service-tags");

/// The nodes of a route that have the tags of a request.
pub(super) struct Destination<'a> {
    pub(super) resolver: Arc<Resolver>,
    pub(super) budget: &'a Budget,
    pub(super) latency: &'a Latency,
    /// The request's target without the route's prefix.
    pub(super) target: &'a str,
}

impl<'a> Destination<'a> {
    /// Finds the destination of a request with this target.
    ///
    /// # Errors
    /// If there is no route, the tags are malformed, or no node can have all of them.
    pub(super) fn of(
        worker: &'a Worker,
        request: &HttpRequest,
        target: &'a str,
        served: &mut Served,
    ) -> Result<Self, Refusal> {
        let path = request.uri().path();
        let gateway = &worker.gateway;
        let mut routes = gateway.routes.iter().enumerate();
        let (number, route) = routes
            .find(|(_, route)| route.cut(path).is_some())
            .ok_or_else(|| Reason::NoRoute.because("no route begins with this path"))?;
        gateway.metrics.went_to(served, &route.service);
        let target = &target[route.prefix.len()..];
        let mut destination = Self {
            resolver: worker.resolvers[number].clone(),
            budget: &gateway.budgets[number],
            latency: worker.latencies[number].of(target),
            target,
        };
        if !request.headers().contains_key(SERVICE_TAGS) {
            return Ok(destination);
        }
        let mut tags = route.tags.clone();
        for line in request.headers().get_all(SERVICE_TAGS) {
            tags = tags.and(&parse_tags(line)?).ok_or_else(|| {
                Reason::NoInstance.because(format!("{SERVICE_TAGS}: no node has all of these tags"))
            })?;
        }
        destination.resolver = gateway.discovery.resolver(&route.service, &tags);
        Ok(destination)
    }
}

fn parse_tags(line: &HeaderValue) -> Result<Tags, Refusal> {
    let bad = |error: &str| Reason::BadRequest.because(format!("{SERVICE_TAGS}: {error}"));
    let text = line.to_str().map_err(|_| bad("not text"))?;
    text.parse()
        .map_err(|error: ParseError| bad(&error.to_string()))
}
