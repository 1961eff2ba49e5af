//! What holds when priority and fairness is switched off: so many reading and so many writing requests at the same time,
//! whoever they are from. Nobody waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::Pool;
use crate::authentication::{MASTERS, User};

/// Places of two sorts.
pub struct Inflight {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

impl Inflight {
    /// So many places; 0 is no limit.
    pub fn new(reading: usize, writing: usize) -> Self {
        let pool =
            |size: usize| (size > 0).then(|| Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS))));
        Self {
            reading: pool(reading),
            writing: pool(writing),
        }
    }

    /// A place; `Ok(None)` where none is needed, `Err` when there is none. Whoever runs the cluster needs none.
    pub fn enter(&self, pool: Pool, user: &User) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
        let semaphore = match pool {
            Pool::Reading => &self.reading,
            Pool::Writing => &self.writing,
            Pool::Beginning | Pool::Unlimited => &None,
        };
        let Some(semaphore) = semaphore else {
            return Ok(None);
        };
        match semaphore.clone().try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) if user.in_group(MASTERS) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_refuses_all_but_masters() {
        let inflight = Inflight::new(1, 0);
        let jane = User::named("jane", []);
        let place = inflight.enter(Pool::Reading, &jane);
        assert!(matches!(&place, Ok(Some(_))));
        assert!(inflight.enter(Pool::Reading, &jane).is_err());
        assert!(inflight.enter(Pool::Reading, &User::loopback()).is_ok());
        assert!(matches!(inflight.enter(Pool::Writing, &jane), Ok(None)));
        assert!(matches!(inflight.enter(Pool::Beginning, &jane), Ok(None)));
        drop(place);
        assert!(inflight.enter(Pool::Reading, &jane).is_ok());
    }
}
