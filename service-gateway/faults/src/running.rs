use std::cell::RefCell;
use std::rc::Rc;

use actix_web::rt;
use actix_web::rt::task::JoinHandle;
use load::{Load, Tally};
use tokio::sync::oneshot;

/// A load, and what became of it so far.
pub(crate) struct Running {
    tally: Rc<RefCell<Tally>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn begin(load: Load) -> Self {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let counts = tally.clone();
        let task = rt::spawn(async move {
            let end = async { drop(stopped.await) }; // dropping the other end tells as well
            load.run(end, &counts).await;
        });
        Self { tally, stop, task }
    }

    /// How many requests have come to their end.
    pub(crate) fn count(&self) -> u64 {
        let tally = self.tally.borrow();
        tally.answered() + tally.failed()
    }

    /// How often this instance has answered.
    pub(crate) fn answers_of(&self, instance: &str) -> u64 {
        self.tally.borrow().answers(|by, _| by == instance)
    }

    /// How often it has answered with this version.
    pub(crate) fn answers_of_both(&self, instance: &str, version: &str) -> u64 {
        self.tally
            .borrow()
            .answers(|by, its| by == instance && its == version)
    }

    /// Ends it when all answers are there, and tells what they were.
    pub(crate) async fn end(self) -> anyhow::Result<Tally> {
        drop(self.stop);
        self.task.await?;
        Ok(self.tally.take())
    }
}
