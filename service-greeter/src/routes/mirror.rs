use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Data, Json, Payload};
use actix_web::{Error, HttpRequest};
use futures_util::TryStreamExt;
use serde::Serialize;

use crate::state::State;

/// A request as it arrived, for tests of what comes in between.
#[derive(Serialize)]
pub(crate) struct Mirror {
    method: String,
    /// The request target as it was sent: a path and a query, or a whole URL.
    target: String,
    version: String,
    /// Names in lower case and in alphabetical order, for the server does not keep theirs; the
    /// values of one name in the order they were sent in.
    headers: Vec<(String, String)>,
    /// How long the body was, without chunk headers.
    body_bytes: usize,
    /// The other end of the connection.
    peer: Option<String>,
    instance: String,
}

/// Any method, any header, any body: answered with what was received.
pub(crate) async fn anything(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<Json<Mirror>, Error> {
    let body_bytes = body
        .try_fold(0, async |sum, part| Ok(sum + part.len()))
        .await?;
    let mut headers: Vec<_> = request.headers().iter().map(text).collect();
    headers.sort_by(|(a, _), (b, _)| a.cmp(b)); // stable: the values of one name keep their order
    Ok(Json(Mirror {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        version: format!("{:?}", request.version()),
        headers,
        body_bytes,
        peer: request.peer_addr().map(|peer| peer.to_string()),
        instance: state.instance().to_string(),
    }))
}

fn text((name, value): (&HeaderName, &HeaderValue)) -> (String, String) {
    (
        name.to_string(),
        String::from_utf8_lossy(value.as_bytes()).into_owned(),
    )
}
