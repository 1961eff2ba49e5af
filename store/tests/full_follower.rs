//! A member whose disk is full takes what its log has room for, promises no more than it can note, and goes on.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use keelson_store::backup::FOUNDING;
use keelson_store::cluster::Membership;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::persist::{self, DiskRoom};
use keelson_store::raft::core::{Core, Outbox};
use keelson_store::raft::handle::{Command, Leadership, RaftHandle};
use keelson_store::raft::start::{self, Found, Manners, Surroundings};
use keelson_store::state::State;
use keelson_store::wal::Wal;
use keelson_store::wal::disk::{Disk, SegmentFile};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message, MessageType};

const SEGMENT_BYTES: u64 = 64 << 10;
const ENTRY_BYTES: usize = 1 << 10;

/// Segments in memory, and how many more there is room for.
#[derive(Clone, Default)]
struct SmallDisk(Arc<Mutex<Segments>>);

/// The segments by number, and how many more may come.
type Segments = (BTreeMap<u64, Vec<u8>>, usize);

struct SmallFile(SmallDisk, u64);

impl Disk for SmallDisk {
    fn segments(&self) -> Result<Vec<u64>> {
        Ok(self.0.lock().0.keys().copied().collect())
    }

    fn open(&self, sequence: u64) -> Result<Box<dyn SegmentFile>> {
        Ok(Box::new(SmallFile(self.clone(), sequence)))
    }

    fn create(&self, sequence: u64) -> Result<Box<dyn SegmentFile>> {
        let mut disk = self.0.lock();
        disk.1 = disk.1.checked_sub(1).ok_or(ErrorKind::StorageFull)?;
        disk.0.insert(sequence, vec![0; SEGMENT_BYTES as usize]);
        Ok(Box::new(SmallFile(self.clone(), sequence)))
    }

    fn remove(&self, sequence: u64) -> Result<()> {
        self.0.lock().0.remove(&sequence);
        Ok(())
    }

    fn has_spare(&self) -> bool {
        self.0.lock().1 > 0
    }

    fn path(&self, sequence: u64) -> PathBuf {
        format!("segment {sequence}").into()
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES
    }
}

impl SegmentFile for SmallFile {
    fn length(&self) -> Result<u64> {
        Ok(SEGMENT_BYTES)
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let disk = self.0.0.lock();
        let content = disk.0.get(&self.1).ok_or(ErrorKind::NotFound)?;
        buffer.copy_from_slice(&content[at as usize..at as usize + buffer.len()]);
        Ok(())
    }

    fn write_and_sync(&self, data: &[u8], at: u64) -> Result<()> {
        let mut disk = self.0.0.lock();
        let content = disk.0.get_mut(&self.1).ok_or(ErrorKind::NotFound)?;
        let place = content
            .get_mut(at as usize..at as usize + data.len())
            .ok_or_else(|| Error::other("a write beyond the segment"))?;
        place.copy_from_slice(data);
        Ok(())
    }

    fn clear_from(&self, at: u64) -> Result<()> {
        if let Some(content) = self.0.0.lock().0.get_mut(&self.1) {
            content[at as usize..].fill(0);
        }
        Ok(())
    }
}

impl DiskRoom for SmallDisk {
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn prepare_segment(&self) -> bool {
        self.has_spare()
    }
}

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Message>>>);

impl Outbox for Sent {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }

    fn members(&self, _: Vec<keelson_proto::store::StoredMember>) {}
}

fn follower(disk: &SmallDisk, sent: &Sent) -> anyhow::Result<Core> {
    let mut membership = Membership::default();
    membership.conf_state.voters = vec![1, 2, 3];
    let state = State::founding(Arc::new(MemoryEngine::default()), membership, FOUNDING);
    let state = Arc::new(state);
    let (mut wal, replay) = Wal::open(Box::new(disk.clone()))?;
    let replay = start::reconcile(&state, &mut wal, replay)?;
    let (commands, _) = channel();
    let leadership = Arc::new(Leadership::default());
    let handle = RaftHandle::numbering_from(commands, leadership.clone(), 1, 1);
    let (persister, _) = persist::persister(state.clone(), handle, Box::new(disk.clone()), 0);
    let manners = Manners {
        election_ticks: 10,
        election_timeout: Duration::from_secs(1),
        seed: 1,
        pre_vote: true,
        keep_entries: 100,
        strict_reconfig: true,
    };
    let found = Found {
        member: 1,
        state,
        wal,
        replay,
    };
    let around = Surroundings {
        outbox: Box::new(sent.clone()),
        leadership,
        persister,
    };
    let mut core = start::core(found, manners, around)?;
    core.start()?;
    Ok(core)
}

/// The leader's entries from `first` on.
fn entries(first: u64, count: u64) -> Message {
    let mut message = Message {
        msg_type: MessageType::MsgAppend,
        from: 2,
        to: 1,
        term: 5,
        index: first - 1,
        log_term: if first == FOUNDING.index + 1 {
            FOUNDING.term
        } else {
            5
        },
        ..Message::default()
    };
    let entry = |index| Entry {
        index,
        term: 5,
        data: vec![b'e'; ENTRY_BYTES].into(),
        ..Entry::default()
    };
    message.entries = (first..first + count).map(entry).collect::<Vec<_>>().into();
    message
}

/// How far the follower has told its leader that it is.
fn told(sent: &Sent) -> u64 {
    let sent = sent.0.lock();
    let answers = sent
        .iter()
        .filter(|message| message.msg_type == MessageType::MsgAppendResponse && !message.reject);
    answers.map(|message| message.index).max().unwrap_or(0)
}

#[test]
fn a_full_log_takes_what_there_is_room_for() -> anyhow::Result<()> {
    let disk = SmallDisk::default();
    disk.0.lock().1 = 1;
    let sent = Sent::default();
    let mut core = follower(&disk, &sent)?;
    let first = FOUNDING.index + 1;
    // Each message alone has room, all together have not, and they come between two syncs.
    for message in 0..4 {
        core.take(Command::Step(vec![entries(first + message * 25, 25)]));
    }
    core.process()?;
    let reached = told(&sent);
    assert!(reached > first + 25 && reached < first + 99, "{reached}");
    // One that is larger than all that is left.
    core.take(Command::Step(vec![entries(reached + 1, 200)]));
    core.process()?;
    let reached = told(&sent).max(reached);
    assert!(reached < first + 99, "{reached}");

    // There is room again: it goes on where it was.
    disk.0.lock().1 = 10;
    core.take(Command::Step(vec![entries(reached + 1, 200)]));
    core.process()?;
    let after = told(&sent);
    assert!(after > reached, "{after}");

    // And what it promised is there after a start.
    drop(core);
    let (_, replay) = Wal::open(Box::new(disk))?;
    assert_eq!(replay.last_index(), after);
    Ok(())
}

/// It came to stand where only a part of a segment was left, and the member stopped at it.
#[test]
fn a_large_entry_waits_for_a_segment() -> anyhow::Result<()> {
    let disk = SmallDisk::default();
    disk.0.lock().1 = 1;
    let sent = Sent::default();
    let mut core = follower(&disk, &sent)?;
    let first = FOUNDING.index + 1;
    core.take(Command::Step(vec![entries(first, 5)]));
    core.process()?;
    let mut large = entries(first + 5, 1);
    large.entries[0].data = vec![b'l'; SEGMENT_BYTES as usize - 2048].into();
    core.take(Command::Step(vec![large.clone()]));
    core.process()?;
    assert_eq!(told(&sent), first + 4);
    disk.0.lock().1 = 1;
    core.take(Command::Step(vec![large]));
    core.process()?;
    assert_eq!(told(&sent), first + 5);
    Ok(())
}

/// A request for a vote, which a member with nothing but the beginning may grant.
fn candidate(from: u64, term: u64) -> Message {
    Message {
        msg_type: MessageType::MsgRequestVote,
        from,
        to: 1,
        term,
        index: FOUNDING.index + 100,
        log_term: term - 1,
        ..Message::default()
    }
}

/// The last term in which it voted, and how often it did.
fn votes(sent: &Sent) -> (u64, usize) {
    let sent = sent.0.lock();
    let granted = sent
        .iter()
        .filter(|message| message.msg_type == MessageType::MsgRequestVoteResponse && !message.reject);
    let terms: Vec<u64> = granted.map(|message| message.term).collect();
    (terms.iter().copied().max().unwrap_or(0), terms.len())
}

/// It used up what is kept back of its log, and stopped.
#[test]
fn a_full_log_promises_no_more_than_it_can_note() -> anyhow::Result<()> {
    const TERMS: u64 = 3000;
    let disk = SmallDisk::default();
    disk.0.lock().1 = 1;
    let sent = Sent::default();
    let mut core = follower(&disk, &sent)?;
    for term in 2..TERMS {
        core.take(Command::Step(vec![candidate(2 + term % 2, term)]));
        core.process()?;
    }
    let (last, count) = votes(&sent);
    assert!(
        count > 100 && last < TERMS - 1,
        "{count} votes, up to term {last}"
    );
    // A leader of a later term, a trial, a hand-over: nothing is answered.
    let before = sent.0.lock().len();
    let mut others = vec![entries(FOUNDING.index + 1, 1)];
    for kind in [
        MessageType::MsgHeartbeat,
        MessageType::MsgRequestPreVote,
        MessageType::MsgTimeoutNow,
    ] {
        others.push(Message {
            msg_type: kind,
            ..candidate(2, last)
        });
        others.push(Message {
            msg_type: kind,
            ..candidate(2, TERMS)
        });
    }
    for message in others.into_iter().filter(|message| message.term >= last) {
        core.take(Command::Step(vec![message]));
        core.process()?;
    }
    // And it stands for no election, however long nobody leads.
    for _ in 0..100 {
        core.tick();
        core.process()?;
    }
    let spoken = sent.0.lock().len() - before;
    assert!(spoken <= 1, "only a leader of its own term is answered: {spoken}");

    // What it promised is there after a start, where it is as silent.
    drop(core);
    let (wal, replay) = Wal::open(Box::new(disk.clone()))?;
    assert_eq!(replay.hard_state.term, last);
    assert_eq!(replay.hard_state.vote, 2 + last % 2);
    drop(wal);
    let mut core = follower(&disk, &sent)?;
    core.take(Command::Step(vec![candidate(2, TERMS)]));
    core.process()?;
    assert_eq!(votes(&sent), (last, count));

    // There is room again.
    disk.0.lock().1 = 1;
    core.take(Command::Step(vec![candidate(3, TERMS)]));
    core.process()?;
    assert_eq!(votes(&sent), (TERMS, count + 1));
    Ok(())
}
