use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::state::State;

/// What the service is for. The fields appear in this order.
#[derive(Serialize)]
pub(crate) struct Greeting {
    message: String,
    /// The address others know this instance by.
    instance: String,
    /// Null if the instance has no tag `version`, so that all greetings have the same fields.
    version: Option<String>,
}

pub(crate) async fn greet(name: Path<String>, state: Data<State>) -> Json<Greeting> {
    Json(Greeting {
        message: format!("Hello, {name}!"),
        instance: state.instance().to_string(),
        version: state.version.clone(),
    })
}

/// 200 while this instance wants requests, 503 as soon as it is leaving.
pub(crate) async fn health(state: Data<State>) -> (Json<Value>, StatusCode) {
    match state.draining.is_cancelled() {
        false => (Json(json!({"status": "serving"})), StatusCode::OK),
        true => (
            Json(json!({"status": "draining"})),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    }
}

/// What Prometheus reads.
pub(crate) async fn metrics(state: Data<State>) -> impl Responder {
    state
        .metrics
        .text(state.is_registered())
        .customize()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
}

/// A status that ends an exchange: those below 200 announce another one.
#[derive(Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct FinalStatus(StatusCode);

impl TryFrom<u16> for FinalStatus {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        let status = StatusCode::from_u16(code)
            .ok()
            .filter(|_| (200..600).contains(&code));
        status.map(Self).ok_or("expected a status from 200 to 599")
    }
}

/// Any status, without a body.
pub(crate) async fn status(code: Path<FinalStatus>) -> HttpResponse {
    HttpResponse::new(code.0)
}
