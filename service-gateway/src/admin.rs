//! The port for those who look after the gateway. Nothing of it is on the proxy port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{Accept, CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use actix_web::web::{Bytes, Data, Header, ServiceConfig, get};
use actix_web::{HttpResponse, Responder};
use discovery::{Ejection, Endpoint, ServiceName, Tags, View};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::time::interval;

use crate::metrics::{Format, Situation};
use crate::proxy::Gateway;

/// How often a listener of `/api/events` may be told of a change.
const EVENT_INTERVAL: Duration = Duration::from_millis(250);

/// What the admin port shows.
pub(crate) struct Admin {
    pub(crate) gateway: Arc<Gateway>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(health))
        .route("/ready", get().to(ready))
        .route("/metrics", get().to(metrics))
        .route("/api/instances", get().to(instances))
        .route("/api/events", get().to(events))
        .route("/", get().to(page))
        .route("/page.css", get().to(style))
        .route("/page.js", get().to(script));
}

/// Everything a picture of the gateway needs.
#[derive(Serialize)]
struct State {
    services: Vec<Service>,
}

#[derive(Serialize)]
struct Service {
    service: String,
    registry: Registry,
    instances: Vec<Instance>,
}

#[derive(Serialize)]
struct Registry {
    state: &'static str,
    revision: u64,
    skipped_entries: usize,
    stale_for_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Instance {
    instance: String,
    version: Option<String>,
    tags: Tags,
    state: &'static str,
    ejected: Option<&'static str>,
    in_flight: usize,
}

impl Admin {
    fn views(&self) -> BTreeMap<&ServiceName, Option<Arc<View>>> {
        let discovery = &self.gateway.discovery;
        let services = self.gateway.routes.iter().map(|route| &route.service);
        services
            .map(|service| (service, discovery.view(service)))
            .collect()
    }

    fn state(&self) -> State {
        let services = self
            .views()
            .into_iter()
            .map(|(name, view)| Service::new(name, view.as_deref()));
        State {
            services: services.collect(),
        }
    }
}

impl Service {
    fn new(name: &ServiceName, view: Option<&View>) -> Self {
        let stale = view.and_then(View::stale_for);
        let state = match (view, stale) {
            (None, _) => "pending",
            (Some(_), None) => "connected",
            (Some(_), Some(_)) => "away",
        };
        let registry = Registry {
            state,
            revision: view.map_or(0, View::revision),
            skipped_entries: view.map_or(0, View::skipped),
            stale_for_seconds: stale.map(|stale| stale.as_secs()),
        };
        let endpoints = view
            .map(View::endpoints)
            .into_iter()
            .flat_map(|endpoints| endpoints.iter());
        let instances = endpoints.map(|endpoint| Instance::new(endpoint)).collect();
        Self {
            service: name.to_string(),
            registry,
            instances,
        }
    }
}

impl Instance {
    fn new(endpoint: &Endpoint) -> Self {
        let ejected = endpoint.ejected();
        let state = match ejected {
            Some(_) => "ejected",
            None if endpoint.is_unconfirmed() => "unconfirmed",
            None => "up",
        };
        Self {
            instance: endpoint.address.to_string(),
            version: endpoint.version().map(str::to_owned),
            tags: endpoint.tags.clone(),
            state,
            ejected: ejected.map(Ejection::as_str),
            in_flight: endpoint.in_flight(),
        }
    }
}

/// 200 while serving, 503 while leaving.
async fn health(admin: Data<Admin>) -> impl Responder {
    match admin.gateway.leaving.is_cancelled() {
        false => HttpResponse::Ok().json(serde_json::json!({"status": "ok"})),
        true => HttpResponse::ServiceUnavailable().json(serde_json::json!({"status": "leaving"})),
    }
}

/// 200 as soon as every route's service has had its first list: before that, requests wait or fail.
async fn ready(admin: Data<Admin>) -> impl Responder {
    let pending = admin.views().into_iter().filter(|(_, view)| view.is_none());
    let pending: Vec<_> = pending.map(|(name, _)| name.to_string()).collect();
    match pending.is_empty() && !admin.gateway.leaving.is_cancelled() {
        true => HttpResponse::Ok().json(serde_json::json!({"status": "ready"})),
        false => {
            let body = serde_json::json!({"status": "not ready", "waiting_for": pending});
            HttpResponse::ServiceUnavailable()
                .insert_header(("retry-after", "1"))
                .json(body)
        }
    }
}

async fn metrics(admin: Data<Admin>, accept: Header<Accept>) -> impl Responder {
    let gateway = &admin.gateway;
    let situation = Situation {
        views: admin.views().into_iter().collect(),
        clients: &gateway.clients,
        access_log: gateway.access_log.as_deref(),
    };
    let format = Format::wanted(&accept);
    HttpResponse::Ok()
        .content_type(format.content_type())
        .body(gateway.metrics.text(&situation, format))
}

async fn instances(admin: Data<Admin>) -> impl Responder {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(admin.state())
}

/// The same as `/api/instances`, again after every change ([server-sent events][1]).
///
/// [1]: https://html.spec.whatwg.org/multipage/server-sent-events.html
async fn events(admin: Data<Admin>) -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(changes(admin))
}

fn changes(admin: Data<Admin>) -> impl Stream<Item = Result<Bytes, serde_json::Error>> {
    let state = (admin, interval(EVENT_INTERVAL), String::new());
    stream::try_unfold(state, |(admin, mut ticks, mut last)| async move {
        while !admin.gateway.leaving.is_cancelled() {
            ticks.tick().await;
            let state = serde_json::to_string(&admin.state())?;
            if state != last {
                last = state;
                let event = Bytes::from(format!("event: state\ndata: {last}\n\n"));
                return Ok(Some((event, (admin, ticks, last))));
            }
        }
        Ok(None)
    })
}

/// The picture of all this, in a browser.
async fn page() -> impl Responder {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'";
    HttpResponse::Ok()
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .content_type("text/html; charset=utf-8")
        .body(include_str!("admin/page.html"))
}

async fn style() -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/css")
        .body(include_str!("admin/page.css"))
}

async fn script() -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/javascript")
        .body(include_str!("admin/page.js"))
}
