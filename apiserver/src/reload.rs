//! Files that are read again whenever they change, and the figures about that, under upstream's names.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelson_daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::state::Server;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How a reload ended, and whose it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    status: &'static str,
    apiserver_id_hash: String,
}

/// What is in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Used {
    apiserver_id_hash: String,
    hash: String,
}

/// What is counted about one file.
pub struct Reloads {
    server: String,
    count: Family<Ended, Counter>,
    last: Family<Ended, Gauge<f64, AtomicU64>>,
    used: Family<Used, Gauge>,
}

impl Reloads {
    /// Figures about a file for `subject` (`authentication`), read by the server with this name.
    pub fn new(registry: &Metrics, subject: &str, server: &str) -> Self {
        let this = Self {
            server: digest(server),
            count: Family::default(),
            last: Family::default(),
            used: Family::default(),
        };
        let name = |what: &str| format!("apiserver_{subject}_config_controller_{what}");
        registry.register(|r| {
            r.register(
                name("automatic_reloads"),
                "Times the configuration was read again, by how that ended",
                this.count.clone(),
            );
            r.register(
                name("automatic_reload_last_timestamp_seconds"),
                "When the configuration was last read again, by how that ended",
                this.last.clone(),
            );
            r.register(
                name("last_config_info"),
                "The configuration in use, by its hash",
                this.used.clone(),
            );
        });
        this
    }

    fn uses(&self, hash: &str) {
        self.used.clear();
        let used = Used {
            apiserver_id_hash: self.server.clone(),
            hash: hash.to_owned(),
        };
        self.used.get_or_create(&used).set(1);
    }

    fn ended(&self, status: &'static str) {
        let ended = Ended {
            status,
            apiserver_id_hash: self.server.clone(),
        };
        self.count.get_or_create(&ended).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.get_or_create(&ended).set(now.as_secs_f64());
    }
}

/// A file, and what is done with what it says.
struct Following<Load> {
    flag: &'static str,
    path: PathBuf,
    reloads: Reloads,
    /// The hash of what was seen last, used or not.
    seen: Option<String>,
    load: Load,
}

impl<Load: FnMut(&str) -> Result<(), String>> Following<Load> {
    fn new(flag: &'static str, path: PathBuf, reloads: Reloads, load: Load) -> Self {
        let seen = read(&path).map(|text| digest(&text));
        if let Some(hash) = &seen {
            reloads.uses(hash);
        }
        Self {
            flag,
            path,
            reloads,
            seen,
            load,
        }
    }

    fn look(&mut self) {
        // Gone, or half written: another look will do.
        let Some(text) = read(&self.path) else { return };
        let now = digest(&text);
        if self.seen.as_ref() == Some(&now) {
            return;
        }
        let (flag, file) = (self.flag, self.path.display());
        match (self.load)(&text) {
            Ok(()) => {
                tracing::info!(flag, %file, "loaded again");
                self.reloads.uses(&now);
                self.reloads.ended("success");
            }
            Err(error) => {
                tracing::error!(flag, %file, error, "not used: what was there before stays");
                self.reloads.ended("failure");
            }
        }
        self.seen = Some(now);
    }
}

/// Follows a file until `shutdown`, and hands what it says to `load` whenever that is something new. What `load` cannot
/// use is reported and changes nothing.
pub fn follow(
    flag: &'static str,
    path: PathBuf,
    reloads: Reloads,
    shutdown: CancellationToken,
    load: impl FnMut(&str) -> Result<(), String> + Send + 'static,
) {
    let mut following = Following::new(flag, path, reloads, load);
    let looking = async move {
        loop {
            tokio::time::sleep(LOOK).await;
            following.look();
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(looking).await });
}

/// As [`follow`], for as long as the server runs, with figures about its `subject` (`authentication`).
pub fn follow_for(
    server: &Server,
    (flag, subject): (&'static str, &str),
    path: &Path,
    load: impl FnMut(&str) -> Result<(), String> + Send + 'static,
) {
    let name = server.config.advertised().to_string();
    let reloads = Reloads::new(server.metrics.registry(), subject, &name);
    follow(flag, path.to_owned(), reloads, server.shutdown.clone(), load);
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|text| !text.is_empty())
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_loaded_and_what_came_of_it_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "one").expect("written");
        let registry = Metrics::new();
        let reloads = Reloads::new(&registry, "authorization", "server");
        let mut heard = Vec::new();
        let mut following = Following::new("--file", path.clone(), reloads, |text: &str| {
            heard.push(text.to_owned());
            match text {
                "bad" => Err("bad".into()),
                _ => Ok(()),
            }
        });
        following.look();
        for text in ["two", "bad", ""] {
            std::fs::write(&path, text).expect("written");
            following.look();
            following.look();
        }
        drop(following);
        assert_eq!(heard, ["two", "bad"]);
        let shown = registry.encode();
        for line in [
            "automatic_reloads_total{status=\"success\",apiserver_id_hash=\"sha256:",
            "automatic_reloads_total{status=\"failure\",apiserver_id_hash=\"sha256:",
            "automatic_reload_last_timestamp_seconds{status=\"success\",",
            &format!("hash=\"{}\"}} 1", digest("two")),
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert_eq!(shown.matches("last_config_info{").count(), 1, "{shown}");
    }
}
