//! Changes of the group: which are allowed, how they are proposed, and what they do once they are agreed on.

use bytes::Bytes;
use keelson_proto::store::{MembershipChange, StoredMember};
use prost::Message as _;
use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType};

use super::room::ENTRY_OVERHEAD;
use super::{Core, CoreError, Waiting, refuse};
use crate::error::StoreError;
use crate::raft::handle::{Answer, Membership, encode_change};
use crate::state::{Applied, Outcome};

impl Core {
    pub(super) fn change_membership(&mut self, id: u64, change: Membership, answer: Answer) {
        if let Err(error) = self.check_change(&change) {
            let _ = answer.send(Err(error));
            return;
        }
        let mut conf_change = ConfChange::default();
        let member = match change {
            Membership::Add(member) => {
                conf_change.set_change_type(if member.learner {
                    ConfChangeType::AddLearnerNode
                } else {
                    ConfChangeType::AddNode
                });
                member
            }
            Membership::Promote(member) => {
                conf_change.set_change_type(ConfChangeType::AddNode);
                StoredMember {
                    id: member,
                    ..StoredMember::default()
                }
            }
            Membership::Remove(member) => {
                conf_change.set_change_type(ConfChangeType::RemoveNode);
                StoredMember {
                    id: member,
                    ..StoredMember::default()
                }
            }
        };
        conf_change.node_id = member.id;
        conf_change.context = Bytes::from(encode_change(id, member));
        let bytes = conf_change.context.len() as u64 + ENTRY_OVERHEAD;
        if !self.has_room_for(self.unwritten, bytes) {
            let _ = answer.send(Err(StoreError::NoSpace));
            return;
        }
        match self.node.propose_conf_change(Vec::new(), conf_change) {
            Ok(()) => {
                self.unwritten += bytes;
                let term = self.node.raft.term;
                self.waiting.insert(id, Waiting { answer, term });
            }
            Err(error) => refuse(answer, &error),
        }
    }

    fn check_change(&self, change: &Membership) -> Result<(), StoreError> {
        self.state.read(|inner| {
            let membership = &inner.shared.membership;
            match change {
                Membership::Add(member) => {
                    membership.check_add(member)?;
                    if member.learner {
                        return Ok(());
                    }
                }
                Membership::Promote(id) => match membership.members.get(id) {
                    None => return Err(StoreError::MemberNotFound),
                    Some(member) if !member.learner => return Err(StoreError::NotLearner),
                    Some(_) if !self.is_in_sync(*id) => return Err(StoreError::LearnerNotReady),
                    Some(_) => {}
                },
                Membership::Remove(id) => {
                    let Some(member) = membership.members.get(id) else {
                        return Err(StoreError::MemberNotFound);
                    };
                    if membership.is_sole_voter(*id) {
                        return Err(StoreError::NotEnoughStarted);
                    }
                    // Whoever does not answer is no loss to the majority.
                    if member.learner || !self.is_active(*id) {
                        return Ok(());
                    }
                }
            }
            if !self.strict_reconfig {
                return Ok(());
            }
            membership.check_started(change)?;
            self.check_active(membership, change)
        })
    }

    /// Whether a member answered within the last election timeout. Only the leader knows; others believe so.
    ///
    /// The library's own note of it begins anew with every election timeout, and knows of nobody until the next answer.
    fn is_active(&self, member: u64) -> bool {
        let now = self.state.now();
        self.node.raft.state != StateRole::Leader
            || member == self.member
            || self
                .heard
                .get(&member)
                .is_some_and(|heard| now.duration_since(*heard) <= self.election_timeout)
    }

    /// After the change, those who answer now must still be a majority.
    fn check_active(
        &self,
        membership: &crate::cluster::Membership,
        change: &Membership,
    ) -> Result<(), StoreError> {
        let voters = membership.members.values().filter(|member| !member.learner);
        let (mut all, mut active) = (0, 0);
        for voter in voters.filter(|voter| !matches!(change, Membership::Remove(id) if *id == voter.id)) {
            all += 1;
            active += usize::from(self.is_active(voter.id));
        }
        if let Membership::Promote(id) = change {
            all += 1;
            active += usize::from(self.is_active(*id));
        } else if matches!(change, Membership::Add(_)) {
            all += 1;
            // The second member of a group is not there yet when it is added.
            active += usize::from(all == 2);
        }
        if active < all / 2 + 1 {
            return Err(StoreError::Unhealthy);
        }
        Ok(())
    }

    /// Whether a learner, as its leader sees it, has nine tenths of the log.
    fn is_in_sync(&self, member: u64) -> bool {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            // Only the leader knows; it checks again when the change is forwarded to it.
            return true;
        }
        let committed = raft.raft_log.committed;
        raft.prs()
            .get(member)
            .is_some_and(|progress| progress.matched * 10 >= committed * 9)
    }

    /// Whether a change of the group that another member has forwarded may be made. That member could not tell who
    /// answers and who is in step: only the leader knows.
    pub(super) fn allows(&self, entry: &Entry) -> bool {
        if entry.entry_type != EntryType::EntryConfChange {
            return true;
        }
        let mut conf_change = ConfChange::default();
        let context = conf_change
            .merge_from_bytes(&entry.data)
            .ok()
            .and_then(|()| MembershipChange::decode(conf_change.context.clone()).ok());
        let Some(member) = context.and_then(|context| context.member) else {
            return false;
        };
        let learns = self.state.read(|inner| {
            let known = inner.shared.membership.members.get(&member.id);
            known.is_some_and(|known| known.learner)
        });
        let change = match conf_change.get_change_type() {
            ConfChangeType::RemoveNode => Membership::Remove(member.id),
            ConfChangeType::AddNode if learns => Membership::Promote(member.id),
            _ => Membership::Add(member),
        };
        match self.check_change(&change) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "refused a change of the group that another member forwarded");
                false
            }
        }
    }

    pub(super) fn apply_conf_change(&mut self, entry: &Entry) -> Result<(), CoreError> {
        let applied = Applied {
            index: entry.index,
            term: entry.term,
        };
        let decode = |error: protobuf::ProtobufError| CoreError::Decode {
            index: entry.index,
            reason: error.to_string(),
        };
        if entry.entry_type == EntryType::EntryConfChangeV2 {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(decode)?;
            let conf_state = self.node.apply_conf_change(&change)?;
            self.node.mut_store().set_conf_state(conf_state.clone());
            self.state.apply(|inner| {
                inner.shared.membership.conf_state = conf_state;
                inner.shared.applied = applied;
            });
            return Ok(());
        }
        let mut change = ConfChange::default();
        change.merge_from_bytes(&entry.data).map_err(decode)?;
        let context =
            MembershipChange::decode(change.context.clone()).map_err(|error| CoreError::Decode {
                index: entry.index,
                reason: error.to_string(),
            })?;
        let member = context.member.unwrap_or_default();
        let kind = change.get_change_type();
        let allowed = self.state.read(|inner| {
            let membership = &inner.shared.membership;
            let known = membership.members.get(&member.id);
            match kind {
                ConfChangeType::RemoveNode => known.map(|_| ()).ok_or(StoreError::MemberNotFound),
                ConfChangeType::AddNode if known.is_some_and(|known| known.learner) => Ok(()),
                _ => membership.check_add(&member),
            }
        });
        let outcome = match allowed {
            Err(error) => {
                self.state.apply(|inner| inner.shared.applied = applied);
                Err(error)
            }
            Ok(()) => {
                let conf_state = self.node.apply_conf_change(&change)?;
                self.node.mut_store().set_conf_state(conf_state.clone());
                self.state.apply(|inner| {
                    let membership = &mut inner.shared.membership;
                    membership.conf_state = conf_state;
                    match kind {
                        ConfChangeType::RemoveNode => {
                            membership.members.remove(&member.id);
                            membership.removed.insert(member.id);
                        }
                        _ => match membership.members.get_mut(&member.id) {
                            Some(known) => known.learner = false,
                            None => {
                                membership.members.insert(member.id, member.clone());
                            }
                        },
                    }
                    inner.shared.applied = applied;
                    Ok(Outcome::Members(membership.to_etcd()))
                })
            }
        };
        self.tell_members();
        if let Some(waiting) = self.waiting.remove(&context.id) {
            let _ = waiting.answer.send(outcome);
        }
        if kind == ConfChangeType::RemoveNode && member.id == self.member {
            return Err(CoreError::Removed);
        }
        Ok(())
    }

    pub(super) fn tell_members(&self) {
        let members = self
            .state
            .read(|inner| inner.shared.membership.members.values().cloned().collect());
        self.outbox.members(members);
    }
}
