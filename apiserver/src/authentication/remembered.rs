//! Answers about tokens that are kept for a while, by the tokens' hashes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// Answers kept at most.
const MOST: usize = 32 * 1024;

/// A token's hash: looking one up says nothing about the token through time, and the token itself is not kept.
pub type Hash = [u8; 32];

/// Answers and when they end.
pub struct Remembered<T>(Mutex<HashMap<Hash, (T, Instant)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    /// What is known about a question.
    pub fn get(&self, hash: &Hash) -> Option<T> {
        let known = self.0.lock();
        let (answer, until) = known.get(hash)?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    /// Keeps an answer for so long.
    pub fn keep(&self, hash: Hash, answer: T, lifetime: Duration) {
        if lifetime.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.retain(|_, (_, until)| now < *until);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert(hash, (answer, now + lifetime));
    }
}

/// The hash of a question with several parts.
pub fn hash(parts: &[&str]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
