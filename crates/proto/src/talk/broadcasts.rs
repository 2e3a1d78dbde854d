//! Broadcasts (section 2.3): own numbers, and what others sent, in the order of each sender's numbers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::format::{self, Kind};
use crate::entry::{Entry, Version};
use crate::member::MemberId;
use crate::metrics::TalkMetrics;
use crate::output::{Event, Payload};
use crate::table::{Set, Table};
use crate::time::{Mono, Now};

/// Time a gap in a sender's numbers is waited for.
pub const GAP: Duration = Duration::from_secs(5);
/// When others are asked for what is missing, and how often again: rumors have gone their rounds by then, and anti-entropy,
/// which compares what is 3 s old, needs longer than [`GAP`] under loss.
const ASK: Duration = Duration::from_millis(1_250);
const ASK_AGAIN: Duration = Duration::from_millis(750);
/// Senders remembered; the one heard longest ago goes.
const WRITERS_MAX: usize = 16_384;
/// Broadcasts that wait for an earlier one, of all senders together; beyond it the gap in question is skipped at once.
const WAITING_MAX: usize = 65_536;
/// Missing numbers looked up or asked for at a time.
const MISSING_MAX: usize = 32;

struct Writer {
    /// Next number to deliver.
    next: u32,
    /// Later ones; none: not to be delivered.
    waiting: Table<u32, Option<Arc<Entry>>>,
    /// The gap before the first of these.
    gap: Option<Gap>,
    heard: Mono,
}

#[derive(Clone, Copy)]
struct Gap {
    /// The number it begins with.
    begins: u32,
    /// When it is skipped.
    skip_at: Mono,
    /// When it is asked for.
    ask_at: Mono,
}

impl Gap {
    fn at(&self) -> Mono {
        self.ask_at.min(self.skip_at)
    }
}

/// Own and received broadcasts.
pub struct Broadcasts {
    retention: Duration,
    next: u32,
    /// First own number of each second whose broadcasts are still retained.
    sent: VecDeque<(u32, u32)>,
    writers: Table<MemberId, Writer>,
    gaps: Set<(Mono, MemberId)>,
    waiting: usize,
}

/// Where deliveries go.
pub struct Out<'a> {
    pub topics: &'a super::Topics,
    pub events: &'a mut VecDeque<Event>,
    /// Keys that are missing, and of which sender.
    pub asks: &'a mut VecDeque<(MemberId, Vec<Vec<u8>>)>,
    pub metrics: &'a mut TalkMetrics,
}

impl Out<'_> {
    fn deliver(&mut self, entry: &Arc<Entry>) {
        let Some(value) = format::parse_broadcast(&entry.value) else {
            self.metrics.malformed += 1;
            return;
        };
        if let Some(topic) = self.topics.find(value.topic) {
            self.metrics.broadcasts_delivered += 1;
            let payload = Payload::new(entry.value.clone(), value.payload_at);
            self.events.push_back(Event::BroadcastReceived { from: Arc::from(value.name), topic, payload });
        }
    }
}

impl Broadcasts {
    pub fn new(retention: Duration) -> Broadcasts {
        Broadcasts {
            retention,
            next: 0,
            sent: VecDeque::new(),
            writers: Table::new(),
            gaps: Set::new(),
            waiting: 0,
        }
    }

    /// A new run under a new id: numbers begin anew.
    pub fn renew(&mut self) {
        self.next = 0;
        self.sent.clear();
    }

    /// The next own number, and the first that is still retained.
    pub fn number(&mut self, now: Now) -> (u32, u32) {
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let ended = |second: u32| (u64::from(second) + 1) * 1_000 + retention_ms <= now.wall.0;
        while self.sent.front().is_some_and(|(second, _)| ended(*second)) {
            self.sent.pop_front();
        }
        (self.next, self.sent.front().map_or(self.next, |(_, number)| *number))
    }

    /// The next own number was written in this version, and is delivered here at once.
    pub fn wrote(&mut self, version: Version, entry: &Arc<Entry>, mut out: Out<'_>) {
        let second = version.stamp.second().0;
        if self.sent.back().is_none_or(|(last, _)| *last < second) {
            self.sent.push_back((second, self.next));
        }
        self.next = self.next.wrapping_add(1);
        out.metrics.broadcasts_sent += 1;
        out.deliver(entry);
    }

    /// A broadcast of another member is news. `quiet`: it came with my PULL, so it is not delivered.
    pub fn handle_entry(&mut self, now: Now, number: u32, entry: &Arc<Entry>, quiet: bool, mut out: Out<'_>) {
        let Some(value) = format::parse_broadcast(&entry.value).filter(|v| v.first <= number) else {
            out.metrics.malformed += 1;
            return;
        };
        let id = entry.version.writer;
        self.make_room(id, &mut out);
        let writer = self.writers.or_insert_with(id, || Writer {
            next: value.first,
            waiting: Table::new(),
            gap: None,
            heard: now.mono,
        });
        writer.heard = now.mono;
        if number < writer.next {
            return;
        }
        if writer.waiting.insert(number, (!quiet).then(|| entry.clone())).is_none() {
            self.waiting += 1;
        }
        if value.first > writer.next {
            // What lies before can no longer come.
            self.skip_to(id, value.first, &mut out);
        }
        self.advance(now, id, &mut out);
        if self.waiting > WAITING_MAX {
            self.skip_gap(now, id, &mut out);
        }
    }

    fn make_room(&mut self, id: MemberId, out: &mut Out<'_>) {
        if self.writers.len() < WRITERS_MAX || self.writers.contains_key(&id) {
            return;
        }
        let oldest = self.writers.iter().min_by_key(|(_, w)| (!w.waiting.is_empty(), w.heard));
        if let Some((&oldest, _)) = oldest
            && let Some(gone) = self.writers.remove(&oldest)
        {
            self.waiting -= gone.waiting.len();
            out.metrics.broadcasts_skipped += gone.waiting.values().flatten().count() as u64;
            if let Some(gap) = gone.gap {
                self.gaps.remove(&(gap.at(), oldest));
            }
        }
    }

    /// Delivers what is next, and looks after the gap that follows.
    fn advance(&mut self, now: Now, id: MemberId, out: &mut Out<'_>) {
        let Some(writer) = self.writers.get_mut(&id) else { return };
        while let Some(held) = writer.waiting.remove(&writer.next) {
            self.waiting -= 1;
            writer.next = writer.next.saturating_add(1);
            if let Some(entry) = held {
                out.deliver(&entry);
            }
        }
        let begins = (!writer.waiting.is_empty()).then_some(writer.next);
        if begins != writer.gap.map(|gap| gap.begins) {
            if let Some(gap) = writer.gap.take() {
                self.gaps.remove(&(gap.at(), id));
            }
            if let Some(begins) = begins {
                let gap = Gap { begins, skip_at: now.mono + GAP, ask_at: now.mono + ASK };
                writer.gap = Some(gap);
                self.gaps.insert((gap.at(), id));
            }
        }
    }

    fn skip_gap(&mut self, now: Now, id: MemberId, out: &mut Out<'_>) {
        if let Some(first) = self.writers.get(&id).and_then(|w| w.waiting.first_key_value()).map(|(n, _)| *n)
        {
            self.skip_to(id, first, out);
            self.advance(now, id, out);
        }
    }

    /// Nothing before this number is waited for any more.
    fn skip_to(&mut self, id: MemberId, to: u32, out: &mut Out<'_>) {
        let Some(writer) = self.writers.get_mut(&id) else { return };
        let mut earlier = Vec::new();
        while writer.waiting.first_key_value().is_some_and(|(number, _)| *number < to) {
            earlier.extend(writer.waiting.pop_first().map(|(_, entry)| entry));
        }
        self.waiting -= earlier.len();
        let missing = u64::from(to.saturating_sub(writer.next)) - earlier.len() as u64;
        writer.next = writer.next.max(to);
        for entry in earlier.iter().flatten() {
            out.deliver(entry);
        }
        if missing > 0 {
            out.metrics.broadcasts_skipped += missing;
            let waiting = writer.waiting.values().chain(&earlier).flatten().next();
            let name =
                waiting.and_then(|entry| format::parse_broadcast(&entry.value)).map(|v| Arc::from(v.name));
            out.events.push_back(Event::BroadcastsLagged { from: name, dropped: missing });
        }
    }

    pub fn deadline(&self) -> Mono {
        self.gaps.first().map_or(Mono::FAR, |(at, _)| *at)
    }

    /// Asks for what is missing, and skips the gaps whose time is over, unless `is_coming` says of a missing key that its
    /// transfer is under way.
    pub fn handle_timeout(&mut self, now: Now, is_coming: &dyn Fn(&[u8]) -> bool, mut out: Out<'_>) {
        while let Some(&(at, id)) = self.gaps.first().filter(|(at, _)| *at <= now.mono) {
            self.gaps.remove(&(at, id));
            let Some(writer) = self.writers.get_mut(&id) else { continue };
            let Some(mut gap) = writer.gap.take() else { continue };
            let end = writer.waiting.first_key_value().map_or(gap.begins, |(first, _)| *first);
            let missing = (gap.begins..end).take(MISSING_MAX);
            let mut keys = missing.map(|number| format::key(Kind::Broadcast, id, number));
            if gap.skip_at > now.mono {
                out.asks.push_back((id, keys.map(|key| key.to_vec()).collect()));
                gap.ask_at = now.mono + ASK_AGAIN;
            } else if keys.any(|key| is_coming(&key)) {
                gap.skip_at = now.mono + GAP;
                gap.ask_at = now.mono + ASK;
            } else {
                self.skip_gap(now, id, &mut out);
                continue;
            }
            writer.gap = Some(gap);
            self.gaps.insert((gap.at(), id));
        }
    }
}
