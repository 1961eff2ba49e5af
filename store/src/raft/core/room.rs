//! What the log on disk has room for, how much is taken in before it is written, and what it may forget.

use raft::eraftpb::{Entry, Message, MessageType};

use super::Core;
use crate::state::Applied;

/// Entries that were taken in and should go to the log before more are.
const LOADED_BYTES: u64 = 2 << 20;
/// What the log adds to an entry's bytes, and more.
pub(super) const ENTRY_OVERHEAD: u64 = 128;
/// Bytes of entries kept for members that are behind.
const KEEP_BYTES: usize = 16 << 20;

/// What an entry takes in the log, or a little more.
pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_OVERHEAD
}

impl Core {
    /// Whether enough was taken in to be processed before more is.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.unwritten >= LOADED_BYTES
    }

    /// Whether the log has room for so many bytes more than the `before` that were taken in already. One entry that is
    /// larger than most of a segment is let through when it gets the next one for itself.
    pub(super) fn has_room_for(&self, before: u64, bytes: u64) -> bool {
        self.wal.fits(before + bytes)
            || (before == 0 && bytes > self.wal.segment_bytes() / 2 && self.wal.has_spare())
    }

    /// Whether the log has room to note a later term, a vote, or that this member leads.
    ///
    /// A member on a full disk notes them in what entries leave of its log. When that is used up it promises nothing any
    /// more: it votes for nobody, stands for nothing and follows nobody new until there is room. To the others it is
    /// silent, as if it were cut off, and what it promised before is on its disk.
    pub(super) fn can_promise(&self) -> bool {
        self.wal.can_promise(self.unwritten)
    }

    /// Whether a message could make this member promise what its log has no room for.
    pub(super) fn is_too_much(&self, message: &Message) -> bool {
        if self.can_promise() {
            return false;
        }
        let promises = matches!(
            message.get_msg_type(),
            MessageType::MsgRequestVote
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgTimeoutNow
                | MessageType::MsgSnapshot
        );
        promises || message.term > self.node.raft.term
    }

    /// Takes from a message the entries that the log has no room for: what is left is worth as much as a shorter
    /// message. `false`: nothing is left of it.
    pub(super) fn fit(&self, message: &mut Message) -> bool {
        let all = message.entries.len();
        let mut before = self.unwritten;
        let fitting = message
            .entries
            .iter()
            .take_while(|entry| {
                let bytes = entry_bytes(entry);
                let fits = self.has_room_for(before, bytes);
                before += bytes;
                fits
            })
            .count();
        message.entries.truncate(fitting);
        fitting == all || (fitting > 0 && message.get_msg_type() == MessageType::MsgAppend)
    }

    /// The engine has everything up to here: the log need not keep it for this member.
    pub(super) fn release(&mut self, stored: Applied) {
        let alone = self.state.read(|inner| {
            inner.shared.membership.members.len() == 1 && inner.shared.membership.is_sole_voter(self.member)
        });
        let (entries, bytes) = if alone {
            (0, 0)
        } else {
            (self.keep_entries, KEEP_BYTES)
        };
        let mark = self.node.mut_store().release(stored.index, entries, bytes);
        if let Err(error) = self.wal.release(mark) {
            // The log is longer than it need be; the next release tries again.
            tracing::warn!(%error, "releasing the log");
        }
    }
}
