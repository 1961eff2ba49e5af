//! The Raft library's log lines, through `tracing`.

use std::fmt::Write;

use slog::{Drain, KV, Never, OwnedKVList, Record, Serializer};

/// A logger for the library. What it says in normal operation is for debugging.
pub fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = record.level();
        // The library says at "info" what it does at every election and every snapshot.
        let wanted = match level {
            slog::Level::Critical | slog::Level::Error => {
                tracing::enabled!(target: "raft", tracing::Level::ERROR)
            }
            slog::Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
            _ => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
        };
        if !wanted {
            return Ok(());
        }
        let mut fields = Fields(String::new());
        // Formatting into a string does not fail.
        let _ = record.kv().serialize(record, &mut fields);
        let _ = values.serialize(record, &mut fields);
        let message = record.msg();
        match level {
            slog::Level::Critical | slog::Level::Error => {
                tracing::error!(target: "raft", fields = %fields.0.trim_start(), "{message}");
            }
            slog::Level::Warning => {
                tracing::warn!(target: "raft", fields = %fields.0.trim_start(), "{message}");
            }
            _ => tracing::debug!(target: "raft", fields = %fields.0.trim_start(), "{message}"),
        }
        Ok(())
    }
}

struct Fields(String);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
