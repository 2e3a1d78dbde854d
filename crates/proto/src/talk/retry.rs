//! Messages sent again until they are acknowledged: MAIL and ANSWER (section 3).

use std::time::Duration;

use crate::member::MemberId;
use crate::table::{Set, Table};
use crate::time::Mono;
use crate::wire::{Message, message_bytes};

/// Messages under way at most, and their bytes.
pub const UNDER_WAY_MAX: usize = 4_096;
pub const BYTES_MAX: usize = 64 << 20;
/// Tries a timeout W apart, doubling; then one each [`SLOW`].
const QUICK_TRIES: u32 = 3;
const SLOW: Duration = Duration::from_secs(1);
/// A stream that failed is tried again after this.
const STREAM_AGAIN: Duration = Duration::from_millis(500);

struct Item {
    to: MemberId,
    message: Message,
    bytes: usize,
    tries: u32,
    at: Mono,
    until: Mono,
}

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// W = 1.1 x the largest recent round trip + 20 ms.
    pub wait: Duration,
    /// Longer messages go over a stream.
    pub room: usize,
    /// Bytes per second of the whole budget.
    pub bytes_per_second: u64,
}

impl Pace {
    /// The time after try number `tries`: W, 2 W, 4 W, then a second each. A stream takes its bytes at half the budget, twice.
    fn after(&self, tries: u32, bytes: usize) -> Duration {
        if bytes > self.room {
            return SLOW + Duration::from_secs_f64(bytes as f64 * 4.0 / self.bytes_per_second.max(1) as f64);
        }
        match tries {
            1..=QUICK_TRIES => self.wait * (1 << (tries - 1)),
            _ => SLOW.max(self.wait * 4),
        }
    }
}

/// No room for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The table. When it is full a new message is refused.
pub struct Retries<K> {
    items: Table<K, Item>,
    due: Set<(Mono, K)>,
    bytes: usize,
}

impl<K: Ord + Copy> Retries<K> {
    pub fn new() -> Retries<K> {
        Retries { items: Table::new(), due: Set::new(), bytes: 0 }
    }

    /// From `at` on, until `until`, to `to`.
    pub fn insert(
        &mut self,
        key: K,
        to: MemberId,
        message: Message,
        at: Mono,
        until: Mono,
    ) -> Result<(), Full> {
        let bytes = message_bytes(&message);
        if self.items.len() >= UNDER_WAY_MAX || self.bytes + bytes > BYTES_MAX {
            return Err(Full);
        }
        self.remove(key);
        self.bytes += bytes;
        self.due.insert((at.min(until), key));
        self.items.insert(key, Item { to, message, bytes, tries: 0, at: at.min(until), until });
        Ok(())
    }

    /// It was acknowledged, or nobody waits for it any more. True if it was under way.
    pub fn remove(&mut self, key: K) -> bool {
        let Some(item) = self.items.remove(&key) else { return false };
        self.due.remove(&(item.at, key));
        self.bytes -= item.bytes;
        true
    }

    /// To whom this message goes.
    pub fn to(&self, key: K) -> Option<MemberId> {
        self.items.get(&key).map(|item| item.to)
    }

    /// Its stream failed.
    pub fn failed(&mut self, now: Mono, key: K) {
        if let Some(item) = self.items.get_mut(&key) {
            self.due.remove(&(item.at, key));
            item.at = item.until.min(now + STREAM_AGAIN);
            self.due.insert((item.at, key));
        }
    }

    pub fn deadline(&self) -> Mono {
        self.due.first().map_or(Mono::FAR, |(at, _)| *at)
    }

    /// What is due: messages to send now, and keys whose time is over.
    pub fn handle_timeout(&mut self, now: Mono, pace: Pace) -> (Vec<(MemberId, Message)>, Vec<K>) {
        let (mut sends, mut over) = (Vec::new(), Vec::new());
        while let Some(&(at, key)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, key));
            let Some(item) = self.items.get_mut(&key) else { continue };
            if item.until <= now {
                self.remove(key);
                over.push(key);
                continue;
            }
            item.tries += 1;
            item.at = item.until.min(now + pace.after(item.tries, item.bytes));
            self.due.insert((item.at, key));
            sends.push((item.to, item.message.clone()));
        }
        (sends, over)
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }
}
