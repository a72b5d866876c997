use std::convert::Infallible;
use std::sync::LazyLock;

use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_TYPE, ContentType};
use actix_web::web::{Bytes, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde::Deserialize;

/// How many bytes to send, at most 10 GiB.
#[derive(Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Length(u64);

impl TryFrom<u64> for Length {
    type Error = &'static str;

    fn try_from(length: u64) -> Result<Self, Self::Error> {
        let sound = length <= 10 << 30;
        sound
            .then_some(Self(length))
            .ok_or("expected 0 to 10737418240 bytes")
    }
}

/// The alphabet over and over, so that the byte at any offset is known: `b'a' + offset % 26`.
static CHUNK: LazyLock<Bytes> = LazyLock::new(|| "abcdefghijklmnopqrstuvwxyz".repeat(2520).into());

/// That many bytes, with a `content-length`.
pub(crate) async fn bytes(length: Path<Length>) -> HttpResponse {
    let Length(length) = length.into_inner();
    let chunks = stream::unfold(length, |rest| async move {
        let size = CHUNK.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        (size > 0).then(|| (Ok::<_, Infallible>(CHUNK.slice(..size)), rest - size as u64))
    });
    let body = SizedStream::new(length, Box::pin(chunks));
    HttpResponse::Ok()
        .content_type(ContentType::octet_stream())
        .body(body)
}

/// The request's body as the response's, each part as soon as it arrives.
///
/// The server closes the connection after a response that began before the body had arrived.
pub(crate) async fn echo(request: HttpRequest, body: Payload) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(kind) = request.headers().get(CONTENT_TYPE) {
        response.insert_header((CONTENT_TYPE, kind.clone()));
    }
    response.streaming(body)
}
