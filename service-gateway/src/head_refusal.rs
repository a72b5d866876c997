//! Responses to heads that are malformed, too large or too slow, so that there is no request to serve:
//! counted, logged, and with a request id like any other.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::Response;
use actix_http::body::BoxBody;
use actix_web::http::header::HeaderValue;
use http1::HeadError;
use tokio::time::Instant;

use crate::access_log::{self, AccessLog, Line};
use crate::error::Reason;
use crate::metrics::{Served, Tally};
use crate::request_id::{self, REQUEST_ID};

/// Answers, counts and logs the refusals of one worker.
pub(crate) struct HeadRefusals {
    tally: Rc<Tally>,
    access_log: Option<Arc<AccessLog>>,
}

impl HeadRefusals {
    pub(crate) fn new(tally: Rc<Tally>, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { tally, access_log }
    }

    /// Counts and logs a refusal, and returns the response.
    pub(crate) fn refuse(
        &self,
        error: HeadError,
        client: Option<IpAddr>,
        began: Instant,
    ) -> Response<BoxBody> {
        let reason = reason(error);
        let refusal = reason.because(error);
        let (status, id, duration) = (reason.status(), request_id::generate(), began.elapsed());
        self.tally.refused(reason);
        self.tally
            .answered(Served::default(), status.as_u16(), duration);
        if let Some(log) = &self.access_log {
            log.write(Line {
                time: access_log::came(duration),
                client,
                method: None,
                path: None,
                status: status.as_u16(),
                service: None,
                instance: None,
                version: None,
                attempts: 0,
                duration,
                bytes: refusal.problem().len() as u64,
                request_id: id.to_str().unwrap_or_default().to_owned(),
                trace_id: None,
            });
        }
        respond(refusal.respond(), id)
    }
}

fn respond(mut response: actix_web::HttpResponse, id: HeaderValue) -> Response<BoxBody> {
    response.headers_mut().insert(REQUEST_ID, id);
    response.into()
}

fn reason(error: HeadError) -> Reason {
    match error {
        HeadError::Malformed => Reason::BadRequest,
        HeadError::TargetTooLong => Reason::TargetTooLong,
        HeadError::TooLarge => Reason::HeadTooLarge,
        HeadError::TooSlow => Reason::SlowRequest,
    }
}
