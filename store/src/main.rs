//! kube-store: see the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keelson_store::Config;
use keelson_store::backup::Bump;

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
        /// By how much to raise the newest revision, beyond all that clients of the lost group have seen
        #[arg(long, default_value_t = 0, requires = "mark_compacted", value_parser = clap::value_parser!(i64).range(0..))]
        bump_revision: i64,
        /// Compact at the newest revision, so that watches from before it are told to list again
        #[arg(long, requires = "bump_revision")]
        mark_compacted: bool,
        #[command(flatten)]
        config: Box<Config>,
    },
}

/// These warn whenever the program `sync` is not found, see [`hide_programs`].
const ERRORS_ONLY: &str = "sled::heap=error,sled::metadata_store=error";

fn main() -> ExitCode {
    hide_programs();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            eprintln!("kube-store: starting threads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whenever sled opens a database, which happens while the store is at work, it runs the program `sync`. That writes
/// out everything that any program has waiting for any disk of the machine, for as long as it takes, and holds up the
/// store's own syncs. What sled reads at an opening and nobody has synced yet it writes and syncs anew, so it does not
/// need that. The store runs no programs, so none are to be found.
fn hide_programs() {
    // SAFETY: there is one thread.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("PATH", "/dev/null");
    }
}

async fn run() -> ExitCode {
    let arguments: Arguments = keelson_daemon::config::parse();
    let (config, restore) = match arguments.command {
        Some(Command::Restore {
            snapshot,
            bump_revision,
            mark_compacted,
            config,
        }) => {
            let bump = Bump {
                revisions: bump_revision,
                compact: mark_compacted,
            };
            (*config, Some((snapshot, bump)))
        }
        None => (arguments.config, None),
    };
    let mut logging = config.logging.clone();
    logging.level = format!("{ERRORS_ONLY},{}", logging.level);
    keelson_daemon::logging::init(&logging);
    let ended = match restore {
        Some((snapshot, bump)) => keelson_store::folder::restore(&config, &snapshot, bump),
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
