//! What a member has said it still knows after a crash: its term, whom it voted for, and the entries it took in.

use keelson_store::wal::Replay;
use raft::eraftpb::{Message, MessageType};

/// What a member has said so far.
#[derive(Debug, Default)]
pub struct Pledges {
    term: u64,
    /// In which term it voted last, and for whom.
    vote: (u64, u64),
    /// The last entry it said to have, as it said last.
    last: u64,
}

impl Pledges {
    /// Looks at a message that the member sends.
    pub fn sent(&mut self, message: &Message) {
        match message.get_msg_type() {
            // A trial is about a term in which nobody may ever be, and proposals are of no term.
            MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex => return,
            MessageType::MsgRequestVote => self.vote = (message.term, message.from),
            MessageType::MsgRequestVoteResponse if !message.reject => {
                self.vote = (message.term, message.to);
            }
            MessageType::MsgAppendResponse if !message.reject && message.index > 0 => {
                self.last = message.index;
            }
            _ => {}
        }
        self.term = self.term.max(message.term);
    }

    /// Looks at what a member finds on its disk at a start. `torn`: it ended in the middle of a write, which may have
    /// been one that replaced entries by others.
    pub fn kept(&mut self, replay: &Replay, torn: bool) -> Result<(), String> {
        let found = &replay.hard_state;
        let in_log = replay.entries.back().map_or(replay.mark.term, |entry| entry.term);
        if found.term.max(in_log) < self.term {
            return Err(format!(
                "it was in term {}, and is in {} after a crash",
                self.term, found.term
            ));
        }
        let (term, vote) = self.vote;
        if found.term == term && found.vote != vote && vote != 0 {
            return Err(format!(
                "it voted for {vote} in term {term}, and for {} after a crash",
                found.vote
            ));
        }
        if !torn && replay.last_index() < self.last {
            return Err(format!(
                "it had acknowledged entry {}, and has none after {} after a crash",
                self.last,
                replay.last_index()
            ));
        }
        self.last = 0;
        Ok(())
    }
}
