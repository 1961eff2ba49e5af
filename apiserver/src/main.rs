//! kube-apiserver: the Kubernetes API over REST and gRPC.

#![forbid(unsafe_code)]

use keelson_apiserver::config::Config;

/// Many small allocations from many threads: the system's allocator keeps too much and takes too long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config: Config = keelson_daemon::config::parse();
    keelson_daemon::logging::init(&config.logging);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = keelson_daemon::signals::shutdown_token()?;
        keelson_apiserver::run(config, shutdown).await
    })
}
