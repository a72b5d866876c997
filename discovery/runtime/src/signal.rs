//! The signals that ask a process to stop.

use std::future::pending;
use std::{fmt, io};

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::oneshot;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: what `kill`, systemd and container runtimes send.
    Terminate,
}

impl Signal {
    /// What a process that this signal ended reports: 128 and the signal's number, as shells do.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Takes over SIGINT and SIGTERM from now on. The first future completes at the first of them,
/// which asks for an orderly end; the other at the second: whoever sends that is out of patience.
/// Both have to be polled, for the second tells the first.
///
/// # Errors
/// If the system refuses to install the handlers.
pub fn listen() -> io::Result<(impl Future<Output = Signal>, impl Future<Output = Signal>)> {
    let mut signals = Signals::new()?;
    let (tell, told) = oneshot::channel();
    let first = async {
        match told.await {
            Ok(signal) => signal,
            Err(_) => pending().await,
        }
    };
    // Signals that nobody has seen yet become one. So each is seen here before anything is done
    // about it, or a second that follows closely would be lost.
    let second = async move {
        let _ = tell.send(signals.next().await);
        signals.next().await
    };
    Ok((first, second))
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}
