//! What a client can be told: etcd's errors, with etcd's codes and texts, since clients compare both.

use tonic::{Code, Status};

/// An answer that is not a result. The text is what etcd sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A request without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` for a key that does not exist.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value together with `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease together with `ignore_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A transaction of more operations than `--max-txn-ops`.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// Two writes of one transaction touch the same key.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision asked for is gone; list again.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for is not there yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The quota is used up or the disk is full; delete and compact, or make room.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The request is larger than `--max-request-bytes`.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// The message is larger than the transport takes.
    #[error("grpc: received message larger than max ({bytes} vs. {limit})")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
        /// The largest.
        limit: usize,
    },
    /// More is waiting to be agreed than the member is willing to hold; back off.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// There is no such lease, or it has ended.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// The lease's number is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A lease longer than 9,000,000,000 seconds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The group has no leader at the moment; try again.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Only the leader can do this.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// The leader changed while the request was on its way; its outcome is not known.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// No outcome in time; it may still happen.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The local state failed its checks.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// There is no such member.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// The member is already there.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member has one of these peer URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// The change would leave the group without a working majority.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Too few members answer for the change to be safe.
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// A member URL that cannot be used.
    #[error("etcdserver: given member URLs are invalid")]
    BadMemberUrls,
    /// Promotion of a member that already votes.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    /// Promotion of a learner that is still behind.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// A learner more than the group takes at a time.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// A learner answers only what needs no agreement.
    #[error("etcdserver: rpc not supported for learner")]
    LearnerUnsupported,
    /// A downgrade to something that is no version.
    #[error("etcdserver: wrong downgrade target version format")]
    BadDowngradeVersion,
    /// A downgrade to a version that cannot be reached.
    #[error("etcdserver: invalid downgrade target version")]
    InvalidDowngrade,
    /// There is no downgrade to be cancelled.
    #[error("etcdserver: no inflight downgrade job")]
    NoDowngrade,
    /// Leadership cannot go to that member.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    /// Users and roles are not used here.
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// Users and roles cannot be used here.
    #[error(
        "etcdserver: authentication by user and password is not supported; clients are identified by certificate"
    )]
    AuthUnsupported,
    /// Something the store does not do.
    #[error("etcdserver: {0}")]
    Unsupported(&'static str),
    /// The disk or the applied state failed; the member's log says more.
    #[error("etcdserver: storage failure: {0}")]
    Storage(String),
}

impl StoreError {
    /// The gRPC code etcd pairs with the text.
    #[must_use]
    pub fn code(&self) -> Code {
        use StoreError as E;
        match self {
            E::EmptyKey
            | E::KeyNotFound
            | E::ValueProvided
            | E::LeaseProvided
            | E::TooManyOps
            | E::DuplicateKey
            | E::InvalidSortOption
            | E::RequestTooLarge
            | E::BadMemberUrls
            | E::BadDowngradeVersion
            | E::InvalidDowngrade => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::NoSpace | E::TooManyRequests | E::MessageTooLarge { .. } => Code::ResourceExhausted,
            E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
            E::NoLeader
            | E::LeaderChanged
            | E::Timeout
            | E::Stopped
            | E::Unhealthy
            | E::LearnerUnsupported => Code::Unavailable,
            E::Corrupt => Code::DataLoss,
            E::LeaseExists
            | E::NotLeader
            | E::MemberExists
            | E::PeerUrlExists
            | E::NotEnoughStarted
            | E::NotLearner
            | E::LearnerNotReady
            | E::TooManyLearners
            | E::NoDowngrade
            | E::BadTransferee
            | E::AuthNotEnabled => Code::FailedPrecondition,
            E::Unsupported(_) | E::AuthUnsupported => Code::Unimplemented,
            E::Storage(_) => Code::Internal,
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}
