//! The port for those who look after the gateway. Nothing of it is on the proxy port.
//!
//! `admin/state.rs` is what there is to see, `admin/feed.rs` tells it again and again,
//! `admin/history.rs` remembers what changed, `admin/page.rs` is the page that draws all of it, and
//! `admin/actions.rs` what can be pressed there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{Accept, CACHE_CONTROL};
use actix_web::web::{Data, Header, ServiceConfig, get, post};
use actix_web::{HttpResponse, Responder};
use discovery::{ServiceName, View};
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{Format, Situation};
use crate::proxy::Gateway;

mod access;
mod actions;
mod feed;
mod history;
mod page;
mod state;

pub(crate) use access::guard;
use actions::Token;
use feed::Feed;
use history::History;
use state::{Service, State};

/// How often it looks for changes, and tells those who listen.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The nodes of a service that a page gets to see, at most. More would fit on no screen.
const MOST_SHOWN: usize = 250;

/// What the admin port shows.
pub(crate) struct Admin {
    pub(crate) gateway: Arc<Gateway>,
    began: Instant,
    history: History,
    feed: Feed,
    /// What those have to know who want to act. `None` while nobody may.
    token: Option<Token>,
}

type Views<'a> = BTreeMap<&'a ServiceName, Option<Arc<View>>>;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(health))
        .route("/ready", get().to(ready))
        .route("/metrics", get().to(metrics))
        .route("/api/instances", get().to(instances))
        .route("/api/events", get().to(feed::events))
        .route(actions::PATH, post().to(actions::act))
        .configure(page::routes);
}

impl Admin {
    /// # Errors
    /// If there shall be actions and the system has no random numbers for their token.
    pub(crate) fn new(gateway: Arc<Gateway>, with_actions: bool) -> anyhow::Result<Self> {
        let began = Instant::now();
        Ok(Self {
            gateway,
            began,
            history: History::new(began),
            feed: Feed::default(),
            token: with_actions.then(Token::new).transpose()?,
        })
    }

    /// Looks for changes, remembers them, and tells those who listen. Has no end.
    pub(crate) async fn run(&self) -> Infallible {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let views = self.views();
            self.history.look(&views);
            let known = views
                .iter()
                .filter_map(|(name, view)| Some((*name, view.as_deref()?)));
            self.gateway.metrics.forget_versions(known);
            if self.feed.has_listeners() {
                self.feed.tell(self);
            }
        }
    }

    /// What is known of the routes' services.
    fn views(&self) -> Views<'_> {
        let discovery = &self.gateway.discovery;
        let services = self.gateway.routes.iter().map(|route| &route.service);
        services
            .map(|service| (service, discovery.view(service)))
            .collect()
    }

    /// The whole state in JSON, as a page gets it.
    fn state(&self) -> String {
        let views = self.views();
        let state = State {
            uptime_seconds: self.began.elapsed().as_secs(),
            totals: self.gateway.metrics.totals(),
            services: state::services(&views, MOST_SHOWN),
            events: &self.history.events(),
        };
        serde_json::to_string(&state).expect("numbers and texts are JSON")
    }
}

/// 200 as long as the process serves, draining or not: a process that drains needs no restart.
async fn health(admin: Data<Admin>) -> impl Responder {
    let status = match admin.gateway.clients.is_draining() {
        false => "ok",
        true => "draining",
    };
    HttpResponse::Ok().json(serde_json::json!({"status": status}))
}

/// 200 as soon as every route's service has had its first list, and until the drain begins: before
/// that, requests wait or fail.
async fn ready(admin: Data<Admin>) -> impl Responder {
    let pending = admin.views().into_iter().filter(|(_, view)| view.is_none());
    let pending: Vec<_> = pending.map(|(name, _)| name.to_string()).collect();
    let status = if admin.gateway.clients.is_draining() {
        "draining"
    } else if pending.is_empty() {
        return HttpResponse::Ok().json(serde_json::json!({"status": "ready"}));
    } else {
        "not ready"
    };
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", "1"))
        .json(serde_json::json!({"status": status, "waiting_for": pending}))
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

/// Every node of every service.
async fn instances(admin: Data<Admin>) -> impl Responder {
    let views = admin.views();
    let services: Vec<Service> = state::services(&views, usize::MAX);
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"services": services}))
}
