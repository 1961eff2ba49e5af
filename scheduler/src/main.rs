//! kube-scheduler.
#![forbid(unsafe_code)]

use keelson_scheduler::{Config, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = keelson_daemon::config::parse();
    keelson_daemon::logging::init(&config.log);
    let shutdown = keelson_daemon::signals::shutdown_token()?;
    run(config, shutdown).await
}
