//! A node that is there, and answers 500 to everything.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::rt::task::JoinHandle;
use actix_web::{App, HttpResponse, HttpServer, rt, web};

pub(crate) struct Sick {
    pub(crate) address: SocketAddr,
    answers: Arc<AtomicUsize>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Sick {
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let answers = Arc::<AtomicUsize>::default();
        let count = answers.clone();
        let server = HttpServer::new(move || {
            let count = count.clone();
            let answer = move || {
                count.fetch_add(1, Ordering::Relaxed);
                async { HttpResponse::InternalServerError().finish() }
            };
            App::new().default_service(web::to(answer))
        });
        let server = server.workers(1).disable_signals().listen(listener)?.run();
        let task = rt::spawn(server);
        Ok(Self {
            address,
            answers,
            task,
        })
    }

    /// How often it has answered, probes included.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        self.task.abort();
    }
}
