//! To which nodes a request goes: one after another, or one beside another that keeps silent.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::Method;
use discovery::{Endpoint, Error, InFlight, ProbeKind};
use tokio::time::Instant;
use upstream::{Connection, ResponseBody, ResponseHead, is_address_unavailable};

use super::attempt::{Attempt, Failure, Sent, StageEnd};
use super::destination::Destination;
use super::gateway::Worker;
use super::outlier::End;
use super::request_body::ClientBody;
use super::upstream_request::Outgoing;
use crate::error::{Reason, Refusal};
use crate::metrics::Step;

/// How long an attempt may have no connection before another node is tried too: the delay that [RFC 8305,
/// section 8][1] recommends, or `--hedge-after` if that is less. A lost SYN is sent again after a second.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc8305#section-8
const CONNECT_DELAY: Duration = Duration::from_millis(250);

/// An answer, who gave it, and how often the request had been sent by then.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: ResponseBody,
    pub(super) endpoint: InFlight,
    pub(super) attempts: usize,
}

/// A request on its way to as many nodes as the rules allow, until one answers.
///
/// May it go to another node?
///
/// | after | any request | if it may be repeated | if it may be hedged |
/// |---|---|---|---|
/// | no descriptor, memory or buffer for a connection on this host | no | no | no |
/// | no connection, or a kept one that ended before anything was sent | yes | yes | yes |
/// | no connection for [`CONNECT_DELAY`], and then beside that attempt | yes | yes | yes |
/// | a connection that broke before the end of the answer's head, or no HTTP | no | yes | yes |
/// | a kept connection that ended before anything came | no | yes, to any node, over a new connection | the same |
/// | silence for the hedging delay, and then beside the silent node, not instead of it | no | no | yes, once |
/// | a 5xx answer of a half-open node that this request was to probe | no | no | yes |
/// | any other answer, whatever its status | no | no | no |
///
/// It may be repeated if its method is idempotent ([RFC 9110, section 9.2.2][1]) and its body is
/// still held. It may be hedged if its method is safe too ([section 9.2.1][2]), since both nodes may
/// execute it, at times that nobody controls, and if it does not ask for WebSocket. The hedging delay is
/// `--hedge-after`, or more where [responses usually take longer](super::latency) and the silent node is
/// neither ejected nor probed.
///
/// Of several attempts that connect, the one that has a connection first sends the request, and the others
/// are given up before it does: connecting sends nothing, so any request may do that, and none is
/// executed twice. Their connections are [left to connect](Attempt::leave_connecting).
///
/// It never goes to a node twice, unless a kept connection ended, which is no fault of
/// the node: others that were kept may end with it, so the next attempt trusts none of them. It is
/// never sent more often than `--attempts`, and never beyond the
/// [budget](super::budget::Budget) that all requests to its service share, in which kept connections do
/// not count: each of them ends only once. Nor does the second attempt of a probe, of which there is one
/// at a time for each node.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
/// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
pub(super) struct Race<'a> {
    worker: &'a Worker,
    destination: &'a Destination<'a>,
    outgoing: Outgoing<'a>,
    body: &'a ClientBody,
    may_repeat: bool,
    may_hedge: bool,
    is_hedged: bool,
    /// When it may have its hedge, `None` if that would come too late.
    hedge_at: Option<Instant>,
    /// Whether the next attempt is free, since the first one was a probe.
    is_prepaid: bool,
    tried: Vec<Arc<Endpoint>>,
    attempts: usize,
    met_stale: bool,
    running: Vec<Attempt<'a>>,
    /// When another node is tried beside those that are being connected to. `None` if there are none, or no
    /// other may be tried.
    connect_beside_at: Option<Instant>,
    /// When the latest attempt has been silent for too long, and when all of them have. Both wait
    /// for a body that is still being sent.
    patience: Instant,
    deadline: Instant,
}

/// An attempt that has.
struct Finish {
    endpoint: InFlight,
    began: Instant,
    sent: Sent,
}

/// What may come before an attempt's end.
enum Interruption {
    /// The latest attempt has had no connection for too long.
    Connecting,
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
        destination: &'a Destination<'a>,
        outgoing: Outgoing<'a>,
        body: &'a ClientBody,
        deadline: Instant,
    ) -> Self {
        let method = outgoing.request.method();
        let may_repeat = is_idempotent(method) && body.is_held();
        let may_hedge = may_repeat && is_safe(method) && !outgoing.upgrade;
        Self {
            worker,
            destination,
            outgoing,
            body,
            may_repeat,
            may_hedge: may_hedge && worker.gateway.attempts > 1,
            is_hedged: false,
            hedge_at: None,
            is_prepaid: false,
            tried: Vec::with_capacity(1),
            attempts: 0,
            met_stale: false,
            running: Vec::with_capacity(1),
            connect_beside_at: None,
            patience: deadline,
            deadline,
        }
    }

    /// Sends it until a node answers, or no other may be tried.
    pub(super) async fn run(mut self) -> Result<Answer, Refusal> {
        self.destination.budget.earn();
        self.begin()?;
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Ok(Finish {
                    endpoint,
                    began,
                    sent: Ok((head, body)),
                }) => {
                    let is_error = head.status.is_server_error();
                    let report = End::Response { is_error }.report(false);
                    report.tell(&endpoint);
                    if is_error && endpoint.is_probe() && self.replace_probe() {
                        continue;
                    }
                    self.overtake(began, is_error);
                    return Ok(Answer {
                        head,
                        body,
                        endpoint,
                        attempts: self.attempts,
                    });
                }
                Ok(Finish {
                    endpoint,
                    sent: Err(failure),
                    ..
                }) => self.replace(&endpoint, failure)?,
                Err(Interruption::Connecting) => self.connect_beside(),
                Err(Interruption::Silence) => self.wait_longer(),
                Err(Interruption::Late) => {
                    self.give_up();
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
        let finish = self.poll_attempts(cx);
        if let Some(refusal) = self.body.cut() {
            return Poll::Ready(Err(Interruption::Cut(refusal))); // for which no node is to blame
        }
        if let Poll::Ready(finish) = finish {
            return Poll::Ready(finish); // what has come in time is not late
        }
        let gateway = &self.worker.gateway;
        let late = self.put_off(self.deadline, gateway.timeout);
        let silent = self.put_off(self.patience, gateway.hedge_after);
        let connecting = self.connect_beside_at.unwrap_or(late);
        let first = late.min(silent).min(connecting);
        ready!(self.outgoing.client.poll_over(first, cx));
        Poll::Ready(Err(if first == late {
            Interruption::Late
        } else if first == connecting {
            Interruption::Connecting
        } else {
            Interruption::Silence
        }))
    }

    /// Polls the attempts until one ends. One that has a connection now sends the request.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finish, Interruption>> {
        let mut number = 0;
        while number < self.running.len() {
            let Poll::Ready(end) = self.running[number].poll(cx) else {
                number += 1;
                continue;
            };
            let Attempt {
                endpoint, began, ..
            } = self.running.swap_remove(number);
            match end {
                StageEnd::Sent(sent) => {
                    return Poll::Ready(Ok(Finish {
                        endpoint,
                        began,
                        sent,
                    }));
                }
                StageEnd::Connected(connection) => {
                    let sending = self.send(endpoint, began, connection, false);
                    sending.map_err(Interruption::Cut)?;
                    number = 0; // others have been given up
                }
            }
        }
        Poll::Pending
    }

    /// A time that is not over as long as the client's body goes on, and `limit` after that.
    fn put_off(&self, time: Instant, limit: Duration) -> Instant {
        let moved = self.body.moved_at();
        moved.map_or(time, |moved| time.max(moved + limit))
    }

    /// Begins an attempt, the first one at a node that nothing speaks against, or at one that it is to
    /// probe.
    fn begin(&mut self) -> Result<(), Refusal> {
        let endpoint = self.choose();
        self.begin_at(endpoint.map_err(|error| self.refusal(Reason::NoInstance, error))?)
    }

    fn begin_at(&mut self, endpoint: InFlight) -> Result<(), Refusal> {
        let (gateway, pool) = (&self.worker.gateway, &self.worker.pool);
        let began = Instant::now();
        if self.attempts == 0 && self.may_hedge {
            self.is_prepaid = endpoint.is_probe();
            self.hedge_at = self.hedging_delay(&endpoint).map(|delay| began + delay);
        }
        self.worker.tally.count(Step::Attempt);
        self.tried.push(Arc::clone(&endpoint));
        self.attempts += 1;
        self.patience = began + gateway.hedge_after;
        let kept = if self.met_stale {
            None
        } else {
            pool.take(endpoint.address)
        };
        if let Some(connection) = kept {
            return self.send(endpoint, began, connection, true);
        }
        self.connect_beside_at = Some(began + CONNECT_DELAY.min(gateway.hedge_after));
        self.running.push(Attempt::connect(endpoint, began, pool));
        Ok(())
    }

    /// Sends the request over a connection. Attempts that have none are given up first.
    fn send(
        &mut self,
        endpoint: InFlight,
        began: Instant,
        connection: Connection,
        is_kept: bool,
    ) -> Result<(), Refusal> {
        let (gateway, pool) = (&self.worker.gateway, &self.worker.pool);
        self.connect_beside_at = None;
        while let Some(number) = self.running.iter().position(Attempt::is_connecting) {
            self.running.swap_remove(number).leave_connecting(pool);
        }
        let Some(body) = self.body.send() else {
            return Err(self.refusal(Reason::BadUpstream, "the request's body is gone"));
        };
        let request = self.outgoing.to(&endpoint, body, &gateway.via);
        let connection = (connection, is_kept);
        let attempt = Attempt::send(endpoint, began, pool, connection, request);
        self.running.push(attempt);
        Ok(())
    }

    /// Tries another node beside those that have not been connected to for too long, and has the health of
    /// these checked.
    fn connect_beside(&mut self) {
        self.connect_beside_at = None;
        let connecting = self.running.iter().filter(|a| a.is_connecting());
        connecting.for_each(|a| self.worker.gateway.health_checks.report(&a.endpoint));
        // Without another node, nothing is taken from the budget.
        if let Ok(endpoint) = self.choose()
            && self.may_try_more()
            && self.begin_at(endpoint).is_ok()
        {
            self.worker.tally.count(Step::Retry);
        }
    }

    fn choose(&self) -> Result<InFlight, Error> {
        let resolver = &self.destination.resolver;
        let request = self.outgoing.request;
        let peer = self.outgoing.client.peer.as_ref();
        let client = peer.map(|peer| peer.client(request.headers()));
        let key = client.as_ref().map(|client| &client.key[..]);
        if self.attempts == 0 {
            let kind = match self.may_hedge {
                true => ProbeKind::Hedged,
                false => ProbeKind::Unhedged,
            };
            return resolver.resolve_or_probe(key, kind);
        }
        let tried = &self.tried;
        let untried = |candidate: &Endpoint| !tried.iter().any(|e| e.address == candidate.address);
        resolver.resolve_other(key, untried)
    }

    fn hedging_delay(&self, endpoint: &InFlight) -> Option<Duration> {
        let gateway = &self.worker.gateway;
        let (hedge_after, timeout) = (gateway.hedge_after, gateway.timeout);
        if endpoint.is_probe() {
            return Some(hedge_after);
        }
        let latency = self.destination.latency;
        latency.hedging_delay(hedge_after, timeout)
    }

    /// Goes to another node in place of one that failed, or gives up if there is nobody left who
    /// could answer.
    fn replace(&mut self, failed: &InFlight, failure: Failure) -> Result<(), Refusal> {
        log::debug!(instance:% = failed.address, error = failure.detail(); "attempt failed");
        let report = End::Failed(failure.kind()).report(self.body.is_awaited());
        report.tell(failed);
        if matches!(failure, Failure::Stale(_)) {
            self.met_stale = true;
            self.tried.retain(|tried| tried.address != failed.address);
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

    /// Whether another node's answer is to come in place of the 5xx of a node that this request was to
    /// probe.
    fn replace_probe(&mut self) -> bool {
        if !self.running.is_empty() {
            return true;
        }
        let is_replaced = self.may_hedge && self.may_try_more() && self.begin().is_ok();
        if is_replaced {
            self.worker.tally.count(Step::Retry);
        }
        is_replaced
    }

    /// Has silent nodes asked for their health, and another one for the answer if it is time.
    fn wait_longer(&mut self) {
        let gateway = &self.worker.gateway;
        let now = Instant::now();
        self.patience = now + gateway.hedge_after;
        self.tried
            .iter()
            .for_each(|silent| gateway.health_checks.report(silent));
        if self.may_help(now) && self.may_try_more() && self.begin().is_ok() {
            self.is_hedged = true;
            self.worker.tally.count(Step::Hedge);
        }
    }

    /// Whether a hedge may be sent, and is likely to have its response before the attempts that run.
    fn may_help(&self, now: Instant) -> bool {
        let is_time = self.hedge_at.is_some_and(|hedge_at| hedge_at <= now);
        let are_ejected = || self.running.iter().all(|a| a.endpoint.ejected().is_some());
        self.may_hedge && !self.is_hedged && (is_time || are_ejected())
    }

    /// A response has come to the attempt that began then: the others are given up.
    fn overtake(&mut self, winner_began: Instant, by_error: bool) {
        if !self.may_hedge && self.running.is_empty() {
            return;
        }
        let winner_took = winner_began.elapsed();
        if self.may_hedge && !by_error {
            self.destination.latency.record(winner_took);
        }
        let awaited = self.body.is_awaited();
        for other in self.running.drain(..) {
            let end = End::Overtaken {
                waited: other.began.elapsed(),
                winner_took,
                by_error,
            };
            end.report(awaited).tell(&other.endpoint);
        }
    }

    /// The deadline has come: all attempts are given up.
    fn give_up(&mut self) {
        let gateway = &self.worker.gateway;
        let enough = gateway.hedge_after.min(gateway.timeout / 2);
        let awaited = self.body.is_awaited();
        for attempt in self.running.drain(..) {
            let waited = attempt.began.elapsed();
            End::Deadline { waited, enough }
                .report(awaited)
                .tell(&attempt.endpoint);
        }
    }

    fn permits_another(&mut self, failure: &Failure) -> bool {
        match failure {
            Failure::NotConnected(_) | Failure::ConnectTimeout(_) => self.may_try_more(),
            Failure::Local(error) => is_address_unavailable(error) && self.may_try_more(),
            Failure::NoAnswer(_) => self.may_repeat && self.may_try_more(),
            Failure::Stale(_) => self.may_repeat && self.attempts < self.worker.gateway.attempts,
            Failure::Unclear(_) => false,
        }
    }

    fn may_try_more(&mut self) -> bool {
        if self.attempts >= self.worker.gateway.attempts {
            return false;
        }
        let allowed = std::mem::take(&mut self.is_prepaid) || self.destination.budget.spend();
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

/// Whether the method is safe ([RFC 9110, section 9.2.1][1]); TRACE is not for gateways.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Whether the method is idempotent ([RFC 9110, section 9.2.2][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || [Method::PUT, Method::DELETE].contains(method)
}
