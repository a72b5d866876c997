//! To which nodes a request goes: one after another, or one beside another that keeps silent.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::Method;
use discovery::{Ejection, Endpoint, Error, InFlight, Resolver};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use super::Worker;
use super::answer_body::AnswerBody;
use super::attempt::{self, Failure};
use super::head::Head;
use super::origin::Origin;
use super::outgoing::Outgoing;
use super::upload::ClientBody;
use crate::descriptors::is_address_unavailable;
use crate::error::{Reason, Refusal};
use crate::metrics::Step;

/// An answer, who gave it, and how often the request had been sent by then.
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) body: AnswerBody,
    pub(super) endpoint: InFlight,
    pub(super) attempts: usize,
}

/// A request on its way to as many nodes as the rules allow, until one answers.
///
/// May it go to another node?
///
/// | after | any request | if it may be repeated |
/// |---|---|---|
/// | no descriptor, memory or buffer for a connection on this host | no | no |
/// | no connection, or a kept one that ended before anything was sent | yes | yes |
/// | a connection that broke before the end of the answer's head, or no HTTP | no | yes |
/// | a kept connection that ended before anything came | no | yes, to any node, over a new connection |
/// | silence, and then beside the silent node, not instead of it | no | yes |
/// | an answer, whatever its status | no | no |
///
/// It may be repeated if its method is idempotent ([RFC 9110, section 9.2.2][1]) and its body is
/// still held. It never goes to a node twice, unless a kept connection ended, which is no fault of
/// the node: others that were kept may end with it, so the next attempt trusts none of them. It is
/// never sent more often than `--attempts`, and never beyond the
/// [budget](super::budget::Budget) that all requests share, in which kept connections do not count:
/// each of them ends only once.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
pub(super) struct Race<'a> {
    worker: &'a Worker,
    resolver: &'a Resolver,
    outgoing: Outgoing<'a>,
    body: &'a ClientBody,
    may_repeat: bool,
    tried: Vec<Arc<Endpoint>>,
    attempts: usize,
    met_stale: bool,
    running: Vec<LocalBoxFuture<'a, Finish>>,
    /// When the latest attempt has been silent for too long, and when all of them have. Both wait
    /// for a body that is still being sent.
    patience: Instant,
    deadline: Instant,
}

type Finish = (InFlight, Result<(Head, AnswerBody), Failure>);

/// What may come before an attempt's end.
enum Interruption {
    /// The latest attempt has been silent for too long.
    Silence,
    /// All of them have.
    Late,
    /// The client broke its body off, or the limits with it.
    Cut(Refusal),
}

impl<'a> Race<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        resolver: &'a Resolver,
        outgoing: Outgoing<'a>,
        body: &'a ClientBody,
        deadline: Instant,
    ) -> Self {
        let may_repeat = is_idempotent(outgoing.request.method()) && body.is_held();
        let (tried, running) = (Vec::with_capacity(1), Vec::with_capacity(1));
        let patience = deadline;
        Self {
            worker,
            resolver,
            outgoing,
            body,
            may_repeat,
            tried,
            attempts: 0,
            met_stale: false,
            running,
            patience,
            deadline,
        }
    }

    /// Sends it until a node answers, or no other may be tried.
    pub(super) async fn run(mut self) -> Result<Answer, Refusal> {
        self.worker.gateway.budget.earn();
        self.begin()?;
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Ok((endpoint, Ok((head, body)))) => {
                    let good = !head.status.is_server_error();
                    endpoint.answered(good);
                    endpoint.ended(good);
                    return Ok(Answer {
                        head,
                        body,
                        endpoint,
                        attempts: self.attempts,
                    });
                }
                Ok((endpoint, Err(failure))) => self.replace(&endpoint, failure)?,
                Err(Interruption::Silence) => self.add_rival(),
                Err(Interruption::Late) => {
                    return Err(self.refusal(Reason::Timeout, "no answer in time"));
                }
                Err(Interruption::Cut(refusal)) => {
                    return Err(Refusal {
                        attempts: self.attempts,
                        ..refusal
                    });
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finish, Interruption>> {
        let finish = poll_finish(&mut self.running, cx);
        if let Some(refusal) = self.body.cut() {
            return Poll::Ready(Err(Interruption::Cut(refusal))); // for which no node is to blame
        }
        if let Poll::Ready(finish) = finish {
            return Poll::Ready(Ok(finish)); // what has come in time is not late
        }
        let gateway = &self.worker.gateway;
        let late = self.put_off(self.deadline, gateway.timeout);
        let silent = self.put_off(self.patience, gateway.hedge_after);
        ready!(self.outgoing.client.poll_over(late.min(silent), cx));
        Poll::Ready(Err(match late <= silent {
            true => Interruption::Late,
            false => Interruption::Silence,
        }))
    }

    /// A time that is not over as long as the client's body goes on, and `limit` after that.
    fn put_off(&self, time: Instant, limit: Duration) -> Instant {
        let moved = self.body.moved_at();
        moved.map_or(time, |moved| time.max(moved + limit))
    }

    /// Sends the request to a node that nothing speaks against.
    fn begin(&mut self) -> Result<(), Refusal> {
        let gateway = &self.worker.gateway;
        let request = self.outgoing.request;
        let client = Origin::of(request).map(|origin| origin.client(request.headers()));
        let key = client.as_ref().map(|client| &client.key[..]);
        let tried = &self.tried;
        let untried = |candidate: &Endpoint| !tried.iter().any(|e| e.address == candidate.address);
        let endpoint = match self.attempts {
            0 => self.resolver.resolve(key),
            _ => self.resolver.resolve_other(key, untried),
        };
        let endpoint = endpoint.map_err(|error: Error| self.refusal(Reason::NoInstance, error))?;
        let Some(body) = self.body.send() else {
            return Err(self.refusal(Reason::BadUpstream, "the request's body is gone"));
        };
        let request = self.outgoing.to(&endpoint, body, &gateway.via);
        self.worker.tally.count(Step::Attempt);
        self.tried.push(Arc::clone(&endpoint));
        self.attempts += 1;
        self.patience = Instant::now() + gateway.hedge_after;
        let answer = attempt::send(&self.worker.pool, endpoint.address, request, self.met_stale);
        self.running
            .push(answer.map(|answer| (endpoint, answer)).boxed_local());
        Ok(())
    }

    /// Goes to another node in place of one that failed, or gives up if there is nobody left who
    /// could answer.
    fn replace(&mut self, failed: &InFlight, failure: Failure) -> Result<(), Refusal> {
        log::debug!(instance:% = failed.address, error = failure.detail(); "attempt failed");
        if !matches!(failure, Failure::Stale(_) | Failure::Local(_)) {
            failed.ended(false);
        }
        match failure {
            Failure::NotConnected(_) => {
                failed.eject(Ejection::Unreachable);
            }
            Failure::Local(_) => {} // which says nothing about the node
            Failure::NoAnswer(_) if self.body.is_awaited() => {} // it waited for the client, as we do
            Failure::NoAnswer(_) | Failure::Unclear(_) => failed.answered(false),
            Failure::Stale(_) => {
                self.met_stale = true;
                self.tried.retain(|tried| tried.address != failed.address);
            }
        }
        if self.permits_another(&failure) && self.begin().is_ok() {
            self.worker.tally.count(Step::Retry);
            return Ok(());
        }
        match self.running.is_empty() {
            true => Err(self.refusal(failure.reason(), failure.detail())),
            false => Ok(()),
        }
    }

    /// Asks a silent node for its health, and another one for the answer.
    fn add_rival(&mut self) {
        let gateway = &self.worker.gateway;
        self.patience = Instant::now() + gateway.hedge_after;
        self.tried
            .iter()
            .for_each(|silent| gateway.suspects.report(silent));
        if self.may_repeat && self.may_try_more() && self.begin().is_ok() {
            self.worker.tally.count(Step::Hedge);
        }
    }

    fn permits_another(&self, failure: &Failure) -> bool {
        match failure {
            Failure::NotConnected(_) => self.may_try_more(),
            Failure::Local(error) => is_address_unavailable(error) && self.may_try_more(),
            Failure::NoAnswer(_) => self.may_repeat && self.may_try_more(),
            Failure::Stale(_) => self.may_repeat && self.attempts < self.worker.gateway.attempts,
            Failure::Unclear(_) => false,
        }
    }

    fn may_try_more(&self) -> bool {
        let gateway = &self.worker.gateway;
        if self.attempts >= gateway.attempts {
            return false;
        }
        let allowed = gateway.budget.spend();
        if !allowed {
            self.worker.tally.count(Step::BudgetRefusal);
        }
        allowed
    }

    fn refusal(&self, reason: Reason, detail: impl std::fmt::Display) -> Refusal {
        Refusal {
            attempts: self.attempts,
            ..reason.because(detail)
        }
    }
}

/// What became of the first attempt to end, of the few that are running.
fn poll_finish(
    running: &mut Vec<LocalBoxFuture<'_, Finish>>,
    cx: &mut Context<'_>,
) -> Poll<Finish> {
    for number in 0..running.len() {
        if let Poll::Ready(finish) = running[number].poll_unpin(cx) {
            drop(running.swap_remove(number));
            return Poll::Ready(finish);
        }
    }
    Poll::Pending
}

pub(super) fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ]
    .contains(method)
}
