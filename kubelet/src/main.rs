//! The kubelet daemon.

use keelson_daemon::{config, logging, signals};
use keelson_kubelet::Config;

fn main() -> std::process::ExitCode {
    let config: Config = config::parse();
    logging::init(&config.logging);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let shutdown = signals::shutdown_token()?;
                keelson_kubelet::run(config, shutdown).await
            })
        });
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "kubelet");
            eprintln!("kubelet: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
