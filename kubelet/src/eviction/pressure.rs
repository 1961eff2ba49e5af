//! What the node is short of, by the thresholds it was given.

use crate::config::Config;
use crate::node::status::Readings;

/// What can run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Bytes on disk.
    Storage,
    /// Files on disk.
    Inodes,
}

impl Resource {
    /// As the API and messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
        }
    }
}

/// A threshold that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Of what there is too little.
    pub resource: Resource,
    /// How much there should be at least.
    pub threshold: u64,
    /// How much there is.
    pub available: u64,
}

/// The shortage to be seen to first: memory before disk, as without it nothing else can be done either.
pub fn worst(config: &Config, readings: &Readings) -> Option<Shortage> {
    let disk = readings.disk;
    let images = readings.images;
    let signals = [
        (
            "memory.available",
            Resource::Memory,
            readings.memory_available,
            readings.memory,
        ),
        (
            "nodefs.available",
            Resource::Storage,
            disk.available,
            disk.capacity,
        ),
        (
            "imagefs.available",
            Resource::Storage,
            images.available,
            images.capacity,
        ),
        (
            "nodefs.inodesFree",
            Resource::Inodes,
            disk.inodes_free,
            disk.inodes,
        ),
        (
            "imagefs.inodesFree",
            Resource::Inodes,
            images.inodes_free,
            images.inodes,
        ),
    ];
    signals
        .into_iter()
        .find_map(|(signal, resource, available, capacity)| {
            let threshold = config.threshold(signal)?.limit(capacity);
            // A file system that counts no inodes is never short of them.
            (capacity > 0 && available < threshold).then_some(Shortage {
                resource,
                threshold,
                available,
            })
        })
}
