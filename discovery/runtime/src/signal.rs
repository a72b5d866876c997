//! The signals that stop a process ([signal(7)][1]), and those that would kill it without a reason.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT, SIGHUP, SIGQUIT | the first starts an orderly end, the second ends the process at once |
//! | SIGUSR1, SIGUSR2, SIGALRM | none, but a line in the log |
//! | SIGHUP of a process that was started with it ignored, as by nohup(1) | none |
//!
//! The invariant: no signal is lost, however close two are. What an orderly end is, is left to the caller.
//!
//! [1]: https://man7.org/linux/man-pages/man7/signal.7.html

use std::future::{pending, poll_fn};
use std::task::Poll;
use std::{fmt, fs, io};

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::oneshot;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: the terminal was closed.
    Hangup,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGQUIT: Ctrl-\, and what some container images stop with.
    Quit,
    /// SIGTERM: what `kill`, systemd and container runtimes send.
    Terminate,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Hangup, Self::Interrupt, Self::Quit, Self::Terminate];

    /// Returns the exit code for a process that this signal ended: 128 plus its number, as shells do.
    pub const fn exit_code(self) -> i32 {
        128 + self.kind().as_raw_value()
    }

    const fn kind(self) -> SignalKind {
        match self {
            Self::Hangup => SignalKind::hangup(),
            Self::Interrupt => SignalKind::interrupt(),
            Self::Quit => SignalKind::quit(),
            Self::Terminate => SignalKind::terminate(),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Installs handlers for the signals above. The first future completes at the first request to stop,
/// which starts an orderly end; the second future at the second request, which ends the process at
/// once. Both have to be polled: the second one receives the signals for both.
///
/// # Errors
/// If the system refuses to install the handlers.
pub fn listen() -> io::Result<(impl Future<Output = Signal>, impl Future<Output = Signal>)> {
    let mut signals = Signals::new()?;
    let (sender, receiver) = oneshot::channel();
    let first = async {
        match receiver.await {
            Ok(signal) => signal,
            Err(_) => pending().await,
        }
    };
    // Pending signals of one kind are merged. So each is received here before anything reacts to it, or a
    // second one that follows closely would be lost.
    let second = async move {
        let _ = sender.send(signals.next().await);
        signals.next().await
    };
    Ok((first, second))
}

struct Signals {
    stopping: Vec<(Signal, unix::Signal)>,
    ignored: Vec<(&'static str, unix::Signal)>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let stopping = Signal::ALL
            .into_iter()
            .filter(|signal| *signal != Signal::Hangup || !is_hangup_ignored())
            .map(|signal| Ok((signal, unix::signal(signal.kind())?)));
        let ignored = [
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
            ("SIGALRM", SignalKind::alarm()),
        ];
        let ignored = ignored
            .into_iter()
            .map(|(name, kind)| Ok((name, unix::signal(kind)?)));
        Ok(Self {
            stopping: stopping.collect::<io::Result<_>>()?,
            ignored: ignored.collect::<io::Result<_>>()?,
        })
    }

    /// Waits for the next request to stop.
    async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (name, received) in &mut self.ignored {
                while received.poll_recv(cx).is_ready() {
                    log::info!(signal = *name; "signal ignored");
                }
            }
            for (signal, received) in &mut self.stopping {
                if received.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Returns true if this process was started with SIGHUP ignored. A handler would undo what nohup(1) is for.
/// Linux lists the ignored signals as a bit mask ([proc(5)][1]); elsewhere it returns false.
///
/// [1]: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let hangup = 1 << (SignalKind::hangup().as_raw_value() - 1);
    mask.is_some_and(|mask| mask & hangup != 0)
}
