//! Parse, start, run until a signal asks to stop.

use std::process::exit;

use env_logger::Env;
use service_gateway::config::{Cli, Command};
use service_gateway::{App, healthcheck, signal};

#[actix_web::main]
async fn main() {
    let cli = Cli::read();
    if let Err(error) = run(cli).await {
        eprintln!("error: {error:#}");
        exit(1);
    }
    exit(0); // at once: returning would wait for a name that is still being looked up
}

async fn run(Cli { command, config }: Cli) -> anyhow::Result<()> {
    if let Some(Command::Healthcheck) = command {
        return healthcheck(config.admin_listen).await;
    }
    env_logger::init_from_env(Env::default().default_filter_or("info,actix_server=warn"));
    let (first, second) = signal::listen()?;
    tokio::select! {
        ended = App::start(config)?.run_until(first) => ended,
        signal = second => exit(signal.exit_code()),
    }
}
