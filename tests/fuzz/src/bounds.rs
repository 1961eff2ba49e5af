//! What a decoder may take for an input: memory, the processor's time, and an end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::memory::peak_of;

/// Memory a decoder may take whatever the input.
const ROOM: usize = 16 << 20;
/// And for each byte of it: a value of JSON is 72 bytes in memory, two in text.
const PER_BYTE: usize = 2 << 10;
/// Time on the processor, thousands of times what an input of a few KiB needs.
const PATIENCE: Duration = Duration::from_secs(5);
/// An input that is worked on for so long has no end.
const HANGS: Duration = Duration::from_secs(180);
/// How often somebody looks after it.
const LOOK: Duration = Duration::from_secs(10);

type Current = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

/// The decoder, panicking when an input makes it take more than it may. Memory is counted in programs whose allocator
/// is [`crate::Counted`]. The process ends with a decoder that never does.
pub fn bounded(feed: impl Fn(&[u8])) -> impl Fn(&[u8]) {
    bounded_to(ROOM, feed)
}

/// The same where more memory may be taken whatever the input.
pub fn bounded_to(room: usize, feed: impl Fn(&[u8])) -> impl Fn(&[u8]) {
    let current = Current::default();
    let watched = Arc::downgrade(&current);
    std::thread::spawn(move || {
        while let Some(current) = watched.upgrade() {
            end_if_hanging(&current);
            drop(current);
            std::thread::sleep(LOOK);
        }
    });
    move |input| {
        set(&current, Some((Instant::now(), input.to_vec())));
        // What is built at the first use is not the input's doing: who takes much is asked again.
        if attempt(&feed, input, room).is_err()
            && let Err(why) = attempt(&feed, input, room)
        {
            panic!("{why}, for {} bytes of input", input.len());
        }
        set(&current, None);
    }
}

fn set(current: &Current, to: Option<(Instant, Vec<u8>)>) {
    if let Ok(mut current) = current.lock() {
        *current = to;
    }
}

fn attempt(feed: &impl Fn(&[u8]), input: &[u8], room: usize) -> Result<(), String> {
    let before = processor_time();
    let ((), held) = peak_of(|| feed(input));
    let took = processor_time().saturating_sub(before);
    if held > room + PER_BYTE * input.len() {
        return Err(format!("{held} bytes of memory taken"));
    }
    if took > PATIENCE {
        return Err(format!("{} ms of the processor taken", took.as_millis()));
    }
    Ok(())
}

/// The time this thread has had on a processor: what else the machine does is not the decoder's fault.
fn processor_time() -> Duration {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = read.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(spent.unwrap_or_default())
}

fn end_if_hanging(current: &Current) {
    let Ok(current) = current.lock() else { return };
    if let Some((since, input)) = &*current
        && since.elapsed() > HANGS
    {
        eprintln!(
            "a decoder hangs with {} bytes: {}",
            input.len(),
            input.escape_ascii()
        );
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::Counted;

    #[global_allocator]
    static ALLOCATOR: Counted = Counted;

    #[test]
    fn who_takes_more_memory_than_the_input_is_worth_is_told() {
        let take = bounded(|input: &[u8]| {
            std::hint::black_box(Vec::<u8>::with_capacity(input.len() << 20));
        });
        take(&[0; 8]);
        assert!(catch_unwind(std::panic::AssertUnwindSafe(|| take(&[0; 64]))).is_err());
    }
}
