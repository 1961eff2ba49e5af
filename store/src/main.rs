//! kube-store: see the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keelson_store::Config;

/// Memory that was freed goes back to the system sooner than with the C library's allocator, and threads do
/// not each keep a heap of their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "kube-store", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the data folder of a new group from a file of `etcdctl snapshot save`
    Restore {
        /// The file
        snapshot: std::path::PathBuf,
        #[command(flatten)]
        config: Box<Config>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = keelson_daemon::config::parse();
    let (config, snapshot) = match arguments.command {
        Some(Command::Restore { snapshot, config }) => (*config, Some(snapshot)),
        None => (arguments.config, None),
    };
    keelson_daemon::logging::init(&config.logging);
    let ended = match snapshot {
        Some(snapshot) => keelson_store::folder::restore(&config, &snapshot),
        None => match keelson_daemon::signals::shutdown_token() {
            Ok(shutdown) => keelson_store::run(config, shutdown).await,
            Err(error) => Err(error.into()),
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("kube-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}
