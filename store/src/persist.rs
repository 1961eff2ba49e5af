//! What the engine gets of the state, in the background.
//!
//! One thread writes the newest changes to the engine, tells the log that it need not keep them, drops history
//! after compactions, and watches the room on the disk. Nobody waits for it: what the engine does not have is
//! in memory and in the write-ahead log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use keelson_proto::etcd::{AlarmMember, AlarmRequest, AlarmType, alarm_request::AlarmAction};
use keelson_proto::store::proposal::Operation;

use crate::engine::Pressure;
use crate::error::StoreError;
use crate::raft::handle::{Command, RaftHandle};
use crate::state::{Applied, State};
use crate::wal::disk::SpareSlot;

/// Size of the changes in memory that makes writing them worthwhile.
pub const STORE_BYTES: usize = 4 << 20;
/// Changes do not wait longer than this.
const STORE_EVERY: Duration = Duration::from_secs(10);
/// How often the thread looks around when nobody nudges it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Room that must be left after a write to the engine, so that what else is on the disk can go on.
const RESERVE_BYTES: u64 = 8 << 20;
/// Room that must be there before a full disk counts as one with room again, beyond the reserve.
const RESUME_BYTES: u64 = 8 << 20;

enum Nudge {
    Look,
    Stop,
}

/// Wakes the thread.
#[derive(Clone)]
pub struct Persister {
    nudges: SyncSender<Nudge>,
    stopping: Arc<AtomicBool>,
}

/// How much room the disk has.
pub trait DiskRoom: Send {
    /// Bytes that are free; `None` if nobody knows.
    fn free_bytes(&self) -> Option<u64>;
    /// Prepares the log's next segment; `false` if there is no room for it.
    fn prepare_segment(&self) -> bool;
}

/// The room on the file system of a folder.
pub struct FolderRoom {
    /// The folder.
    pub folder: PathBuf,
    /// Where the log's next segment goes.
    pub spare: Arc<SpareSlot>,
}

impl DiskRoom for FolderRoom {
    fn free_bytes(&self) -> Option<u64> {
        match nix::sys::statvfs::statvfs(&self.folder) {
            Ok(stat) => Some(stat.blocks_available() * stat.fragment_size()),
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "asking for the room on the disk");
                None
            }
        }
    }

    fn prepare_segment(&self) -> bool {
        self.spare.ensure()
    }
}

/// What the thread works with.
pub struct Worker {
    state: Arc<State>,
    raft: RaftHandle,
    room: Box<dyn DiskRoom>,
    quota: u64,
    nudges: Receiver<Nudge>,
    stopping: Arc<AtomicBool>,
    stored: Applied,
    stored_at: Instant,
    full: bool,
    /// Size from which on the alarm is raised.
    limit: u64,
    /// Revision up to which history had been dropped when the alarm was raised.
    alarmed_at: Option<i64>,
}

impl Persister {
    /// Something is worth a look.
    pub fn nudge(&self) {
        // If one is waiting already, that one will do.
        let _ = self.nudges.try_send(Nudge::Look);
    }

    /// Writes what is left and ends.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.nudges.try_send(Nudge::Stop);
    }
}

/// A persister and its worker, for a thread of its own.
#[must_use]
pub fn persister(
    state: Arc<State>,
    raft: RaftHandle,
    room: Box<dyn DiskRoom>,
    quota: u64,
) -> (Persister, Worker) {
    let (sender, nudges) = sync_channel(1);
    let stopping = Arc::new(AtomicBool::new(false));
    let stored = state.read(|inner| inner.shared.applied);
    let persister = Persister {
        nudges: sender,
        stopping: stopping.clone(),
    };
    let stored_at = state.now();
    let worker = Worker {
        state,
        raft,
        room,
        quota,
        nudges,
        stopping,
        stored,
        stored_at,
        full: false,
        limit: quota,
        alarmed_at: None,
    };
    (persister, worker)
}

impl Worker {
    /// Works until it is stopped.
    ///
    /// # Errors
    /// When the engine fails; this member cannot go on.
    pub fn run(mut self) -> Result<(), StoreError> {
        while let Ok(Nudge::Look) | Err(RecvTimeoutError::Timeout) = self.nudges.recv_timeout(LOOK_EVERY) {
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            self.look()?;
        }
        if self.has_room() {
            self.store()?;
        }
        Ok(())
    }

    fn since_stored(&self) -> Duration {
        self.state.now().duration_since(self.stored_at)
    }

    /// Does what there is to do now.
    ///
    /// # Errors
    /// When the engine fails; this member cannot go on.
    pub fn look(&mut self) -> Result<(), StoreError> {
        let spare = self.room.prepare_segment();
        if self.is_due() && self.has_room() {
            self.store()?;
        }
        self.set_full(!spare || !self.has_room());
        let mut more = true;
        while more && !self.stopping.load(Ordering::Acquire) && self.has_room() {
            more = self.state.compact_step()?;
            self.keep_up()?;
        }
        while !self.stopping.load(Ordering::Acquire)
            && self.has_room_to_collect()
            && self.state.engine().collect()?
        {
            self.keep_up()?;
        }
        if self.state.read(|inner| inner.is_full()) {
            self.check_quota();
        }
        let pressure = if self.since_stored() > LOOK_EVERY * 2 {
            Pressure::Idle
        } else {
            Pressure::Busy
        };
        self.state.engine().trim(pressure)?;
        Ok(())
    }

    /// Between two steps of what may go on for long: who writes should find the next segment of the log, and neither
    /// changes nor leaves of the engine may pile up in memory.
    fn keep_up(&mut self) -> Result<(), StoreError> {
        self.room.prepare_segment();
        if self.is_due() && self.has_room() {
            self.store()?;
        }
        Ok(self.state.engine().trim(Pressure::Busy)?)
    }

    fn is_due(&self) -> bool {
        let (bytes, compacting, applied) = self.state.read(|inner| {
            let mvcc = &inner.mvcc;
            (
                mvcc.recent.unstored_bytes(),
                mvcc.compacted > mvcc.compaction_stored,
                inner.shared.applied,
            )
        });
        bytes >= STORE_BYTES || compacting || (applied != self.stored && self.since_stored() >= STORE_EVERY)
    }

    fn store(&mut self) -> Result<(), StoreError> {
        let mut unstored = self.state.unstored();
        if unstored.applied == self.stored {
            return Ok(());
        }
        let batch = std::mem::take(&mut unstored.batch);
        self.state.engine().commit(batch)?;
        self.state.mark_stored(&unstored);
        self.stored = unstored.applied;
        self.stored_at = self.state.now();
        self.raft.send(Command::Stored(unstored.applied));
        self.check_quota();
        Ok(())
    }

    /// Whether the disk can take what is waiting, twice over, and the reserve. sled does not survive a write
    /// that fails.
    fn has_room(&self) -> bool {
        let waiting = self.state.unstored_bytes() as u64;
        let mut want = 2 * waiting + RESERVE_BYTES;
        if self.full {
            want += RESUME_BYTES;
        }
        self.room.free_bytes().is_none_or(|free| free > want)
    }

    /// Giving back room takes a little first; the reserve is there for it.
    fn has_room_to_collect(&self) -> bool {
        self.room.free_bytes().is_none_or(|free| free > RESERVE_BYTES / 2)
    }

    fn set_full(&mut self, full: bool) {
        if full == self.full {
            return;
        }
        self.full = full;
        self.raft.leadership.set_disk_full(full);
        if full {
            tracing::error!("the disk of the data folder is full: writes are refused until there is room");
        } else {
            tracing::info!("the disk has room again: writes are accepted");
        }
    }

    /// Above the quota the whole group takes only writes that make room. The alarm of this member is lowered when
    /// history has been dropped since, or the files have become smaller, so that deletions and a compaction are
    /// enough to go on. sled seldom gives room back, but fills its gaps; the alarm comes again when the files grow.
    fn check_quota(&mut self) {
        let bytes = self.state.engine().disk_bytes();
        let dropped = self.state.dropped_through();
        let alarm = AlarmMember {
            member_id: self.raft.member,
            alarm: AlarmType::Nospace as i32,
        };
        let raised = self.state.read(|inner| inner.shared.alarms.contains(&alarm));
        let action = if raised {
            let since = *self.alarmed_at.get_or_insert(dropped);
            if dropped <= since && bytes >= self.quota / 10 * 9 {
                return;
            }
            self.alarmed_at = None;
            self.limit = bytes.max(self.quota);
            tracing::info!(
                bytes,
                quota = self.quota,
                "room was made within the quota: writes are accepted"
            );
            AlarmAction::Deactivate
        } else if self.quota > 0 && bytes > self.limit {
            self.alarmed_at = Some(dropped);
            tracing::error!(
                bytes,
                quota = self.quota,
                "the quota is used up: writes are refused"
            );
            AlarmAction::Activate
        } else {
            return;
        };
        self.raft.propose_unattended(Operation::Alarm(AlarmRequest {
            action: action as i32,
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        }));
    }
}
