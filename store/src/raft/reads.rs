//! Confirming, for many readers at once, that the leader still leads.
//!
//! A linearizable read asks the leader for the commit index and waits until this member has applied that far.
//! Everyone who asks while a question is on its way shares the next one. The library drops questions silently
//! until a leader has committed in its term, so an unanswered one is asked again under a new name.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::StoreError;

/// Told when the state is recent enough to be read.
pub type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// Readers and what they wait for.
#[derive(Default)]
pub struct Reads {
    /// Not yet part of a question.
    new: Vec<(Waiter, Instant)>,
    /// The question that is on its way.
    asked: Option<Question>,
    /// Answered: waiting for an index to be applied.
    confirmed: Vec<(u64, Waiter)>,
    last_context: u64,
}

struct Question {
    context: u64,
    at: Instant,
    waiters: Vec<(Waiter, Instant)>,
}

impl Reads {
    /// A reader wants to know.
    pub fn ask(&mut self, waiter: Waiter, now: Instant) {
        self.new.push((waiter, now));
    }

    /// The question to put to the library now, if there is one; `retry` is how long an answer may take.
    pub fn next_question(&mut self, member: u64, retry: Duration, now: Instant) -> Option<Vec<u8>> {
        match &mut self.asked {
            Some(question) if now.duration_since(question.at) < retry => return None,
            Some(question) => self.new.append(&mut question.waiters),
            None => {}
        }
        self.asked = None;
        if self.new.is_empty() {
            return None;
        }
        self.last_context += 1;
        self.asked = Some(Question {
            context: self.last_context,
            at: now,
            waiters: std::mem::take(&mut self.new),
        });
        let mut context = member.to_be_bytes().to_vec();
        context.extend_from_slice(&self.last_context.to_be_bytes());
        Some(context)
    }

    /// The leader has answered: the commit index at that time.
    pub fn answered(&mut self, context: &[u8], index: u64) {
        let Some(question) = &self.asked else {
            return;
        };
        if !context.ends_with(&question.context.to_be_bytes()) {
            return;
        }
        if let Some(question) = self.asked.take() {
            self.confirmed
                .extend(question.waiters.into_iter().map(|(waiter, _)| (index, waiter)));
        }
    }

    /// The state has reached `index`.
    pub fn applied(&mut self, index: u64) {
        if self.confirmed.is_empty() {
            return;
        }
        for (_, waiter) in self.confirmed.extract_if(.., |(want, _)| *want <= index) {
            // A reader that has gone needs no answer.
            let _ = waiter.send(Ok(()));
        }
    }

    /// Gives up on readers that have waited longer than `patience`.
    pub fn expire(&mut self, patience: Duration, now: Instant) {
        let late = |(_, since): &mut (Waiter, Instant)| now.duration_since(*since) > patience;
        let mut given_up: Vec<_> = self.new.extract_if(.., late).collect();
        if let Some(question) = &mut self.asked {
            given_up.extend(question.waiters.extract_if(.., late));
        }
        for (waiter, _) in given_up {
            let _ = waiter.send(Err(StoreError::Timeout));
        }
    }

    /// Whether anyone waits for a question to be asked.
    #[must_use]
    pub fn has_new(&self) -> bool {
        !self.new.is_empty()
    }
}
