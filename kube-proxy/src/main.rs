//! The kube-proxy binary.

use std::process::ExitCode;

use keelson_kube_proxy::{Config, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config: Config = keelson_daemon::config::parse();
    keelson_daemon::logging::init(&config.logging);
    let running = async {
        let shutdown = keelson_daemon::signals::shutdown_token()?;
        run(config, shutdown).await
    };
    match running.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
