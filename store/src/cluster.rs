//! Who belongs to the group.

use std::collections::{BTreeMap, BTreeSet};

use keelson_proto::etcd;
use keelson_proto::raft_transport::PeerMember;
use keelson_proto::store::StoredMember;
use raft::eraftpb::ConfState;
use sha2::{Digest, Sha256};

use crate::error::StoreError;
use crate::raft::handle::Membership as Change;

/// Learners that a group takes at a time, as in etcd: each costs the leader as much as a voter.
const MAX_LEARNERS: usize = 1;

/// The members of the group, as of the last applied entry.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    /// Identity of the group.
    pub cluster_id: u64,
    /// The members by their identity.
    pub members: BTreeMap<u64, StoredMember>,
    /// Identities that were removed and must not come back.
    pub removed: BTreeSet<u64>,
    /// Who votes, as Raft sees it.
    pub conf_state: ConfState,
}

/// A member's identity: from its peer URLs and the group's token, so that all who are given the same
/// `--initial-cluster` compute the same ones.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    let mut hash = Sha256::new();
    for url in urls {
        hash.update(url.as_bytes());
        hash.update([0]);
    }
    hash.update(token.as_bytes());
    first_word(&hash.finalize())
}

/// The identity of a group that starts with these members.
#[must_use]
pub fn cluster_id(members: impl Iterator<Item = u64>) -> u64 {
    let sorted: BTreeSet<u64> = members.collect();
    let mut hash = Sha256::new();
    for id in sorted {
        hash.update(id.to_be_bytes());
    }
    first_word(&hash.finalize())
}

fn first_word(digest: &[u8]) -> u64 {
    let word = digest
        .iter()
        .take(8)
        .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
    // Raft has no member 0.
    word.max(1)
}

impl Membership {
    /// A group as it starts.
    #[must_use]
    pub fn founding(members: Vec<StoredMember>) -> Self {
        let conf_state = ConfState {
            voters: members.iter().map(|member| member.id).collect(),
            ..ConfState::default()
        };
        Self {
            cluster_id: cluster_id(members.iter().map(|member| member.id)),
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            removed: BTreeSet::new(),
            conf_state,
        }
    }

    /// Whether this member alone decides.
    #[must_use]
    pub fn is_sole_voter(&self, id: u64) -> bool {
        self.conf_state.voters == [id] && self.conf_state.voters_outgoing.is_empty()
    }

    /// The members as clients see them.
    #[must_use]
    pub fn to_etcd(&self) -> Vec<etcd::Member> {
        self.members.values().map(to_etcd).collect()
    }

    /// Whether this is what the group looks like after a change.
    #[must_use]
    pub fn shows(&self, change: &Change) -> bool {
        match change {
            Change::Add(member) => self.members.contains_key(&member.id),
            Change::Promote(id) => self.members.get(id).is_some_and(|member| !member.learner),
            Change::Remove(id) => !self.members.contains_key(id),
        }
    }

    /// Checks that a member can be added.
    ///
    /// # Errors
    /// When it, or one of its URLs, is there already, or when there is a learner already.
    pub fn check_add(&self, member: &StoredMember) -> Result<(), StoreError> {
        if self.members.contains_key(&member.id) || self.removed.contains(&member.id) {
            return Err(StoreError::MemberExists);
        }
        let learners = self.members.values().filter(|member| member.learner).count();
        if member.learner && learners >= MAX_LEARNERS {
            return Err(StoreError::TooManyLearners);
        }
        self.check_urls(member)
    }

    /// Checks that after a change most voters are ones that have been started: those have told their name.
    ///
    /// # Errors
    /// When they would not be.
    pub fn check_started(&self, change: &Change) -> Result<(), StoreError> {
        let voters = self.members.values().filter(|member| !member.learner);
        let (mut all, mut started) = (0, 0);
        for voter in voters.filter(|voter| !matches!(change, Change::Remove(id) if *id == voter.id)) {
            all += 1;
            started += usize::from(!voter.name.is_empty());
        }
        match change {
            Change::Remove(_) => {}
            Change::Promote(_) => {
                all += 1;
                started += 1;
            }
            Change::Add(_) => {
                all += 1;
                // The second member of a group may be added before it is there.
                if started == 1 && all == 2 {
                    return Ok(());
                }
            }
        }
        if started < all / 2 + 1 {
            return Err(StoreError::NotEnoughStarted);
        }
        Ok(())
    }

    /// Checks that a member's URLs are its own.
    ///
    /// # Errors
    /// When another member has one of them.
    pub fn check_urls(&self, member: &StoredMember) -> Result<(), StoreError> {
        let taken = self
            .members
            .values()
            .filter(|other| other.id != member.id)
            .flat_map(|other| &other.peer_urls)
            .any(|url| member.peer_urls.contains(url));
        if taken {
            return Err(StoreError::PeerUrlExists);
        }
        Ok(())
    }
}

/// A member as clients see it.
#[must_use]
pub fn to_etcd(member: &StoredMember) -> etcd::Member {
    etcd::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.learner,
    }
}

/// A member as the others tell of it.
#[must_use]
pub fn to_peer(member: &StoredMember) -> PeerMember {
    PeerMember {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        learner: member.learner,
    }
}

/// A member of whom another has told.
#[must_use]
pub fn from_peer(member: PeerMember) -> StoredMember {
    StoredMember {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        learner: member.learner,
    }
}
