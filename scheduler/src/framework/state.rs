//! What plugins keep from one extension point to the next within a cycle.

use std::any::Any;

/// One value of each type: every plugin keeps a type of its own.
#[derive(Default)]
pub struct CycleState {
    values: Vec<Box<dyn Any + Send>>,
}

impl CycleState {
    /// Keeps a value, in place of the one of its type.
    pub fn put<T: Any + Send>(&mut self, value: T) {
        self.values.retain(|kept| !kept.is::<T>());
        self.values.push(Box::new(value));
    }

    /// The kept value of a type.
    pub fn get<T: Any + Send>(&self) -> Option<&T> {
        self.values.iter().find_map(|value| value.downcast_ref())
    }
}
