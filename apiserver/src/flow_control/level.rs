//! One priority level: seats, and fair queues for those who find none free.
//!
//! A request that finds a seat takes it under a lock held for a few instructions. One that does not waits in the shortest
//! of the few queues its flow is dealt; a seat that becomes free goes to the queue that has had the least of the level's
//! time (start-time fair queuing, as KEP-1040 has it). A flow that floods fills its own queues.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use super::hand::hand;
use super::retry::RetryAfter;

/// What a request is taken to cost before it is known, in seconds of a seat.
const GUESS: f64 = 0.003;
/// With more queues than this, those that matter to nobody any more are forgotten.
const QUEUES_KEPT: usize = 256;

/// What a level's configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// No request waits, and none counts.
    pub exempt: bool,
    /// Seats it has when everybody has what is theirs.
    pub nominal: u32,
    /// Fewest seats it keeps when it lends to others.
    pub least: u32,
    /// Most seats it uses when it borrows from others.
    pub most: u32,
    /// Queues; without them who finds no seat is refused.
    pub queuing: Option<Queuing>,
}

/// `spec.limited.limitResponse.queuing`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    /// Number of queues.
    pub queues: usize,
    /// Number of queues a flow may wait in.
    pub hand: usize,
    /// Requests a queue holds.
    pub length: usize,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No seat, and nobody waits at this level.
    ConcurrencyLimit,
    /// No seat, and no room to wait.
    QueueFull,
    /// It has waited long enough.
    TimeOut,
}

impl Refused {
    /// The metrics' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::ConcurrencyLimit => "concurrency-limit",
            Refused::QueueFull => "queue-full",
            Refused::TimeOut => "time-out",
        }
    }
}

struct Waiting {
    ticket: u64,
    seats: u32,
    grant: oneshot::Sender<()>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How much of the level's time it has had, in seconds of a seat.
    had: f64,
}

struct Inner {
    shape: Shape,
    /// Seats it may use now: its own, less what is lent, and what is borrowed.
    limit: u32,
    in_use: u32,
    waiting: usize,
    waiting_seats: u32,
    tickets: u64,
    /// What the queue served last had had.
    level_had: f64,
    /// Queues in which somebody waits, or lately did.
    queues: BTreeMap<usize, Queue>,
    /// Most seats wanted at once since anybody asked.
    demand: u32,
    retry: RetryAfter,
}

/// Figures of a level.
#[derive(Default)]
pub struct Gauges {
    /// Seats in use.
    pub seats: Gauge,
    /// Seats there are now.
    pub limit: Gauge,
    /// Seats that are its own.
    pub nominal: Gauge,
    /// Fewest seats there may be.
    pub least: Gauge,
    /// Most seats there may be.
    pub most: Gauge,
}

/// A priority level.
pub struct Level {
    /// Its name.
    pub name: String,
    inner: Mutex<Inner>,
    gauges: Gauges,
}

/// What came of asking for seats.
pub enum Asked<'l> {
    /// They are taken.
    Seated(Seat),
    /// There is a place in a queue.
    Queued(Ticket<'l>),
}

impl Level {
    /// A level that nobody uses yet.
    pub fn new(name: &str, shape: Shape, gauges: Gauges) -> Arc<Self> {
        let level = Self {
            name: name.to_owned(),
            inner: Mutex::new(Inner {
                limit: shape.nominal,
                shape: shape.clone(),
                in_use: 0,
                waiting: 0,
                waiting_seats: 0,
                tickets: 0,
                level_had: 0.0,
                queues: BTreeMap::new(),
                demand: 0,
                retry: RetryAfter::default(),
            }),
            gauges,
        };
        level.show(&shape, shape.nominal);
        Arc::new(level)
    }

    fn show(&self, shape: &Shape, limit: u32) {
        let gauges = &self.gauges;
        for (gauge, seats) in [
            (&gauges.nominal, shape.nominal),
            (&gauges.least, shape.least),
            (&gauges.most, shape.most),
            (&gauges.limit, limit),
        ] {
            gauge.set(i64::from(seats));
        }
    }

    /// Makes it what a changed configuration says. Who waits goes on waiting.
    pub fn reshape(&self, shape: Shape) {
        let mut inner = self.inner.lock();
        if inner.shape == shape {
            return;
        }
        if let Some(queuing) = shape.queuing {
            let beyond = inner.queues.split_off(&queuing.queues);
            for (index, queue) in beyond {
                let kept = inner.queues.entry(index % queuing.queues.max(1)).or_default();
                kept.had = kept.had.max(queue.had);
                kept.waiting.extend(queue.waiting);
            }
        }
        inner.limit = match inner.shape.nominal == shape.nominal {
            // What is lent and borrowed stays so until seats are dealt again.
            true => inner.limit.max(shape.least).min(shape.most.max(shape.least)),
            false => shape.nominal,
        };
        self.show(&shape, inner.limit);
        inner.shape = shape;
        inner.serve();
        self.gauges.seats.set(i64::from(inner.in_use));
    }

    /// What it is configured as, and the most seats it wanted at once since this was last asked.
    pub fn demand(&self) -> (Shape, u32) {
        let mut inner = self.inner.lock();
        let wanted = inner.in_use.saturating_add(inner.waiting_seats);
        (inner.shape.clone(), std::mem::replace(&mut inner.demand, wanted))
    }

    /// Seats it may use from now on.
    pub fn set_limit(&self, limit: u32) {
        let mut inner = self.inner.lock();
        inner.limit = limit;
        self.gauges.limit.set(i64::from(limit));
        inner.serve();
        self.gauges.seats.set(i64::from(inner.in_use));
    }

    /// Seats, if there are any to be had at once, else a place in a queue. `flow` says whose request it is among those
    /// of the level.
    ///
    /// # Errors
    /// When there is no place in a queue either.
    pub fn ask(self: &Arc<Self>, seats: u32, flow: impl FnOnce() -> u64) -> Result<Asked<'_>, Refused> {
        let mut inner = self.inner.lock();
        if inner.shape.exempt {
            return Ok(Asked::Seated(Seat::free()));
        }
        // A level with few seats gives them all to one large request rather than none.
        let seats = seats.clamp(1, inner.limit.max(1));
        let wanted = inner
            .in_use
            .saturating_add(inner.waiting_seats)
            .saturating_add(seats);
        inner.demand = inner.demand.max(wanted);
        if inner.waiting == 0 && inner.in_use + seats <= inner.limit {
            inner.in_use += seats;
            self.gauges.seats.set(i64::from(inner.in_use));
            return Ok(Asked::Seated(self.seat(seats, None)));
        }
        let Some(queuing) = inner.shape.queuing else {
            return Err(Refused::ConcurrencyLimit);
        };
        let queue = inner.shortest(flow(), queuing).ok_or(Refused::QueueFull)?;
        let (grant, granted) = oneshot::channel();
        inner.tickets += 1;
        let ticket = inner.tickets;
        inner.join(queue, Waiting { ticket, seats, grant });
        // A level without seats still serves one request at a time.
        inner.serve();
        self.gauges.seats.set(i64::from(inner.in_use));
        Ok(Asked::Queued(Ticket {
            level: self,
            queue,
            ticket,
            seats,
            granted: Some(granted),
        }))
    }

    /// Seconds after which somebody who is turned away may come again.
    pub fn retry_after(&self) -> i32 {
        self.inner.lock().retry.refused(Instant::now())
    }

    fn seat(self: &Arc<Self>, seats: u32, queue: Option<usize>) -> Seat {
        Seat(Some(Taken {
            level: self.clone(),
            seats,
            billed: queue.map(|queue| (queue, Instant::now())),
        }))
    }

    /// Gives seats back, and the queue they came from its bill.
    fn leave(&self, seats: u32, bill: Option<(usize, f64)>) {
        let mut inner = self.inner.lock();
        inner.in_use = inner.in_use.saturating_sub(seats);
        if let Some((queue, seconds)) = bill
            && let Some(queue) = inner.queues.get_mut(&queue)
        {
            queue.had += (seconds - GUESS) * f64::from(seats);
        }
        if inner.waiting > 0 {
            inner.serve();
        }
        self.gauges.seats.set(i64::from(inner.in_use));
    }
}

impl Inner {
    /// The shortest queue of the hand a flow is dealt; `None` when it is full.
    fn shortest(&self, flow: u64, queuing: Queuing) -> Option<usize> {
        let length = |index: &usize| self.queues.get(index).map_or(0, |queue| queue.waiting.len());
        hand(flow, queuing.queues, queuing.hand)
            .into_iter()
            .min_by_key(length)
            .filter(|index| length(index) < queuing.length)
    }

    fn join(&mut self, index: usize, waiting: Waiting) {
        let level_had = self.level_had;
        if self.queues.len() > QUEUES_KEPT {
            self.queues
                .retain(|_, queue| !queue.waiting.is_empty() || queue.had > level_had);
        }
        let queue = self.queues.entry(index).or_default();
        if queue.waiting.is_empty() {
            // Time in which it wanted nothing is not owed to it.
            queue.had = queue.had.max(level_had);
        }
        self.waiting += 1;
        self.waiting_seats = self.waiting_seats.saturating_add(waiting.seats);
        queue.waiting.push_back(waiting);
    }

    /// Gives free seats to those who wait.
    fn serve(&mut self) {
        while self.waiting > 0 {
            let queues = self.queues.values_mut();
            let next = queues
                .filter(|queue| !queue.waiting.is_empty())
                .min_by(|a, b| a.had.total_cmp(&b.had));
            let Some(queue) = next else { return };
            let Some(seats) = queue.waiting.front().map(|first| first.seats) else {
                return;
            };
            if self.in_use > 0 && self.in_use + seats > self.limit {
                return;
            }
            let Some(first) = queue.waiting.pop_front() else {
                return;
            };
            self.level_had = self.level_had.max(queue.had);
            queue.had += GUESS * f64::from(seats);
            self.waiting -= 1;
            self.waiting_seats = self.waiting_seats.saturating_sub(seats);
            self.in_use += seats;
            // Nobody there any more: their ticket gives the seats back.
            let _ = first.grant.send(());
        }
        // Everybody has what they want: who had how much until now matters no more.
        self.queues.clear();
        self.level_had = 0.0;
    }

    /// Takes somebody who no longer waits out of the queue; false when a seat was given meanwhile.
    fn give_up(&mut self, ticket: u64) -> bool {
        for queue in self.queues.values_mut() {
            let position = queue.waiting.iter().position(|waiting| waiting.ticket == ticket);
            if let Some(gone) = position.and_then(|position| queue.waiting.remove(position)) {
                self.waiting -= 1;
                self.waiting_seats = self.waiting_seats.saturating_sub(gone.seats);
                return true;
            }
        }
        false
    }
}

/// A place in a queue. Dropped, also by a caller that went away, it is given up.
pub struct Ticket<'l> {
    level: &'l Arc<Level>,
    queue: usize,
    ticket: u64,
    seats: u32,
    /// Taken out when the seats given for it are somebody's.
    granted: Option<oneshot::Receiver<()>>,
}

impl Ticket<'_> {
    /// Waits for the seats.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub async fn wait(mut self, patience: Duration) -> Result<Seat, Refused> {
        let Some(granted) = &mut self.granted else {
            return Err(Refused::TimeOut);
        };
        if !matches!(tokio::time::timeout(patience, granted).await, Ok(Ok(()))) {
            return Err(Refused::TimeOut);
        }
        self.granted = None;
        Ok(self.level.seat(self.seats, Some(self.queue)))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.granted.is_none() {
            return;
        }
        let waited = self.level.inner.lock().give_up(self.ticket);
        if !waited {
            self.level.leave(self.seats, None);
        }
    }
}

struct Taken {
    level: Arc<Level>,
    seats: u32,
    /// The queue they came from, and since when.
    billed: Option<(usize, Instant)>,
}

/// Seats taken until this is dropped.
pub struct Seat(Option<Taken>);

impl Seat {
    /// No seat of anybody's.
    pub fn free() -> Self {
        Self(None)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            let bill = taken
                .billed
                .map(|(queue, since)| (queue, since.elapsed().as_secs_f64()));
            taken.level.leave(taken.seats, bill);
        }
    }
}

#[cfg(test)]
mod tests;
