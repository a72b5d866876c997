//! The state, told to all who listen whenever it changes ([server-sent events][1]).
//!
//! [1]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::convert::Infallible;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpResponse, Responder};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;

use super::Admin;

/// The last event, as it goes to every listener. One who is too slow for all gets the latest.
pub(super) struct Feed(watch::Sender<Bytes>);

impl Default for Feed {
    fn default() -> Self {
        Self(watch::Sender::new(Bytes::new()))
    }
}

impl Feed {
    pub(super) fn has_listeners(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells the state if it is not the one that was told last. It is written once, however many
    /// listen.
    pub(super) fn tell(&self, admin: &Admin) {
        let event = format!("event: state\ndata: {}\n", admin.state());
        // Rates are differences, over a time that must not depend on how long an event travels.
        let id = admin.began.elapsed().as_millis();
        self.0.send_if_modified(|last| {
            let is_new = !last.starts_with(event.as_bytes());
            if is_new {
                *last = format!("{event}id: {id}\n\n").into();
            }
            is_new
        });
    }
}

/// The state now, and after every change.
pub(super) async fn events(admin: Data<Admin>) -> impl Responder {
    let leaving = admin.gateway.leaving.clone();
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(states(&admin).take_until(leaving.cancelled_owned()))
}

fn states(admin: &Admin) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let mut states = admin.feed.0.subscribe();
    admin.feed.tell(admin); // what was told last may have been long ago
    states.mark_changed();
    stream::unfold(states, |mut states| async move {
        states.changed().await.ok()?;
        let state = states.borrow_and_update().clone();
        Some((Ok(state), states))
    })
}
