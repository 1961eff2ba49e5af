//! Logs through `tracing`, one line an event, on standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The logging flags that every daemon has.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Log format
    #[arg(
        long = "log-format",
        value_enum,
        default_value = "text",
        env = "KEELSON_LOG_FORMAT"
    )]
    pub format: LogFormat,
    /// Log level (error, warn, info, debug, trace), or per-module directives as in `info,keelson_store=debug`
    #[arg(long = "log-level", default_value = "info", env = "KEELSON_LOG_LEVEL")]
    pub level: String,
}

/// Starts logging for the process. A directive that does not parse falls back to `info` and says so.
pub fn init(args: &LogArgs) {
    let (filter, bad) = match EnvFilter::try_new(&args.level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true);
    let started = match args.format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    if started.is_ok()
        && let Some(error) = bad
    {
        tracing::warn!(level = args.level, %error, "unreadable --log-level, using info");
    }
}
