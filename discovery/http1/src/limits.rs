use std::time::Duration;

/// How long a client may take, and what it may use.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// For a request's head, from its first byte on. 64 KiB give one more second. Also for a new connection
    /// until its first byte.
    pub head: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// Without a byte of a request's body that is read, or of a response that can be written. A trickle does
    /// not extend it: below 500 bytes per second (body) or 4 KiB per second (response) it is used up.
    pub pause: Duration,
}

impl Limits {
    /// Limits that suit a service: 30 seconds for heads and pauses, 75 between two requests.
    pub const DEFAULT: Self = Self {
        head: Duration::from_secs(30),
        keep_alive: Duration::from_secs(75),
        pause: Duration::from_secs(30),
    };

    /// Creates limits.
    pub fn new(head: Duration, keep_alive: Duration, pause: Duration) -> Self {
        Self {
            head,
            keep_alive,
            pause,
        }
    }
}

/// The time that is left for pauses. What moves gives time back, up to the limit; a trickle does not give as
/// much as it takes.
#[derive(Debug)]
pub(crate) struct Allowance {
    limit: Duration,
    left: Duration,
    bytes_per_second: u32,
}

impl Allowance {
    pub(crate) fn new(limit: Duration, bytes_per_second: u32) -> Self {
        Self {
            limit,
            left: limit,
            bytes_per_second,
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Counts bytes that moved after a pause.
    pub(crate) fn moved(&mut self, bytes: usize, pause: Duration) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / self.bytes_per_second;
        self.left = (self.left.saturating_sub(pause) + earned).min(self.limit);
    }
}
