//! A node in this process that works, hangs, delays or fails as a fault sets it, while its `/health`
//! goes on.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::task::JoinHandle;
use actix_web::rt::time::sleep;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};

const ID: &str = "x-request-id";

/// A node, gone when this is dropped.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) set: Arc<Settings>,
    task: JoinHandle<std::io::Result<()>>,
}

/// The behavior of a node, and what it executed.
#[derive(Default)]
pub(crate) struct Settings {
    hangs: AtomicBool,
    delay_millis: AtomicU64,
    /// The status of its responses; 0 is 200.
    status: AtomicU16,
    /// The same for `/health`.
    health: AtomicU16,
    /// Executions by method and request id.
    executed: Mutex<HashMap<String, usize>>,
}

/// What the nodes of a fault write to when a PUT is executed.
pub(crate) type Store = Arc<Mutex<String>>;

impl Node {
    /// A node on a free port that writes the bodies of PUT requests to this store.
    pub(crate) fn start(store: Store) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let set = Arc::<Settings>::default();
        let (settings, store) = (Data::from(set.clone()), Data::from(store));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(settings.clone())
                .app_data(store.clone())
                .route("/health", web::get().to(health))
                .default_service(web::to(respond))
        });
        // Connections end with the fault: what is counted is not to depend on reuse.
        let server = server
            .workers(1)
            .keep_alive(Duration::from_secs(600))
            .client_request_timeout(Duration::ZERO);
        let server = server.disable_signals().listen(listener)?.run();
        Ok(Self {
            address,
            set,
            task: rt::spawn(server),
        })
    }

    /// So many nodes with a store that they share.
    pub(crate) fn several<const N: usize>() -> anyhow::Result<([Self; N], Store)> {
        let store = Store::default();
        let nodes: Result<Vec<_>, _> = (0..N).map(|_| Self::start(store.clone())).collect();
        let nodes = nodes?.try_into();
        Ok((nodes.unwrap_or_else(|_| unreachable!("N of them")), store))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Settings {
    /// Requests get no response from now on, or get one again. Those that hang go on hanging.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Each request takes this long from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_millis.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn respond_with(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn report_health(&self, status: StatusCode) {
        self.health.store(status.as_u16(), Ordering::Relaxed);
    }

    /// How often each request was executed, those that hang included.
    pub(crate) fn executions(&self) -> HashMap<String, usize> {
        let executed = self.executed.lock();
        executed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn execute(&self, request: &HttpRequest) {
        let id = request.headers().get(ID).and_then(|id| id.to_str().ok());
        let key = format!("{} {}", request.method(), id.unwrap_or_default());
        let executed = self.executed.lock();
        let mut executed = executed.unwrap_or_else(PoisonError::into_inner);
        *executed.entry(key).or_default() += 1;
    }
}

fn status(number: &AtomicU16) -> StatusCode {
    StatusCode::from_u16(number.load(Ordering::Relaxed)).unwrap_or(StatusCode::OK)
}

async fn health(settings: Data<Settings>) -> HttpResponse {
    HttpResponse::new(status(&settings.health))
}

/// Executes a request to its end even if the client of this node leaves meanwhile.
async fn respond(
    request: HttpRequest,
    body: Bytes,
    settings: Data<Settings>,
    store: Data<Mutex<String>>,
) -> HttpResponse {
    settings.execute(&request);
    if settings.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let delay = Duration::from_millis(settings.delay_millis.load(Ordering::Relaxed));
    let is_put = request.method() == "PUT";
    let work = rt::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if is_put {
            let body = String::from_utf8_lossy(&body).into_owned();
            *store.lock().unwrap_or_else(PoisonError::into_inner) = body;
        }
    });
    if work.await.is_err() {
        return HttpResponse::InternalServerError().finish();
    }
    let mut response = HttpResponse::build(status(&settings.status));
    if let Some(id) = request.headers().get(ID) {
        response.insert_header((ID, id.clone()));
    }
    response.body("done")
}
