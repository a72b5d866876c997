use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for a deadline that is extended again and again and seldom expires, such as one per request.
/// Setting a timer costs more than polling it. So a timer that was set too early stays as it is and is
/// reset when it fires.
#[derive(Debug, Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Is ready once `by` has passed. Until then the task is woken no later than `by`, and possibly earlier.
    pub fn poll(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= by {
                return Poll::Ready(());
            }
            timer.as_mut().reset(by);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    fn after(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn a_deadline_expires_at_its_time() {
        let mut deadline = Deadline::default();
        for by in [after(10), after(20), after(20), after(0)] {
            poll_fn(|cx| deadline.poll(by, cx)).await;
            assert!(Instant::now() >= by);
        }
    }

    #[tokio::test]
    async fn an_earlier_deadline_is_not_missed() {
        let mut deadline = Deadline::default();
        for by in [after(60_000), after(10), after(90_000)] {
            let over = poll_fn(|cx| Poll::Ready(deadline.poll(by, cx))).await;
            assert!(over.is_pending());
        }
        for by in [after(30), after(20)] {
            poll_fn(|cx| deadline.poll(by, cx)).await;
            assert!((by..after(10_000)).contains(&Instant::now()));
        }
    }
}
