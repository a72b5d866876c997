//! Parse, start, run until a signal asks to stop.

use service_greeter::{App, Cli, Command, healthcheck};
use service_runtime::{descriptors, logging, signal};

#[actix_web::main]
async fn main() {
    let ended = run(Cli::read()).await;
    if let Err(error) = &ended {
        logging::print_error(&format!("{error:#}"));
    }
    logging::exit(ended.is_err().into()); // at once: returning would wait for names being looked up
}

async fn run(Cli { command, config }: Cli) -> anyhow::Result<()> {
    if let Some(Command::Healthcheck) = command {
        return healthcheck(config.listen).await;
    }
    let quiet = "info,actix_server=warn,zookeeper_client=error";
    logging::start(quiet, config.log_format)?;
    if let Err(error) = descriptors::raise_limit() {
        log::warn!(error:%; "the limit of open files stays as it is");
    }
    let (first, second) = signal::listen()?;
    tokio::select! {
        ended = App::start(config)?.run_until(first) => ended,
        signal = second => logging::exit(signal.exit_code()),
    }
}
