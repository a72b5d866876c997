use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::rt::time::sleep;
use actix_web::web::{Bytes, Json, Query};
use futures_util::stream;
use serde::{Deserialize, Serialize};

/// Milliseconds to wait, at most ten minutes.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Pause(Duration);

impl TryFrom<u64> for Pause {
    type Error = &'static str;

    fn try_from(ms: u64) -> Result<Self, Self::Error> {
        let pause = (ms <= 600_000).then(|| Duration::from_millis(ms));
        pause.map(Self).ok_or("expected 0 to 600000 milliseconds")
    }
}

#[derive(Deserialize)]
pub(crate) struct Slow {
    ms: Pause,
}

#[derive(Serialize)]
pub(crate) struct Waited {
    waited_ms: u128,
}

/// Answers after a while.
pub(crate) async fn slow(query: Query<Slow>) -> Json<Waited> {
    let Pause(pause) = query.ms;
    sleep(pause).await;
    Json(Waited {
        waited_ms: pause.as_millis(),
    })
}

#[derive(Deserialize)]
pub(crate) struct Chunks {
    n: u64,
    ms: Pause,
}

/// `n` chunks, a line each, with a pause between them: the first is sent at once.
pub(crate) async fn stream(query: Query<Chunks>) -> HttpResponse {
    let Chunks {
        n,
        ms: Pause(pause),
    } = query.into_inner();
    let chunks = stream::unfold(0, move |sent| async move {
        if sent == n {
            return None;
        }
        if sent > 0 {
            sleep(pause).await;
        }
        let line = Bytes::from(format!("chunk {} of {n}\n", sent + 1));
        Some((Ok::<_, Infallible>(line), sent + 1))
    });
    HttpResponse::Ok()
        .content_type(ContentType::plaintext())
        .streaming(chunks)
}
