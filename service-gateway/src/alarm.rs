use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Tells when a time is over that is put off again and again, and seldom comes: with every request,
/// say. To set a timer costs more than to look at one, so one that is set too early is left as it is,
/// and set anew when it rings.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when that time is over. Until then the task is woken by then, and perhaps before.
    pub(crate) fn poll(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
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
    async fn a_time_is_over_when_it_has_come_and_not_before() {
        let mut alarm = Alarm::default();
        for by in [after(10), after(20), after(20), after(0)] {
            poll_fn(|cx| alarm.poll(by, cx)).await;
            assert!(Instant::now() >= by);
        }
    }

    #[tokio::test]
    async fn what_is_put_off_is_waited_for_and_what_comes_sooner_is_not_missed() {
        let mut alarm = Alarm::default();
        for by in [after(60_000), after(10), after(90_000)] {
            let over = poll_fn(|cx| Poll::Ready(alarm.poll(by, cx))).await;
            assert!(over.is_pending());
        }
        for by in [after(30), after(20)] {
            poll_fn(|cx| alarm.poll(by, cx)).await;
            assert!((by..after(10_000)).contains(&Instant::now()));
        }
    }
}
