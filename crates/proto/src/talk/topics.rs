//! Topics somebody here listens to.

use std::sync::Arc;

use super::retry::Full;

use crate::table::Set;

/// Topics at most; more are refused.
pub const TOPICS_MAX: usize = 4_096;

/// The set.
#[derive(Default)]
pub struct Topics(Set<Arc<str>>);

impl Topics {
    /// Adds one.
    pub fn add(&mut self, topic: &str) -> Result<(), Full> {
        if self.0.len() >= TOPICS_MAX && !self.0.contains(topic) {
            return Err(Full);
        }
        self.0.insert(Arc::from(topic));
        Ok(())
    }

    /// Takes one out.
    pub fn remove(&mut self, topic: &str) {
        self.0.remove(topic);
    }

    /// The topic, if it is one of these.
    pub fn find(&self, topic: &str) -> Option<Arc<str>> {
        self.0.get(topic).cloned()
    }
}
