//! A steady load on one URL, and the instances that responded.
//!
//! ```text
//! cargo run --release -p load -- \
//!     http://127.0.0.1:8080/greeter/greet/Ada --rate 500 --duration 10s
//! ```
//!
//! Every request carries an id, and its response has to carry the same one: the response to another
//! request is a failure too. Exit code 0 if no request failed, 1 if one did, 2 on bad flags.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use awc::http::header::{HeaderName, HeaderValue};
use awc::http::{Method, Uri};
use clap::Parser;

use load::{Load, Tally};

/// Sends requests at a steady rate, shows who answers, and counts what fails.
#[derive(Debug, Parser)]
struct Cli {
    /// What to request
    #[arg(default_value = "http://127.0.0.1:8080/greeter/greet/Ada")]
    url: Uri,

    /// Requests per second, begun on time whether or not earlier ones have ended
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// How long, such as 10s; without it until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// The method
    #[arg(long, default_value = "GET")]
    method: Method,

    /// A header of every request, such as 'x-service-tags: version=v2'. Repeatable
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// The body of every request
    #[arg(long, default_value = "")]
    body: String,

    /// After this long without an answer a request has failed
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Requests on their way at once, at most
    #[arg(long, value_name = "N", default_value = "256")]
    in_flight: usize,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'name: value'")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| format!("{name:?} is no header's name"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("{value:?} is no header's value"))?;
    Ok((name, value))
}

#[actix_web::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let end = async {
        match cli.duration {
            Some(duration) => rt::time::sleep(duration).await,
            None => rt::signal::ctrl_c().await.expect("Ctrl-C can be caught"),
        }
    };
    let load = Load {
        url: cli.url,
        method: cli.method,
        headers: cli.headers,
        body: cli.body.into(),
        rate: cli.rate,
        timeout: cli.timeout,
        in_flight: cli.in_flight,
    };
    tokio::select! {
        () = load.run(end, &tally) => {}
        () = show(&tally) => {}
    }
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K"); // the live line makes way for the table
    }
    let tally = tally.borrow();
    print!("{tally}");
    ExitCode::from(u8::from(tally.failed() > 0 || tally.answered() == 0))
}

/// The live line: rewritten in place on a terminal, one line a second elsewhere.
async fn show(tally: &RefCell<Tally>) {
    let terminal = std::io::stdout().is_terminal();
    let mut seconds = rt::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        let line = tally.borrow_mut().live_line();
        if terminal {
            use std::io::Write;
            print!("\r\x1b[K{line}");
            // If the terminal is closed, the process ends.
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }
}
