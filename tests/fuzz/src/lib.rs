//! Feeds decoders with what nobody should send: a corpus, and what becomes of it by mutation.
//!
//! - [`Fuzz`]: one decoder, its corpus, and the runs
//! - [`corpus`]: inputs that are kept; [`mutate`]: how others are made of them
//! - [`bounds`]: what an input may take; [`memory`]: counting it
//! - [`certificates`]: inputs that several decoders begin with
//! - [`coverage`]: which inputs took a way through the code that none before took, in builds that count it
//!
//! A target is an ordinary test. It feeds the files of its folder and a fixed number of mutations of them, the same
//! ones every time, so that a failure is the same failure again. An input that makes the decoder panic is made as
//! short as it can be and written into the folder; from then on it is a test.
//!
//! ```sh
//! cargo test -p keelson-store --test fuzz                                    # as every test run does
//! KEELSON_FUZZ_SECONDS=600 cargo test -p keelson-store --test fuzz wal_record -- --nocapture
//! ```
//!
//! A long run draws a seed and prints it (`KEELSON_FUZZ_SEED` gives one). What is being tried lies in a file whose
//! path is printed, for the case that the process dies of it. A long run in a build that counts its ways finds inputs
//! that chance alone does not; `KEELSON_FUZZ_KEEP=1` adds those that took a new one to the folder:
//!
//! ```sh
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Clink-arg=-Wl,--unresolved-symbols=ignore-all" \
//!   KEELSON_FUZZ_SECONDS=600 cargo test --target x86_64-unknown-linux-gnu -p keelson-store --test fuzz wal_record
//! ```

pub mod bounds;
pub mod certificates;
pub mod corpus;
pub mod coverage;
pub mod memory;
pub mod mutate;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub use bounds::{bounded, bounded_to};
pub use memory::Counted;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use mutate::Mutator;

/// Mutations tried in an ordinary test run.
const ROUNDS: u64 = 4_000;
/// Longer inputs are not made.
const LONGEST: usize = 8 << 10;
/// Inputs that took a new way are kept on disk up to this size.
const KEEP_BYTES: usize = 2 << 10;
/// How often a shorter input is tried that fails, too.
const SHORTENINGS: u32 = 4_000;
/// And for how long: one that fails for taking too long does so every time.
const SHORTENING: Duration = Duration::from_secs(60);

/// An input as text, for decoders that are given nothing else.
#[must_use]
pub fn text(input: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// A decoder and what it is fed with.
pub struct Fuzz {
    name: String,
    folder: PathBuf,
    pool: Vec<Vec<u8>>,
    mutator: Mutator,
    rounds: u64,
}

impl Fuzz {
    /// A decoder whose kept inputs are in the folder `name` of `corpus`.
    ///
    /// # Panics
    /// When the folder cannot be read.
    #[must_use]
    pub fn new(corpus: impl AsRef<Path>, name: &str) -> Self {
        let folder = corpus.as_ref().join(name);
        Self {
            name: name.into(),
            pool: corpus::read(&folder),
            folder,
            mutator: Mutator::new(LONGEST),
            rounds: ROUNDS,
        }
    }

    /// Pieces of text that mean something to the decoder: mutations use them.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.mutator.add_words(words);
        self
    }

    /// Inputs to begin with that are made by code, as is easier for binary formats.
    #[must_use]
    pub fn examples(mut self, examples: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.pool.extend(examples);
        self
    }

    /// For a decoder of long inputs: mutations are not longer than this.
    #[must_use]
    pub fn longest(mut self, bytes: usize) -> Self {
        self.mutator.longest = bytes;
        self
    }

    /// For a decoder that takes longer than others: fewer mutations in an ordinary test run.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    /// Feeds the decoder: with what is kept, and with mutations of it.
    ///
    /// # Panics
    /// When the decoder does. The input is in the folder then.
    pub fn run(mut self, feed: impl Fn(&[u8])) {
        self.pool.push(Vec::new());
        for input in &self.pool {
            self.try_one(&feed, input);
        }
        // What the known inputs do is nothing new.
        coverage::has_grown();
        match number("KEELSON_FUZZ_SECONDS") {
            None => {
                let mut random = StdRng::seed_from_u64(number("KEELSON_FUZZ_SEED").unwrap_or(0));
                for _ in 0..self.rounds {
                    self.round(&feed, &mut random);
                }
            }
            Some(seconds) => self.run_long(&feed, Duration::from_secs(seconds)),
        }
    }

    fn run_long(&mut self, feed: &impl Fn(&[u8]), length: Duration) {
        let drawn = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        let seed = number("KEELSON_FUZZ_SEED").unwrap_or_else(drawn);
        let mut random = StdRng::seed_from_u64(seed);
        let current = std::env::temp_dir().join(format!("fuzz-{}-{}", self.name, std::process::id()));
        println!(
            "{}: seed {seed}; what is being tried is in {}",
            self.name,
            current.display()
        );
        let keeps = number("KEELSON_FUZZ_KEEP").is_some();
        let (begun, known) = (Instant::now(), self.pool.len());
        let mut rounds = 0_u64;
        while begun.elapsed() < length {
            let input = self.draw(&mut random);
            // If it cannot be written, only the death of the process is harder to explain.
            let _ = std::fs::write(&current, &input);
            self.feed_drawn(feed, input, keeps);
            rounds += 1;
        }
        let _ = std::fs::remove_file(&current);
        let (covered, all) = coverage::covered();
        println!(
            "{}: {rounds} inputs, {} took a new way, {covered} of {all} places covered",
            self.name,
            self.pool.len() - known
        );
    }

    fn round(&mut self, feed: &impl Fn(&[u8]), random: &mut StdRng) {
        let input = self.draw(random);
        self.feed_drawn(feed, input, false);
    }

    fn draw(&self, random: &mut StdRng) -> Vec<u8> {
        // The newest took ways that others did not: there is more to find near them.
        let newest = self.pool.len().saturating_sub(16);
        let from = if random.random_bool(0.3) { newest } else { 0 };
        let mut input = self.pool[random.random_range(from..self.pool.len())].clone();
        self.mutator.mutate(&mut input, &self.pool, random);
        input
    }

    fn feed_drawn(&mut self, feed: &impl Fn(&[u8]), input: Vec<u8>, keep: bool) {
        self.try_one(feed, &input);
        if coverage::has_grown() {
            if keep && input.len() <= KEEP_BYTES {
                corpus::keep(&self.folder, "way", &input);
            }
            self.pool.push(input);
        }
    }

    fn try_one(&self, feed: &impl Fn(&[u8]), input: &[u8]) {
        let fails = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| feed(input))).is_err();
        if !fails(input) {
            return;
        }
        // Thousands of panics are wanted now; one was told of.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let begun = Instant::now();
        let fails_still = |input: &[u8]| begun.elapsed() < SHORTENING && fails(input);
        let short = mutate::shorten(input, SHORTENINGS, &fails_still);
        std::panic::set_hook(hook);
        let path = corpus::keep(&self.folder, "found", &short);
        panic!(
            "{}: an input makes the decoder panic: {}",
            self.name,
            path.display()
        );
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
