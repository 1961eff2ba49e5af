//! kube-controller-manager.
#![forbid(unsafe_code)]

use keelson_controller_manager::{Config, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = keelson_daemon::config::parse();
    keelson_daemon::logging::init(&config.log);
    run(config, keelson_daemon::signals::shutdown_token()?).await
}
