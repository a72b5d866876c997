use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::http::header::{HeaderName, HeaderValue};
use awc::http::{Method, Uri};
use awc::{Client, Connector};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};

use crate::tally::{Answer, Tally};

/// The requests to send, and their rate.
pub struct Load {
    /// The target of every request.
    pub url: Uri,
    /// The method of every request.
    pub method: Method,
    /// Header fields of every request, besides its id.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of every request.
    pub body: Bytes,
    /// Requests per second.
    pub rate: u32,
    /// A request without a response after this time has failed.
    pub timeout: Duration,
    /// The maximum number of concurrent requests. Further ones are sent late.
    pub in_flight: usize,
}

const ID: &str = "x-request-id";

impl Load {
    /// Sends requests until `end` is ready, then waits for the outstanding responses.
    pub async fn run(&self, end: impl Future<Output = ()>, tally: &Rc<RefCell<Tally>>) {
        let connector = Connector::new().limit(self.in_flight);
        let client = Client::builder()
            .connector(connector)
            .timeout(self.timeout)
            .finish();
        let mut ticks = interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst); // a late tick is sent, not lost
        let mut requests = FuturesUnordered::new();
        let mut end = std::pin::pin!(end);
        let mut id: u64 = 0;
        loop {
            let full = requests.len() >= self.in_flight;
            tokio::select! {
                () = &mut end => break,
                due = ticks.tick(), if !full => {
                    id += 1;
                    requests.push(self.request(&client, id, due.into_std()));
                }
                Some(answer) = requests.next() => tally.borrow_mut().add(answer),
            }
        }
        while let Some(answer) = requests.next().await {
            tally.borrow_mut().add(answer);
        }
    }

    /// Sends one request. Its latency counts from the time it was due.
    async fn request(&self, client: &Client, id: u64, due: Instant) -> Answer {
        let id = id.to_string();
        let mut request = client
            .request(self.method.clone(), &self.url)
            .insert_header((ID, &*id));
        for (name, value) in &self.headers {
            request = request.insert_header((name, value));
        }
        let outcome = async {
            let mut response = request
                .send_body(self.body.clone())
                .await
                .map_err(|error| format!("no answer: {error}"))?;
            let header = |name| {
                let value = response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let (instance, version) = (header("x-served-by"), header("x-served-version"));
            let (answered, attempts) = (header(ID), header("x-gateway-attempts"));
            let body = response.body().limit(64 << 20).await;
            let body = body.map_err(|error| format!("body broke off: {error}"))?;
            if !response.status().is_success() {
                let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                return Err(format!("{} {text}", response.status()));
            }
            if answered != id {
                return Err("the answer to another request".to_owned());
            }
            Ok((instance, version, attempts.parse().unwrap_or(1)))
        };
        let outcome = outcome.await;
        Answer {
            outcome,
            took: due.elapsed(),
        }
    }
}
