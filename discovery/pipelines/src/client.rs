//! The client's side of one connection: it sends a pipeline while it reads the responses.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::check::{Checker, State};
use crate::failure::{Failure, Fault, FaultKind};
use crate::pipeline::Pipeline;

/// The bytes sent over a connection that has switched protocols. They return.
const ECHOED: &[u8] = b"\x81\x00HTTP/1.1 200 OK\r\n\r\n";

/// The last action of a client that has read all responses.
enum Finish {
    HalfClose,
    /// Bytes over a connection that has switched protocols.
    Tunnel,
}

/// The result of a connection without a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Played {
    /// The number of responses.
    pub(crate) responses: usize,
    /// The connection ended with a reset.
    pub(crate) is_reset: bool,
}

/// Sends a pipeline over a connection of its own, and checks the responses.
pub(crate) async fn play(
    pipeline: &Pipeline,
    address: SocketAddr,
    limit: Duration,
) -> Result<Played, Failure> {
    let connected = TcpStream::connect(address).await;
    let connected = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let mut stream = connected.map_err(|error| {
        let (kind, detail) = (FaultKind::Unreachable, error.to_string());
        Failure::new(pipeline, &Fault { kind, detail }, 0, b"")
    })?;
    let (reading, writing) = stream.split();
    let mut checker = Checker::new(pipeline, reading);
    let (finish, finished) = oneshot::channel();
    let exchange = async {
        tokio::select! {
            biased;
            checked = check(&mut checker, finish) => checked,
            never = send(pipeline, writing, finished) => match never {},
        }
    };
    let in_time = timeout(limit, exchange).await;
    let checked = in_time.unwrap_or_else(|_| FaultKind::Hung.because("nothing within the limit"));
    let (responses, reader) = (checker.responses, checker.reader);
    match checked {
        Ok(()) => Ok(Played {
            responses,
            is_reset: reader.is_reset,
        }),
        Err(fault) => Err(Failure::new(pipeline, &fault, responses, reader.received())),
    }
}

async fn check<S: AsyncRead + Unpin>(
    checker: &mut Checker<'_, S>,
    finish: oneshot::Sender<Finish>,
) -> Result<(), Fault> {
    match checker.responses().await? {
        State::Ended => Ok(()),
        State::Open => {
            let _ = finish.send(Finish::HalfClose); // the receiver lives as long as this future
            checker.end().await
        }
        State::Switched => {
            let _ = finish.send(Finish::Tunnel);
            match checker.reader.sized(ECHOED.len()).await {
                Ok(echo) if echo == ECHOED => Ok(()),
                _ => FaultKind::WrongData.because("no echo over a switched connection"),
            }
        }
    }
}

/// Sends the segments, and finishes behind the last response. The check ends the connection.
async fn send(
    pipeline: &Pipeline,
    mut writing: WriteHalf<'_>,
    finished: oneshot::Receiver<Finish>,
) -> Infallible {
    let sending: io::Result<()> = async {
        let mut sent = 0;
        for (cut, pause) in &pipeline.cuts {
            writing.write_all(&pipeline.bytes[sent..*cut]).await?;
            sent = *cut;
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(*pause).await;
            }
        }
        match finished.await {
            Ok(Finish::HalfClose) => writing.shutdown().await,
            Ok(Finish::Tunnel) => writing.write_all(ECHOED).await,
            Err(_) => Ok(()),
        }
    }
    .await;
    drop(sending); // a server that has refused a request may receive no more
    pending().await
}
