//! The file format of etcd's database, bbolt: written for backups that `etcdctl` can read, and read to restore
//! backups, etcd's own included.
//!
//! - [`write`]: a file as a stream, from records in order
//! - [`read`]: the records of a file, however damaged it may be
//!
//! A file is pages of 4 KiB. Pages 0 and 1 say where the rest begins; the one with the higher transaction counts. A
//! bucket is a tree of pages: branches with the first key and the number of each child, leaves with keys and values. The
//! root is a bucket of buckets. A page may go on over the ones behind it. Numbers are little-endian.
//!
//! | page | content |
//! | --- | --- |
//! | head | number 8, kind 2, count 2, pages it goes on over 4 |
//! | meta | magic 4, version 4, page size 4, flags 4, root 8, sequence 8, free list 8, pages in all 8, transaction 8, FNV-1a of that 8 |
//! | branch element | distance to the key 4, length of the key 4, page 8 |
//! | leaf element | flags 4, distance to the key 4, length of the key 4, length of the value 4 |
//!
//! Distances are from the element itself; a value follows its key.

pub mod read;
pub mod write;

/// Size of a page, as etcd's machines have them.
const PAGE_BYTES: usize = 4096;
const HEAD_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const META: u16 = 4;
const FREE_LIST: u16 = 16;

/// The value of a leaf element is a bucket: its root page and a sequence number.
const IS_BUCKET: u32 = 1;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Bytes of the meta that its checksum covers.
const META_BYTES: usize = 56;

/// FNV-1a with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
