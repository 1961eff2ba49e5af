//! The one clock of a member.
//!
//! Everything that waits or expires asks here what time it is, so that a simulation can say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What time it is. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct Time {
    simulated: Option<Arc<Simulated>>,
}

#[derive(Debug)]
struct Simulated {
    start: Instant,
    micros: AtomicU64,
}

impl Time {
    /// The system's monotonic clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is told to go on.
    #[must_use]
    pub fn simulated() -> Self {
        Self {
            simulated: Some(Arc::new(Simulated {
                start: Instant::now(),
                micros: AtomicU64::new(0),
            })),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.simulated {
            None => Instant::now(),
            Some(simulated) => {
                simulated.start + Duration::from_micros(simulated.micros.load(Ordering::Relaxed))
            }
        }
    }

    /// Microseconds that a simulated clock shows; the system's clock shows none.
    pub fn set(&self, micros: u64) {
        if let Some(simulated) = &self.simulated {
            simulated.micros.store(micros, Ordering::Relaxed);
        }
    }
}
