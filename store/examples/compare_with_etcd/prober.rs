//! A client that asks little and writes down how long it waits, while others make the servers work.
//!
//! On a busy machine long waits come from elsewhere, too: the same thread also measures how late it is woken, and
//! another how long a sync of a file of its own takes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keelson_proto::etcd::RangeRequest;
use keelson_proto::etcd::kv_client::KvClient;

use crate::group::Group;
use crate::requests::{WORKING_KEYS, get, put};

/// Between two rounds of questions.
const EVERY: Duration = Duration::from_millis(10);
/// No answer should take longer.
const PAUSE: Duration = Duration::from_millis(50);

/// How long one kind of wait took.
#[derive(Default)]
pub struct Waits(Vec<Duration>);

impl Waits {
    /// The longest, one in a hundred, and how many of how many were pauses.
    pub fn summary(mut self) -> String {
        self.0.sort_unstable();
        let ms = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1000.0);
        let pauses = self.0.iter().filter(|wait| **wait > PAUSE).count();
        format!(
            "{:.0} / {:.0} / {pauses} of {}",
            ms(self.0.get(self.0.len() * 99 / 100)),
            ms(self.0.last()),
            self.0.len()
        )
    }
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    pub serializable: Waits,
    pub linearizable: Waits,
    pub put: Waits,
    /// How late the prober was woken.
    pub late: Waits,
    /// A `fdatasync` of 4 KiB to the same disk.
    pub sync: Waits,
}

/// Threads of their own, so that the load's client does not hold them up.
pub struct Prober {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<anyhow::Result<Seen>>,
    syncing: JoinHandle<anyhow::Result<Waits>>,
}

impl Prober {
    pub async fn start(group: &Group, file: PathBuf) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let url = group.url(0);
        let asking = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(ask(url, &stop))
            }
        });
        let syncing = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let probe = File::create(&file)?;
                let mut waits = Waits::default();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    probe.write_all_at(&[0; 4096], 0)?;
                    probe.sync_data()?;
                    waits.0.push(began.elapsed());
                    std::thread::sleep(EVERY * 5);
                }
                std::fs::remove_file(file)?;
                Ok(waits)
            }
        });
        Ok(Self {
            stop,
            asking,
            syncing,
        })
    }

    pub fn stop(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let broken = |_| anyhow::anyhow!("the prober broke");
        let mut seen = self.asking.join().map_err(broken)??;
        seen.sync = self.syncing.join().map_err(broken)??;
        Ok(seen)
    }
}

async fn ask(url: String, stop: &AtomicBool) -> anyhow::Result<Seen> {
    let mut kv = KvClient::connect(url).await?;
    let mut seen = Seen::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        tokio::time::sleep(EVERY).await;
        seen.late.0.push(began.elapsed().saturating_sub(EVERY));
        number = (number + 1) % WORKING_KEYS;
        let began = Instant::now();
        kv.range(RangeRequest {
            serializable: true,
            ..get(number)
        })
        .await?;
        seen.serializable.0.push(began.elapsed());
        let began = Instant::now();
        kv.range(get(number)).await?;
        seen.linearizable.0.push(began.elapsed());
        let began = Instant::now();
        kv.put(put(number, 256)).await?;
        seen.put.0.push(began.elapsed());
    }
    Ok(seen)
}
