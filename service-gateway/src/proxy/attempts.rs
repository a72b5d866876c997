//! Retries and hedging: the attempts of a request at one node after another, or at two at a time.

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
use super::upstream_request::UpstreamRequest;
use crate::error::{Reason, Refusal};
use crate::metrics::Step;

/// The time without a connection after which an attempt at another node begins: the delay that [RFC 8305,
/// section 8][1] recommends, or `--hedge-after` if that is less. A lost SYN is sent again after a second.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc8305#section-8
const CONNECT_DELAY: Duration = Duration::from_millis(250);

/// The response to a request.
pub(super) struct UpstreamResponse {
    pub(super) head: ResponseHead,
    pub(super) body: ResponseBody,
    /// The node that sent it.
    pub(super) endpoint: InFlight,
    /// The number of attempts up to the response.
    pub(super) attempts: usize,
}

/// The attempts of one request, until one has a response or no other is permitted.
///
/// Is another attempt permitted?
///
/// | after | any request | if it may be repeated | if it may be hedged |
/// |---|---|---|---|
/// | no descriptor, memory or buffer for a connection on this host | no | no | no |
/// | no connection, or a pooled one that was closed before anything was sent | yes | yes | yes |
/// | no connection for [`CONNECT_DELAY`], in parallel with that attempt | yes | yes | yes |
/// | a connection that broke before the end of the response's head, or no HTTP | no | yes | yes |
/// | a pooled connection that was closed before a byte of the response | no | yes, at any node, over a new connection | the same |
/// | no response for the hedging delay, in parallel with that attempt | no | no | yes, once |
/// | a 5xx response of a half-open node that this request was to probe | no | no | yes |
/// | any other response, whatever its status | no | no | no |
///
/// A request may be repeated if its method is idempotent ([RFC 9110, section 9.2.2][1]) and its body is
/// still held. It may be hedged if its method is also safe ([section 9.2.1][2]), since both nodes may
/// execute it, in any order, and if it is not an upgrade. The hedging delay is `--hedge-after`, or more where
/// [responses usually take longer](super::latency) and the node is neither ejected nor probed.
///
/// Of several attempts that connect, the first to have a connection sends the request, and the others are
/// given up before it does. Connecting sends nothing, so that this is permitted for any request, and none is
/// executed twice. Their connections are [left to connect](Attempt::leave_connecting).
///
/// A node is tried once, except after a pooled connection turned out to be closed: that is no fault of the
/// node, and the next attempt uses a new connection, since other pooled ones may be closed too. The number of
/// attempts is limited by `--attempts`, and by the [budget](super::budget::Budget) that all requests to a
/// service share. Closed pooled connections are not charged to the budget: each of them fails only once. Nor
/// is the second attempt of a probe, of which each node has one at a time.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
/// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
pub(super) struct Attempts<'a> {
    worker: &'a Worker,
    destination: &'a Destination<'a>,
    request: UpstreamRequest<'a>,
    body: &'a ClientBody,
    may_repeat: bool,
    may_hedge: bool,
    is_hedged: bool,
    /// The time from which a hedged request may be sent. `None` if its response would be too late.
    hedge_at: Option<Instant>,
    /// Set if the next attempt is not charged to the budget, since the first one was a probe.
    is_free: bool,
    tried: Vec<Arc<Endpoint>>,
    attempts: usize,
    /// Set if a pooled connection turned out to be closed.
    avoids_pool: bool,
    running: Vec<Attempt<'a>>,
    /// The time at which another node is tried in parallel with those that are being connected to. `None` if
    /// there are none, or no other may be tried.
    connect_another_at: Option<Instant>,
    /// The time at which the latest attempt has been without a response for too long: its node gets a health
    /// check, and the request may be hedged. Extended while the request body is still being forwarded.
    overdue_at: Instant,
    /// The time at which all attempts are given up. Extended likewise.
    deadline: Instant,
}

/// An attempt that has ended.
struct Finished {
    endpoint: InFlight,
    began: Instant,
    sent: Sent,
}

/// An event other than the end of an attempt.
enum Event {
    /// The latest attempt has no connection after [`CONNECT_DELAY`].
    ConnectDelay,
    /// The latest attempt has no response after `--hedge-after`.
    Overdue,
    /// No attempt has a response at the deadline.
    Deadline,
    /// The client's body is incomplete or exceeds a limit.
    BodyError(Refusal),
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        destination: &'a Destination<'a>,
        request: UpstreamRequest<'a>,
        body: &'a ClientBody,
        deadline: Instant,
    ) -> Self {
        let method = request.received.method();
        let may_repeat = is_idempotent(method) && body.is_held();
        let may_hedge = may_repeat && is_safe(method) && !request.is_upgrade;
        Self {
            worker,
            destination,
            request,
            body,
            may_repeat,
            may_hedge: may_hedge && worker.gateway.attempts > 1,
            is_hedged: false,
            hedge_at: None,
            is_free: false,
            tried: Vec::with_capacity(1),
            attempts: 0,
            avoids_pool: false,
            running: Vec::with_capacity(1),
            connect_another_at: None,
            overdue_at: deadline,
            deadline,
        }
    }

    /// Sends the request until there is a response, or no other attempt is permitted.
    pub(super) async fn run(mut self) -> Result<UpstreamResponse, Refusal> {
        self.destination.budget.deposit();
        self.begin()?;
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Ok(Finished {
                    endpoint,
                    began,
                    sent: Ok((head, body)),
                }) => {
                    let is_error = head.status.is_server_error();
                    let report = End::Response { is_error }.report(false);
                    report.record(&endpoint);
                    if is_error && endpoint.is_probe() && self.replace_probe() {
                        continue;
                    }
                    self.end_others(began, is_error);
                    return Ok(UpstreamResponse {
                        head,
                        body,
                        endpoint,
                        attempts: self.attempts,
                    });
                }
                Ok(Finished {
                    endpoint,
                    sent: Err(failure),
                    ..
                }) => self.retry(&endpoint, failure)?,
                Err(Event::ConnectDelay) => self.connect_another(),
                Err(Event::Overdue) => self.hedge(),
                Err(Event::Deadline) => {
                    self.end_all();
                    return Err(self.refusal(Reason::Timeout, "no response in time"));
                }
                Err(Event::BodyError(refusal)) => {
                    return Err(Refusal {
                        attempts: self.attempts,
                        ..refusal
                    });
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finished, Event>> {
        let finished = self.poll_attempts(cx);
        if let Some(refusal) = self.body.refusal() {
            return Poll::Ready(Err(Event::BodyError(refusal))); // not counted as a failure of the node
        }
        if let Poll::Ready(finished) = finished {
            return Poll::Ready(finished); // before the deadline is checked
        }
        let gateway = &self.worker.gateway;
        let deadline = self.extend(self.deadline, gateway.timeout);
        let overdue_at = self.extend(self.overdue_at, gateway.hedge_after);
        let connect_another_at = self.connect_another_at.unwrap_or(deadline);
        let first = deadline.min(overdue_at).min(connect_another_at);
        ready!(self.request.client.poll_over(first, cx));
        Poll::Ready(Err(if first == deadline {
            Event::Deadline
        } else if first == connect_another_at {
            Event::ConnectDelay
        } else {
            Event::Overdue
        }))
    }

    /// Polls the attempts until one ends. An attempt that has a connection now sends the request.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finished, Event>> {
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
                    return Poll::Ready(Ok(Finished {
                        endpoint,
                        began,
                        sent,
                    }));
                }
                StageEnd::Connected(connection) => {
                    let sending = self.send(endpoint, began, connection, false);
                    sending.map_err(Event::BodyError)?;
                    number = 0; // others have been given up
                }
            }
        }
        Poll::Pending
    }

    /// Extends a deadline to `limit` after the last progress of the request body, if that is later.
    fn extend(&self, deadline: Instant, limit: Duration) -> Instant {
        let progress = self.body.last_progress();
        progress.map_or(deadline, |progress| deadline.max(progress + limit))
    }

    /// Begins an attempt. The first one may be the probe of a half-open node.
    fn begin(&mut self) -> Result<(), Refusal> {
        let endpoint = self.select();
        self.begin_at(endpoint.map_err(|error| self.refusal(Reason::NoInstance, error))?)
    }

    fn begin_at(&mut self, endpoint: InFlight) -> Result<(), Refusal> {
        let (gateway, pool) = (&self.worker.gateway, &self.worker.pool);
        let began = Instant::now();
        if self.attempts == 0 && self.may_hedge {
            self.is_free = endpoint.is_probe();
            self.hedge_at = self.hedging_delay(&endpoint).map(|delay| began + delay);
        }
        self.worker.tally.count(Step::Attempt);
        self.tried.push(Arc::clone(&endpoint));
        self.attempts += 1;
        self.overdue_at = began + gateway.hedge_after;
        let pooled = if self.avoids_pool {
            None
        } else {
            pool.take(endpoint.address)
        };
        if let Some(connection) = pooled {
            return self.send(endpoint, began, connection, true);
        }
        self.connect_another_at = Some(began + CONNECT_DELAY.min(gateway.hedge_after));
        self.running.push(Attempt::connect(endpoint, began, pool));
        Ok(())
    }

    /// Sends the request over a connection. Attempts without one are given up first.
    fn send(
        &mut self,
        endpoint: InFlight,
        began: Instant,
        connection: Connection,
        is_reused: bool,
    ) -> Result<(), Refusal> {
        let (gateway, pool) = (&self.worker.gateway, &self.worker.pool);
        self.connect_another_at = None;
        while let Some(number) = self.running.iter().position(Attempt::is_connecting) {
            self.running.swap_remove(number).leave_connecting(pool);
        }
        let Some(body) = self.body.send() else {
            return Err(self.refusal(Reason::BadUpstream, "the request's body is gone"));
        };
        let request = self.request.for_node(&endpoint, body, &gateway.via);
        let connection = (connection, is_reused);
        let attempt = Attempt::send(endpoint, began, pool, connection, request);
        self.running.push(attempt);
        Ok(())
    }

    /// Tries another node in parallel with those that have no connection after [`CONNECT_DELAY`], and has the
    /// health of these checked.
    fn connect_another(&mut self) {
        self.connect_another_at = None;
        let connecting = self.running.iter().filter(|a| a.is_connecting());
        connecting.for_each(|a| self.worker.gateway.health_checks.report(&a.endpoint));
        // Without another node, nothing is withdrawn from the budget.
        if let Ok(endpoint) = self.select()
            && self.may_try_more()
            && self.begin_at(endpoint).is_ok()
        {
            self.worker.tally.count(Step::Retry);
        }
    }

    fn select(&self) -> Result<InFlight, Error> {
        let resolver = &self.destination.resolver;
        let received = self.request.received;
        let peer = self.request.client.peer.as_ref();
        let client = peer.map(|peer| peer.client(received.headers()));
        let key = client.as_ref().map(|client| &client.key[..]);
        if self.attempts == 0 {
            let kind = if self.may_hedge {
                ProbeKind::Hedged
            } else {
                ProbeKind::Unhedged
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

    /// Begins another attempt after one that failed, if it is permitted. Returns the failure if it is not and
    /// no attempt is running.
    fn retry(&mut self, failed: &InFlight, failure: Failure) -> Result<(), Refusal> {
        log::debug!(instance:% = failed.address, error = failure.detail(); "attempt failed");
        let report = End::Failed(failure.kind()).report(self.body.is_awaited());
        report.record(failed);
        if matches!(failure, Failure::ClosedBeforeReuse(_)) {
            self.avoids_pool = true;
            self.tried.retain(|tried| tried.address != failed.address);
        }
        if self.permits_another(&failure) && self.begin().is_ok() {
            self.worker.tally.count(Step::Retry);
            return Ok(());
        }
        if self.running.is_empty() {
            Err(self.refusal(failure.reason(), failure.detail()))
        } else {
            Ok(())
        }
    }

    /// Returns whether another attempt replaces the 5xx response of a node that this request was to probe.
    /// It begins one if none is running.
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

    /// Has the health of nodes without a response checked, and hedges the request if that is permitted.
    fn hedge(&mut self) {
        let gateway = &self.worker.gateway;
        let now = Instant::now();
        self.overdue_at = now + gateway.hedge_after;
        self.tried
            .iter()
            .for_each(|overdue| gateway.health_checks.report(overdue));
        if self.may_hedge_at(now) && self.may_try_more() && self.begin().is_ok() {
            self.is_hedged = true;
            self.worker.tally.count(Step::Hedge);
        }
    }

    /// Returns whether a hedged request may be sent, and is likely to have its response before the running
    /// attempts.
    fn may_hedge_at(&self, now: Instant) -> bool {
        let is_time = self.hedge_at.is_some_and(|hedge_at| hedge_at <= now);
        let are_ejected = || self.running.iter().all(|a| a.endpoint.ejected().is_some());
        self.may_hedge && !self.is_hedged && (is_time || are_ejected())
    }

    /// Ends the other attempts when the one that began at `winner_began` has a response.
    fn end_others(&mut self, winner_began: Instant, by_error: bool) {
        if !self.may_hedge && self.running.is_empty() {
            return;
        }
        let winner_took = winner_began.elapsed();
        if self.may_hedge && !by_error {
            self.destination.latency.record(winner_took);
        }
        let is_awaited = self.body.is_awaited();
        for other in self.running.drain(..) {
            let end = End::Overtaken {
                waited: other.began.elapsed(),
                winner_took,
                by_error,
            };
            end.report(is_awaited).record(&other.endpoint);
        }
    }

    /// Ends all attempts at the deadline.
    fn end_all(&mut self) {
        let gateway = &self.worker.gateway;
        let enough = gateway.hedge_after.min(gateway.timeout / 2);
        let is_awaited = self.body.is_awaited();
        for attempt in self.running.drain(..) {
            let waited = attempt.began.elapsed();
            End::Deadline { waited, enough }
                .report(is_awaited)
                .record(&attempt.endpoint);
        }
    }

    fn permits_another(&mut self, failure: &Failure) -> bool {
        match failure {
            Failure::NotConnected(_) | Failure::ConnectTimeout(_) => self.may_try_more(),
            Failure::Local(error) => is_address_unavailable(error) && self.may_try_more(),
            Failure::NoResponse(_) => self.may_repeat && self.may_try_more(),
            Failure::ClosedBeforeReuse(_) => {
                self.may_repeat && self.attempts < self.worker.gateway.attempts
            }
            Failure::AmbiguousFraming(_) => false,
        }
    }

    /// Returns whether the limits permit another attempt, and withdraws it from the budget.
    fn may_try_more(&mut self) -> bool {
        if self.attempts >= self.worker.gateway.attempts {
            return false;
        }
        let allowed = std::mem::take(&mut self.is_free) || self.destination.budget.withdraw();
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

/// Returns whether the method is safe ([RFC 9110, section 9.2.1][1]). TRACE is not for gateways.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Returns whether the method is idempotent ([RFC 9110, section 9.2.2][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || [Method::PUT, Method::DELETE].contains(method)
}
