//! Everything the store reads from the network or the disk, fed with a corpus and its mutations.
//!
//! - [`log`]: the write-ahead log; [`state`]: the applied state, snapshots, backups, values
//! - [`requests`]: what clients and members send; [`text`]: flags
//!
//! `keelson_fuzz` says how to make long runs and what becomes of an input that fails.

#[path = "../simulation/disk.rs"]
#[allow(dead_code, reason = "crashes and slowness are the simulation's")]
mod disk;
mod log;
mod requests;
mod state;
mod text;

use keelson_fuzz::Fuzz;

/// A decoder by its name, with what is kept for it in `tests/corpus`.
fn fuzz(name: &str) -> Fuzz {
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), name)
}

/// Cuts an input into pieces, each behind a byte that says how long it is.
fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// The reverse of [`pieces`].
fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.push(piece.len() as u8);
        bytes.extend_from_slice(piece);
    }
    bytes
}
