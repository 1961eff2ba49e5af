//! Steps as they are shown: one line each, with what came of it and how long it took.

use std::io::Write;
use std::time::{Duration, Instant};

/// A list of steps on the terminal.
pub(crate) struct Progress {
    started: Instant,
}

impl Progress {
    pub(crate) fn start(title: &str) -> Self {
        println!("{title}");
        Self {
            started: Instant::now(),
        }
    }

    /// Runs one step.
    pub(crate) async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        match work.await {
            Ok((value, outcome)) => {
                self.line("ok", name, &outcome, started.elapsed());
                Ok(value)
            }
            Err(error) => {
                self.line("FAILED", name, "", started.elapsed());
                Err(error)
            }
        }
    }

    /// A line for something that came about at a known time.
    pub(crate) fn reached(&self, name: &str, outcome: &str) {
        self.line("ok", name, outcome, self.started.elapsed());
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn line(&self, mark: &str, name: &str, outcome: &str, took: Duration) {
        println!("  [{mark}] {name:<22} {:>9}  {outcome}", human(took));
        let _ = std::io::stdout().flush();
    }
}

/// `12 ms`, `3.45 s`.
pub(crate) fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}
