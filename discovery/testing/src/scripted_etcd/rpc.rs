use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::proto::*;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Request, Response, Status, Streaming};

use super::State;
use super::script::{Call, End, Outcome, Script};

/// A larger response is sent in fragments, if the watch accepts them.
const FRAGMENT_BYTES: usize = 1 << 20;

/// The part of etcd's API that a registry calls.
#[derive(Clone)]
pub(super) struct Rpc {
    state: Arc<watch::Sender<State>>,
    script: Arc<Mutex<Script>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Rpc {
    pub(super) fn new(state: &Arc<watch::Sender<State>>, script: &Arc<Mutex<Script>>) -> Self {
        let (state, script) = (state.clone(), script.clone());
        Self { state, script }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let outcome = self.script().outcome(call);
        if outcome == Outcome::Refused {
            return Err(Status::unavailable("refused"));
        }
        let answer = self.act(act);
        match outcome {
            Outcome::Lost => return Err(Status::unavailable("lost")),
            Outcome::Late(time) => sleep(time).await,
            Outcome::Done | Outcome::Refused => {}
        }
        answer.map(Response::new)
    }

    /// Applies `act` to the state, and notifies the watches if the revision changed.
    fn act<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut acted = None;
        self.state.send_if_modified(|state| {
            let before = state.revision;
            acted = Some(act(state));
            state.revision != before
        });
        acted.expect("it was called")
    }
}

impl State {
    fn header(&self) -> Option<PbResponseHeader> {
        Some(PbResponseHeader {
            revision: self.revision,
            ..PbResponseHeader::default()
        })
    }

    fn range(&self, request: &PbRangeRequest) -> PbRangeResponse {
        let found = self.keys.values();
        let found = found.filter(|kv| is_within(&kv.key, &request.key, &request.range_end));
        let kvs: Vec<_> = found.cloned().collect();
        PbRangeResponse {
            header: self.header(),
            count: kvs.len() as i64,
            kvs,
            more: false,
        }
    }

    fn txn(&mut self, txn: &PbTxnRequest) -> Result<PbTxnResponse, Status> {
        let holds = |compare: &PbCompare| {
            let revision = self.keys.get(&compare.key).map_or(0, |kv| kv.mod_revision);
            compare.target_union == Some(PbTargetUnion::ModRevision(revision))
        };
        let succeeded = txn.compare.iter().all(holds);
        for operation in txn.success.iter().filter(|_| succeeded) {
            let Some(PbTxnOpRequest::RequestPut(put)) = &operation.request else {
                return Err(Status::unimplemented("an operation that is no put"));
            };
            self.put(&put.key, &put.value, put.lease)?;
        }
        Ok(PbTxnResponse {
            header: self.header(),
            succeeded,
            responses: Vec::new(),
        })
    }
}

/// Returns true for a key that a request selects: one key, or a half-open range.
fn is_within(key: &[u8], from: &[u8], to: &[u8]) -> bool {
    key == from || (key > from && key < to)
}

/// A stream: a watch, or the renewals of a lease.
struct Going<Asked> {
    rpc: Rpc,
    asked: Streaming<Asked>,
    end: End,
    /// The number of messages before that.
    left: usize,
}

impl<Asked> Going<Asked> {
    fn new(rpc: &Rpc, asked: Streaming<Asked>, (end, left): (End, usize)) -> Self {
        Self {
            rpc: rpc.clone(),
            asked,
            end,
            left,
        }
    }

    /// Returns how it ends, if it does so now.
    fn ends(&mut self) -> Option<End> {
        let ends = self.left == 0;
        self.left = self.left.saturating_sub(1);
        ends.then_some(self.end)
    }
}

struct Watch {
    going: Going<PbWatchRequest>,
    state: watch::Receiver<State>,
    from: Vec<u8>,
    to: Vec<u8>,
    takes_fragments: bool,
    /// The start revision of the request.
    start: i64,
    /// The revision of the first event that was not sent.
    next: i64,
    replaced: u32,
    ready: VecDeque<PbWatchResponse>,
}

impl Watch {
    async fn message(mut self) -> Option<(Result<PbWatchResponse, Status>, Self)> {
        while self.ready.is_empty() {
            tokio::select! {
                changed = self.state.changed() => changed.ok()?,
                asked = self.going.asked.message() => {
                    asked.ok()??;
                    self.report_progress();
                }
            }
            self.catch_up()?;
        }
        match self.going.ends() {
            Some(End::Over) => return None,
            Some(End::Failed) => return Some((Err(Status::unavailable("failed")), self)),
            Some(End::Silent) => return std::future::pending().await,
            Some(End::Withdrawn) => {
                let mut cancelled = self.response(Vec::new());
                (cancelled.canceled, self.going.end) = (true, End::Silent);
                self.ready.push_front(cancelled);
                self.going.left = 0;
            }
            None | Some(End::Never) => {}
        }
        let message = self.ready.pop_front().expect("it was not empty");
        Some((Ok(message), self))
    }

    /// Responds to a progress request, unless the watch starts in the future: as etcd since 3.4.38,
    /// 3.5.22 and 3.6.2.
    fn report_progress(&mut self) {
        if self.start <= self.state.borrow().revision {
            self.ready.push_back(self.response(Vec::new()));
        }
    }

    fn response(&self, events: Vec<PbEvent>) -> PbWatchResponse {
        PbWatchResponse {
            header: self.state.borrow().header(),
            events,
            ..PbWatchResponse::default()
        }
    }

    /// Queues the events since the last call. Returns `None` once the etcd was replaced.
    fn catch_up(&mut self) -> Option<()> {
        let state = self.state.borrow_and_update();
        if state.replaced != self.replaced {
            return None;
        }
        if self.next < state.compacted {
            let compacted = PbWatchResponse {
                canceled: true,
                compact_revision: state.compacted,
                ..PbWatchResponse::default()
            };
            (self.going.end, self.going.left) = (End::Silent, self.ready.len() + 1);
            self.next = i64::MAX;
            self.ready.push_back(compacted);
            return Some(());
        }
        let is_asked_for = |kv: &PbKeyValue| {
            kv.mod_revision >= self.next && is_within(&kv.key, &self.from, &self.to)
        };
        let mut pieces = vec![Vec::new()];
        let mut bytes = 0;
        for event in &state.history {
            let kv = event.kv.as_ref().expect("every event has one");
            if !is_asked_for(kv) {
                continue;
            }
            bytes += kv.value.len();
            if bytes > FRAGMENT_BYTES && self.takes_fragments {
                pieces.push(Vec::new());
                bytes = 0;
            }
            pieces.last_mut().expect("there is one").push(event.clone());
        }
        self.next = self.next.max(state.revision + 1);
        drop(state);
        pieces.retain(|piece| !piece.is_empty());
        for piece in pieces {
            self.ready.push_back(self.response(piece));
        }
        Some(())
    }
}

#[tonic::async_trait]
impl PbWatchService for Rpc {
    type WatchStream = Answers<PbWatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asked = request.into_inner();
        let first = asked.message().await?.and_then(|first| first.request_union);
        let Some(PbWatchRequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("expected the creation of a watch"));
        };
        let mut state = self.state.subscribe();
        state.mark_changed(); // so that it begins with what happened before
        let replaced = state.borrow().replaced;
        let mut watch = Watch {
            going: Going::new(self, asked, self.script().watch_end()),
            state,
            from: create.key,
            to: create.range_end,
            takes_fragments: create.fragment,
            start: create.start_revision,
            next: create.start_revision,
            replaced,
            ready: VecDeque::new(),
        };
        let mut created = watch.response(Vec::new());
        created.created = true;
        watch.ready.push_back(created);
        Ok(Response::new(Box::pin(unfold(watch, Watch::message))))
    }
}

#[tonic::async_trait]
impl PbLeaseService for Rpc {
    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let ttl = request.into_inner().ttl;
        let grant = |state: &mut State| {
            Ok(PbLeaseGrantResponse {
                id: state.grant(ttl),
                header: state.header(),
                ttl,
                error: String::new(),
            })
        };
        self.answer(Call::Grant, grant).await
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let lease = request.into_inner().id;
        let revoke = |state: &mut State| {
            state.revoke(lease)?;
            let header = state.header();
            Ok(PbLeaseRevokeResponse { header })
        };
        self.answer(Call::Revoke, revoke).await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let going = Going::new(self, request.into_inner(), self.script().renewals_end());
        let answers = unfold(going, |mut going| async {
            let id = going.asked.message().await.ok()??.id;
            let gone = Err(Status::not_found("etcdserver: requested lease not found"));
            let ttl = match going.ends() {
                Some(End::Over) => return None,
                Some(End::Failed) => return Some((gone, going)),
                Some(End::Silent) => return std::future::pending().await,
                Some(End::Withdrawn) => 0,
                None | Some(End::Never) => going.rpc.act(|state| state.renew(id)),
            };
            let header = going.rpc.state.borrow().header();
            Some((Ok(PbLeaseKeepAliveResponse { header, id, ttl }), going))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("lease_time_to_live"))
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("lease_leases"))
    }
}

#[tonic::async_trait]
impl PbKvService for Rpc {
    type RangeStreamStream = Answers<PbRangeStreamResponse>;

    async fn range(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        self.answer(Call::Range, |state| Ok(state.range(&request)))
            .await
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = request.into_inner();
        self.answer(Call::Txn, |state| state.txn(&request)).await
    }

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("range_stream"))
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        Err(Status::unimplemented("put"))
    }

    async fn delete_range(
        &self,
        _: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        Err(Status::unimplemented("delete_range"))
    }

    async fn compact(
        &self,
        _: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        Err(Status::unimplemented("compact"))
    }
}
