//! The picture of all this, in a browser. It comes whole from here: nothing of it is elsewhere.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{Data, ServiceConfig, get};
use actix_web::{HttpRequest, HttpResponse, Responder};

use super::Admin;
use super::access::{HostKind, host_kind};

/// A browser loads nothing from another host, runs nothing that is written into the page, and shows
/// it in no other site's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/", get().to(page))
        .route("/page.css", get().to(async || file("text/css", STYLE)))
        .route(
            "/page.js",
            get().to(async || file("text/javascript", SCRIPT)),
        )
        .route("/icon.svg", get().to(async || file("image/svg+xml", ICON)));
}

/// The page, with the token for those who may act. It is left out where a stranger's page could
/// read it.
async fn page(request: HttpRequest, admin: Data<Admin>) -> impl Responder {
    let token = admin.token.as_ref();
    let token = token.filter(|_| host_kind(&request) == HostKind::Trusted);
    let token = token.map(ToString::to_string).unwrap_or_default();
    file("text/html", PAGE.replace("{{token}}", &token))
}

fn file(kind: &str, text: impl Into<String>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(format!("{kind}; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text.into())
}
