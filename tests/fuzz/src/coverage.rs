//! Which ways through the code were taken, in builds that count them.
//!
//! LLVM's SanitizerCoverage gives every edge of the program a counter of a byte and tells where they are before `main`
//! begins. A build without it has no counters, and no input is news.
#![allow(unsafe_code)]

use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// Counters, and how high each of them was in the run of an input: as a bit for each order of magnitude.
struct Part {
    counters: &'static [AtomicU8],
    seen: Vec<u8>,
}

static PARTS: Mutex<Vec<Part>> = Mutex::new(Vec::new());

/// Where the counters of a part of the program are. The compiler makes every part call this at its start; all parts
/// that were linked together name the same place.
///
/// # Safety
/// Both belong to one array of bytes that lives as long as the program, `stop` behind its last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let length = (stop as usize).saturating_sub(start as usize);
    let Ok(mut parts) = PARTS.lock() else {
        return;
    };
    let known = parts
        .iter()
        .any(|part| std::ptr::eq(part.counters.as_ptr().cast::<u8>(), start));
    if length == 0 || known {
        return;
    }
    // SAFETY: the compiler's array; an atomic byte looks like a byte, and the program's own additions to it are plain
    // ones whose loss does not matter.
    let counters = unsafe { slice::from_raw_parts(start.cast::<AtomicU8>(), length) };
    parts.push(Part {
        counters,
        seen: vec![0; length],
    });
}

/// Whether anything was run since the last call that never was before, or much more often. Counting begins anew.
pub fn has_grown() -> bool {
    let Ok(mut parts) = PARTS.lock() else {
        return false;
    };
    let mut grown = false;
    for part in parts.iter_mut() {
        for (counter, seen) in part.counters.iter().zip(&mut part.seen) {
            let count = counter.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            counter.store(0, Ordering::Relaxed);
            // 1, 2 to 3, 4 to 7, and so on.
            let magnitude = 1 << count.ilog2();
            grown |= *seen & magnitude == 0;
            *seen |= magnitude;
        }
    }
    grown
}

/// How many places were ever run, and how many there are.
#[must_use]
pub fn covered() -> (usize, usize) {
    let Ok(parts) = PARTS.lock() else {
        return (0, 0);
    };
    let seen = parts.iter().flat_map(|part| &part.seen);
    (seen.clone().filter(|seen| **seen != 0).count(), seen.count())
}
