//! kube-controller-manager.
#![forbid(unsafe_code)]

use keelson_controller_manager::{Config, run};

/// Gives memory that was freed back to the system, which after the deletion of thousands of pods is most of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = keelson_daemon::config::parse();
    keelson_daemon::logging::init(&config.log);
    run(config, keelson_daemon::signals::shutdown_token()?).await
}
