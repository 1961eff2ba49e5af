//! A leader whose group answers takes a change of the group at any moment, also right after it has begun to count anew
//! who answers.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use keelson_proto::store::StoredMember;
use keelson_store::backup::FOUNDING;
use keelson_store::cluster::Membership;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::persist::{self, FolderRoom};
use keelson_store::raft::core::{Core, Outbox};
use keelson_store::raft::handle::{Command, Leadership, Membership as Change, RaftHandle};
use keelson_store::raft::start::{self, Found, Manners, Surroundings};
use keelson_store::state::State;
use keelson_store::wal::Wal;
use keelson_store::wal::disk::FolderDisk;
use parking_lot::Mutex;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::oneshot;

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Message>>>);

impl Outbox for Sent {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }

    fn members(&self, _: Vec<StoredMember>) {}
}

impl Sent {
    /// What the others answer to everything that was sent since the last time.
    fn answers(&self) -> Vec<Message> {
        let sent = std::mem::take(&mut *self.0.lock());
        let answer = |message: Message| {
            let msg_type = match message.msg_type {
                MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
                MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
                MessageType::MsgHeartbeat => MessageType::MsgHeartbeatResponse,
                _ => return None,
            };
            Some(Message {
                msg_type,
                from: message.to,
                to: message.from,
                term: message.term,
                context: message.context,
                ..Message::default()
            })
        };
        sent.into_iter().filter_map(answer).collect()
    }
}

fn member(id: u64) -> StoredMember {
    StoredMember {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://127.0.0.1:{id}")],
        ..StoredMember::default()
    }
}

fn core(folder: &std::path::Path, sent: &Sent, leadership: &Arc<Leadership>) -> anyhow::Result<Core> {
    let membership = Membership::founding((1..=3).map(member).collect());
    let engine = Arc::new(MemoryEngine::default());
    let state = Arc::new(State::founding(engine, membership, FOUNDING));
    let disk = FolderDisk::new(folder)?;
    let room = FolderRoom {
        folder: folder.to_owned(),
        spare: disk.spare(),
    };
    let (mut wal, replay) = Wal::open(Box::new(disk))?;
    let replay = start::reconcile(&state, &mut wal, replay)?;
    let (commands, _) = channel();
    let handle = RaftHandle::numbering_from(commands, leadership.clone(), 1, 1);
    let (persister, _) = persist::persister(state.clone(), handle, Box::new(room), 0);
    let manners = Manners {
        election_ticks: 10,
        // Longer than the test may take.
        election_timeout: Duration::from_secs(600),
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
        leadership: leadership.clone(),
        persister,
    };
    let mut core = start::core(found, manners, around)?;
    core.start()?;
    Ok(core)
}

#[test]
fn a_leader_whose_group_answers_takes_a_change_at_any_moment() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (sent, leadership) = (Sent::default(), Arc::new(Leadership::default()));
    let mut core = core(folder.path(), &sent, &leadership)?;
    for _ in 0..60 {
        core.tick();
        core.process()?;
        core.take(Command::Step(sent.answers()));
        core.process()?;
    }
    assert_eq!(leadership.leader(), 1);
    for moment in 0..30 {
        core.tick();
        // Before anybody has answered this heartbeat.
        let (answer, mut outcome) = oneshot::channel();
        core.take(Command::ChangeMembership {
            id: moment,
            change: Change::Add(member(10 + moment)),
            answer,
        });
        // Nothing is agreed on, as nobody confirms entries; what matters is that nothing is refused.
        assert!(
            matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
            "refused at moment {moment}"
        );
        core.process()?;
        core.take(Command::Step(sent.answers()));
        core.process()?;
    }
    Ok(())
}
