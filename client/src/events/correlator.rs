//! Which events are written, which are counted, which are dropped.
//!
//! Three rules, upstream's figures: one object may make 25 events at once and then one in five minutes; ten events
//! about one object that differ only in their text become one within ten minutes; an event that repeats is counted.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

use keelson_api::object::ObjectKey;

use super::Happening;

/// How many events one object may make at once.
const BURST: f64 = 25.0;
/// How long until it may make one more.
const REFILL: Duration = Duration::from_secs(300);
/// How many different texts are told apart before similar events are combined.
const MAX_SIMILAR: usize = 10;
/// How long texts count as similar.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// How many entries each table keeps. Beyond that the old ones go, and then what they knew is forgotten.
const MAX_ENTRIES: usize = 4096;
const COMBINED: &str = "(combined from similar events): ";

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// There are too many about this object.
    Drop,
    /// Write it, then say so with [`Correlator::created`].
    Create { message: String },
    /// It happened again: set this count on that Event.
    Count {
        key: ObjectKey,
        count: i32,
        message: String,
    },
}

/// What has been seen, as hashes of what tells events apart.
pub(super) struct Correlator {
    hasher: RandomState,
    spam: HashMap<u64, Bucket>,
    similar: HashMap<u64, Similar>,
    written: HashMap<u64, Written>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

struct Similar {
    texts: HashSet<u64>,
    at: Instant,
}

struct Written {
    key: ObjectKey,
    count: i32,
    at: Instant,
}

trait Aged {
    fn at(&self) -> Instant;
}

macro_rules! aged {
    ($($kind:ty),*) => { $(impl Aged for $kind { fn at(&self) -> Instant { self.at } })* };
}
aged!(Bucket, Similar, Written);

/// Makes room for one more entry.
fn trim<V: Aged>(table: &mut HashMap<u64, V>, now: Instant) {
    if table.len() < MAX_ENTRIES {
        return;
    }
    table.retain(|_, entry| now.duration_since(entry.at()) < SIMILAR_WITHIN);
    if table.len() >= MAX_ENTRIES {
        table.clear();
    }
}

impl Correlator {
    pub(super) fn new() -> Self {
        Correlator {
            hasher: RandomState::new(),
            spam: HashMap::new(),
            similar: HashMap::new(),
            written: HashMap::new(),
        }
    }

    pub(super) fn judge(&mut self, event: &Happening, now: Instant) -> Verdict {
        if !self.admit(event, now) {
            return Verdict::Drop;
        }
        let combined = self.is_combined(event, now);
        let message = if combined {
            format!("{COMBINED}{}", event.message)
        } else {
            event.message.clone()
        };
        match self.written.get_mut(&self.identity(event, combined)) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                written.at = now;
                Verdict::Count {
                    key: written.key.clone(),
                    count: written.count,
                    message,
                }
            }
            None => Verdict::Create { message },
        }
    }

    /// The event just judged was given this name.
    pub(super) fn created(&mut self, event: &Happening, key: ObjectKey, now: Instant) {
        trim(&mut self.written, now);
        let combined = self
            .similar
            .get(&self.family(event))
            .is_some_and(|similar| similar.texts.len() >= MAX_SIMILAR);
        self.written.insert(
            self.identity(event, combined),
            Written {
                key,
                count: 1,
                at: now,
            },
        );
    }

    fn admit(&mut self, event: &Happening, now: Instant) -> bool {
        trim(&mut self.spam, now);
        let about = &event.about;
        let key = self
            .hasher
            .hash_one((&about.kind, &about.namespace, &about.name, &about.uid));
        let bucket = self.spam.entry(key).or_insert(Bucket {
            tokens: BURST,
            at: now,
        });
        let refilled = now.duration_since(bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn is_combined(&mut self, event: &Happening, now: Instant) -> bool {
        trim(&mut self.similar, now);
        let text = self.hasher.hash_one(&event.message);
        let family = self.family(event);
        let similar = self.similar.entry(family).or_insert_with(|| Similar {
            texts: HashSet::new(),
            at: now,
        });
        if now.duration_since(similar.at) > SIMILAR_WITHIN {
            similar.texts.clear();
        }
        similar.at = now;
        similar.texts.insert(text);
        similar.texts.len() >= MAX_SIMILAR
    }

    fn family(&self, event: &Happening) -> u64 {
        let mut about = event.about.clone();
        // Which state of the object it was is not what tells events apart.
        about.resource_version = None;
        self.hasher.hash_one((
            about.api_version,
            about.kind,
            about.namespace,
            about.name,
            about.uid,
            about.field_path,
            event.kind,
            &event.reason,
        ))
    }

    fn identity(&self, event: &Happening, combined: bool) -> u64 {
        let text = if combined { "" } else { event.message.as_str() };
        self.hasher.hash_one(Identity {
            family: self.family(event),
            combined,
            text,
        })
    }
}

#[derive(Hash)]
struct Identity<'a> {
    family: u64,
    combined: bool,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::EventKind;
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn event(name: &str, message: &str) -> Happening {
        Happening {
            about: ObjectReference {
                name: Some(name.into()),
                ..Default::default()
            },
            kind: EventKind::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            at: keelson_api::time::now(),
        }
    }

    /// Judges, and plays the writer.
    fn observe(correlator: &mut Correlator, event: &Happening, now: Instant) -> Verdict {
        let verdict = correlator.judge(event, now);
        if matches!(verdict, Verdict::Create { .. }) {
            correlator.created(event, ObjectKey::new("n", event.message.as_str()), now);
        }
        verdict
    }

    #[test]
    fn repetitions_are_counted() {
        let mut correlator = Correlator::new();
        let now = Instant::now();
        let again = event("a", "back-off");
        assert_eq!(
            observe(&mut correlator, &again, now),
            Verdict::Create {
                message: "back-off".into()
            }
        );
        for count in 2..5 {
            let key = ObjectKey::new("n", "back-off");
            assert_eq!(
                observe(&mut correlator, &again, now),
                Verdict::Count {
                    key,
                    count,
                    message: "back-off".into()
                }
            );
        }
        assert!(matches!(
            observe(&mut correlator, &event("b", "back-off"), now),
            Verdict::Create { .. }
        ));
    }

    #[test]
    fn similar_texts_are_combined() {
        let mut correlator = Correlator::new();
        let now = Instant::now();
        for n in 0..9 {
            let text = format!("attempt {n}");
            assert_eq!(
                observe(&mut correlator, &event("a", &text), now),
                Verdict::Create { message: text }
            );
        }
        let tenth = observe(&mut correlator, &event("a", "attempt 9"), now);
        assert_eq!(
            tenth,
            Verdict::Create {
                message: format!("{COMBINED}attempt 9")
            }
        );
        let next = observe(&mut correlator, &event("a", "attempt 10"), now);
        assert!(matches!(next, Verdict::Count { count: 2, message, .. } if message.ends_with("attempt 10")));
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut correlator = Correlator::new();
        let now = Instant::now();
        let noisy = event("a", "again");
        let admitted = (0..100)
            .filter(|_| observe(&mut correlator, &noisy, now) != Verdict::Drop)
            .count();
        assert_eq!(admitted, 25);
        assert_ne!(observe(&mut correlator, &event("b", "again"), now), Verdict::Drop);
        let now = now + REFILL;
        assert_ne!(observe(&mut correlator, &noisy, now), Verdict::Drop);
        assert_eq!(observe(&mut correlator, &noisy, now), Verdict::Drop);
    }
}
