//! What can be asked for.

use actix_web::web::{self, PathConfig, QueryConfig, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, Resource, Responder};

use crate::problem::Problem;

mod body;
mod common;
mod delay;
mod greet;
mod mirror;
mod websocket;

pub(crate) use common::common;

/// Every route of the service. Each answers HEAD where it answers GET.
pub(crate) fn configure(routes: &mut ServiceConfig) {
    routes
        .app_data(PathConfig::default().error_handler(|e, _| Problem::bad_request(e).into()))
        .app_data(QueryConfig::default().error_handler(|e, _| Problem::bad_request(e).into()))
        .service(get("/greet/{name}", greet::greet))
        .service(get("/health", greet::health))
        .service(get("/metrics", greet::metrics))
        .service(get("/status/{code}", greet::status))
        .service(get("/slow", delay::slow))
        .service(get("/stream", delay::stream))
        .service(get("/bytes/{n}", body::bytes))
        .service(only(
            "POST",
            web::resource("/echo").route(web::post().to(body::echo)),
        ))
        .service(only(
            "GET",
            web::resource("/ws").route(web::get().to(websocket::echo)),
        ))
        .service(web::resource(["/anything", "/anything/{rest:.*}"]).to(mirror::anything))
        .default_service(web::to(not_found));
}

fn get<H, T>(path: &str, handler: H) -> Resource
where
    H: Handler<T> + Clone,
    T: FromRequest + 'static,
    H::Output: Responder + 'static,
{
    let resource = web::resource(path).route(web::get().to(handler.clone()));
    only("GET, HEAD", resource.route(web::head().to(handler)))
}

fn only(methods: &'static str, resource: Resource) -> Resource {
    let refuse = move || async move { Err::<&str, _>(Problem::method_not_allowed(methods)) };
    resource.default_service(web::to(refuse))
}

async fn not_found(request: HttpRequest) -> Result<&'static str, Problem> {
    Err(Problem::not_found(&request))
}
