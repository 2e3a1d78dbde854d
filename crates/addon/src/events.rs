//! The bounded ring between the driver's thread and JavaScript: packed events in, batches out, one wake-up at a time.

use std::sync::{Mutex, PoisonError};

use hearsay_proto::entry::Key;
use hearsay_proto::output::{Change, Event};
use hearsay_proto::table::Table;
use hearsay_runtime::Error;

use crate::convert::Writer;

/// Events waiting at most; control events (start, join, leave, stop) come on top.
pub const EVENTS_MAX: usize = 8_192;
/// Bytes of waiting events at most, unless a single one is longer.
pub const BYTES_MAX: usize = 8 << 20;
/// What a drain packs at once of the changes that wait by key.
const CHUNK_BYTES: usize = 256 << 10;

/// Kinds of packed events; `ts/packed.ts` holds the same numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A member.
    Joined = 1,
    /// A member.
    Suspected = 2,
    /// A member.
    Refuted = 3,
    /// A member.
    Died = 4,
    /// A member.
    Left = 5,
    /// A member.
    Updated = 6,
    /// A member.
    Revived = 7,
    /// A member.
    Forgotten = 8,
    /// A change of the local replica.
    Changed = 9,
    /// What a heal cost and brought.
    Healed = 10,
    /// Seed and reason.
    SeedFailed = 11,
    /// Whether a seed answered.
    JoinEnded = 12,
    /// The other member.
    NameConflict = 13,
    /// Entries dropped.
    Rejoined = 14,
    /// Own clock minus the median, ms.
    ClockOff = 15,
    /// Nothing more.
    LeaveEnded = 16,
    /// Events dropped, changes merged, messages dropped.
    Lagged = 17,
    /// Sockets are bound, commands work.
    Started = 18,
    /// Code and message.
    StartFailed = 19,
    /// The state machine failed: message.
    Failed = 20,
    /// Sockets are closed; the last one.
    Stopped = 21,
    /// Sender, topic, payload.
    Broadcast = 22,
    /// Sender, topic, payload.
    Mail = 23,
    /// Number, and whether it was delivered.
    MailEnded = 24,
    /// Number, asker, topic, payload.
    Query = 25,
    /// Number of the query, who answers, status (3: lost), payload.
    Answer = 26,
    /// Number of the query, and who was silent.
    QueryEnded = 27,
    /// Number, how many, of how many.
    Confirmed = 28,
    /// Why the store on disk fails; empty: it works again.
    Storage = 29,
    /// Number, and code and message of what went wrong, or empty.
    Flushed = 30,
}

/// An answer that the ring had no room for, instead of its status.
const ANSWER_LOST: u8 = 3;

impl Kind {
    /// Messages of other members.
    fn is_message(self) -> bool {
        matches!(self, Kind::Broadcast | Kind::Mail | Kind::Query)
    }

    /// Control events are few, each awaited by somebody, and never dropped.
    fn is_control(self) -> bool {
        matches!(
            self,
            Kind::JoinEnded
                | Kind::NameConflict
                | Kind::LeaveEnded
                | Kind::Started
                | Kind::StartFailed
                | Kind::Failed
                | Kind::Stopped
                | Kind::MailEnded
                | Kind::QueryEnded
                | Kind::Confirmed
                | Kind::Storage
                | Kind::Flushed
        )
    }
}

/// What [`Ring::push`] asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Wake {
    /// JavaScript sleeps: wake it, once.
    Now,
    /// It is awake or about to be.
    No,
}

/// What [`Ring::drain`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// So many bytes of whole events were copied. Zero: nothing waits and the next push wakes.
    Bytes(usize),
    /// The next event alone needs a buffer of this length; nothing was copied.
    Needs(usize),
}

/// The ring. When it is full, events are dropped and counted; changes of the replica are kept as the newest per key, so that
/// a slow reader never misses the last value. Their number is bounded by the keys of the replica.
#[derive(Default)]
pub struct Ring {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    packed: Vec<u8>,
    at: usize,
    waiting: usize,
    newest: Table<Key, Change>,
    dropped: u64,
    merged: u64,
    messages: u64,
    lost_total: u64,
    woken: bool,
    watched: bool,
    closed: bool,
}

impl Ring {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody watches the replica: its changes are packed only then.
    pub fn watch(&self, watched: bool) {
        let mut inner = self.lock();
        inner.watched = watched;
        if !watched {
            inner.newest.clear();
        }
    }

    /// Forgets everything; later pushes do nothing.
    pub fn close(&self) {
        *self.lock() = Inner { closed: true, ..Inner::default() };
    }

    /// Events waiting, and events and changes lost so far.
    pub fn counts(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.waiting + inner.newest.len(), inner.lost_total)
    }

    /// Queues what the runtime said.
    pub fn event(&self, event: Event) -> Wake {
        match event {
            Event::MemberJoined(m) => self.pack(Kind::Joined, |w| w.member(&m)),
            Event::MemberSuspected(m) => self.pack(Kind::Suspected, |w| w.member(&m)),
            Event::MemberRefuted(m) => self.pack(Kind::Refuted, |w| w.member(&m)),
            Event::MemberDied(m) => self.pack(Kind::Died, |w| w.member(&m)),
            Event::MemberLeft(m) => self.pack(Kind::Left, |w| w.member(&m)),
            Event::MemberUpdated(m) => self.pack(Kind::Updated, |w| w.member(&m)),
            Event::MemberRevived(m) => self.pack(Kind::Revived, |w| w.member(&m)),
            Event::MemberForgotten(m) => self.pack(Kind::Forgotten, |w| w.member(&m)),
            Event::StateChanged(change) => self.change(change),
            Event::PartitionHealed(healed) => self.pack(Kind::Healed, |w| w.healed(&healed)),
            Event::SeedFailed { seed, error } => self.pack(Kind::SeedFailed, |w| {
                w.text(&seed);
                w.text(&error);
            }),
            Event::JoinEnded { joined } => self.pack(Kind::JoinEnded, |w| w.flag(joined)),
            Event::NameConflict { other } => self.pack(Kind::NameConflict, |w| w.member(&other)),
            Event::Rejoined { dropped } => self.pack(Kind::Rejoined, |w| w.number(dropped as f64)),
            Event::ClockOff { off_ms } => self.pack(Kind::ClockOff, |w| w.number(off_ms as f64)),
            Event::LeaveEnded => self.pack(Kind::LeaveEnded, |_| ()),
            Event::BroadcastReceived { from, topic, payload } => {
                self.pack(Kind::Broadcast, |w| w.message(&from, &topic, &payload))
            }
            Event::MailReceived { from, topic, payload } => {
                self.pack(Kind::Mail, |w| w.message(&from, &topic, &payload))
            }
            Event::BroadcastsLagged { dropped, .. } => self.messages_lost(dropped),
            Event::MailEnded { number, delivered } => self.pack(Kind::MailEnded, |w| {
                w.number(f64::from(number));
                w.flag(delivered);
            }),
            Event::QueryReceived { query, from, topic, payload } => self.pack(Kind::Query, |w| {
                w.number(query as f64);
                w.message(&from, &topic, &payload);
            }),
            Event::AnswerReceived { query, from, status, payload } => {
                self.answer(query, &from, status as u8, &payload)
            }
            Event::QueryEnded { query, silent } => self.pack(Kind::QueryEnded, |w| {
                w.number(f64::from(query));
                w.names(&silent);
            }),
            Event::Confirmed { waiter, count, of } => self.pack(Kind::Confirmed, |w| {
                w.number(waiter as f64);
                w.number(count as f64);
                w.number(of as f64);
            }),
        }
    }

    /// Queues the end of a start.
    pub fn started(&self, result: Result<(), &Error>) -> Wake {
        match result {
            Ok(()) => self.pack(Kind::Started, |_| ()),
            Err(error) => self.pack(Kind::StartFailed, |w| {
                w.text(error.code());
                w.text(&error.to_string());
            }),
        }
    }

    /// Queues a failure of the state machine.
    pub fn failed(&self, reason: &str) -> Wake {
        self.pack(Kind::Failed, |w| w.text(reason))
    }

    /// Queues that the store on disk fails, or works again.
    pub fn storage(&self, failure: Option<&str>) -> Wake {
        self.pack(Kind::Storage, |w| w.text(failure.unwrap_or_default()))
    }

    /// Queues the end of a flush: what it became, or that its time is over.
    pub fn flushed(&self, number: f64, result: &Result<bool, Error>) -> Wake {
        self.pack(Kind::Flushed, |w| {
            w.number(number);
            let (code, message) = match result {
                Ok(true) => ("", String::new()),
                Ok(false) => ("ERR_HEARSAY_TIMEOUT", "not everything is on disk in time".to_owned()),
                Err(error) => (error.code(), error.to_string()),
            };
            w.text(code);
            w.text(&message);
        })
    }

    /// Queues the end.
    pub fn stopped(&self) -> Wake {
        self.pack(Kind::Stopped, |_| ())
    }

    fn messages_lost(&self, count: u64) -> Wake {
        let mut inner = self.lock();
        if inner.closed {
            return Wake::No;
        }
        inner.messages += count;
        inner.wake()
    }

    /// An answer is never dropped without a word: its reader counts on it.
    fn answer(&self, query: u32, from: &str, status: u8, payload: &[u8]) -> Wake {
        let mut inner = self.lock();
        if inner.closed {
            return Wake::No;
        }
        let full = inner.is_full();
        inner.lost_total += u64::from(full);
        inner.write(Kind::Answer, |w| {
            w.number(f64::from(query));
            w.text(from);
            w.byte(if full { ANSWER_LOST } else { status });
            w.bytes(if full { &[] } else { payload });
        });
        inner.wake()
    }

    fn change(&self, change: Change) -> Wake {
        let mut inner = self.lock();
        if inner.closed || !inner.watched || change.entry.is_reserved() {
            return Wake::No;
        }
        if !inner.newest.is_empty() || inner.is_full() {
            let key = Key::clone(&change.entry.key);
            if inner.newest.insert(key, change).is_some() {
                inner.merged += 1;
                inner.lost_total += 1;
            }
        } else {
            inner.write(Kind::Changed, |w| w.change(&change));
        }
        inner.wake()
    }

    fn pack(&self, kind: Kind, body: impl FnOnce(&mut Writer<'_>)) -> Wake {
        let mut inner = self.lock();
        if inner.closed {
            return Wake::No;
        }
        if inner.is_full() && !kind.is_control() {
            *if kind.is_message() { &mut inner.messages } else { &mut inner.dropped } += 1;
            inner.lost_total += 1;
        } else {
            inner.write(kind, body);
        }
        inner.wake()
    }

    /// Copies whole events to `out`, oldest first. After [`Drained::Bytes`]`(0)` the next push wakes again; before that it does
    /// not, so drain until then.
    pub fn drain(&self, out: &mut [u8]) -> Drained {
        let mut inner = self.lock();
        inner.refill();
        let (mut end, mut events) = (0, 0);
        while let Some(length) = inner.record_at(inner.at + end).filter(|length| end + length <= out.len()) {
            end += length;
            events += 1;
        }
        let at = inner.at;
        match (inner.packed.get(at..at + end), out.get_mut(..end)) {
            (Some(from), Some(to)) if end > 0 => {
                to.copy_from_slice(from);
                inner.at += end;
                inner.waiting = inner.waiting.saturating_sub(events);
                Drained::Bytes(end)
            }
            _ => match inner.record_at(at) {
                Some(length) => Drained::Needs(length),
                None => {
                    inner.woken = false;
                    Drained::Bytes(0)
                }
            },
        }
    }
}

impl Inner {
    fn is_full(&self) -> bool {
        self.waiting >= EVENTS_MAX || self.packed.len() - self.at >= BYTES_MAX
    }

    fn wake(&mut self) -> Wake {
        if std::mem::replace(&mut self.woken, true) { Wake::No } else { Wake::Now }
    }

    fn write(&mut self, kind: Kind, body: impl FnOnce(&mut Writer<'_>)) {
        Writer::new(&mut self.packed).record(kind as u8, body);
        self.waiting += 1;
    }

    /// Length of the record at this place, its own length included.
    fn record_at(&self, at: usize) -> Option<usize> {
        let head: [u8; 4] = self.packed.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(head) as usize + 4)
    }

    /// Makes room, and packs what waits beside the ring once the ring is empty.
    fn refill(&mut self) {
        if self.at < self.packed.len() {
            return;
        }
        self.at = 0;
        self.packed.clear();
        self.packed.shrink_to(1 << 20);
        self.waiting = 0;
        while self.packed.len() < CHUNK_BYTES {
            let Some((_, change)) = self.newest.pop_first() else { break };
            self.write(Kind::Changed, |w| w.change(&change));
        }
        if self.dropped > 0 || self.merged > 0 || self.messages > 0 {
            let lost = [self.dropped, self.merged, self.messages];
            (self.dropped, self.merged, self.messages) = (0, 0, 0);
            self.write(Kind::Lagged, |w| lost.iter().for_each(|&count| w.number(count as f64)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use hearsay_proto::entry::{Entry, Version};
    use hearsay_proto::output::ChangeKind;

    use super::*;

    fn change(key: &str, value: &[u8]) -> Event {
        Event::StateChanged(Change {
            kind: ChangeKind::Set,
            entry: Arc::new(Entry {
                key: Arc::from(key.as_bytes()),
                value: Arc::from(value),
                version: Version::default(),
                tombstone: false,
                ttl_ms: None,
            }),
            origin: None,
        })
    }

    fn kinds(bytes: &[u8]) -> Vec<u8> {
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            kinds.push(bytes[at + 4]);
            at += 4 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
        kinds
    }

    fn drain_all(ring: &Ring) -> Vec<u8> {
        let (mut out, mut all) = (vec![0; 64 << 10], Vec::new());
        loop {
            match ring.drain(&mut out) {
                Drained::Bytes(0) => return all,
                Drained::Bytes(n) => all.extend_from_slice(&out[..n]),
                Drained::Needs(n) => out = vec![0; n],
            }
        }
    }

    #[test]
    fn one_wake_until_all_is_drained() {
        let ring = Ring::default();
        assert_eq!(ring.event(Event::LeaveEnded), Wake::Now);
        assert_eq!(ring.event(Event::Rejoined { dropped: 3 }), Wake::No);
        let mut out = [0; 9];
        assert_eq!(ring.drain(&mut out), Drained::Bytes(5));
        assert_eq!(ring.event(Event::LeaveEnded), Wake::No, "not drained to the end yet");
        assert_eq!(ring.drain(&mut out), Drained::Needs(13), "13 bytes do not fit into 9");
        assert_eq!(kinds(&drain_all(&ring)), [Kind::Rejoined as u8, Kind::LeaveEnded as u8]);
        assert_eq!(ring.event(Event::LeaveEnded), Wake::Now);
    }

    #[test]
    fn a_full_ring_counts_what_it_drops_but_never_control_events() {
        let ring = Ring::default();
        for _ in 0..EVENTS_MAX + 10 {
            let _ = ring.event(Event::Rejoined { dropped: 1 });
        }
        let _ = ring.event(Event::JoinEnded { joined: true });
        assert_eq!(ring.counts(), (EVENTS_MAX + 1, 10));
        let all = kinds(&drain_all(&ring));
        assert_eq!(all.len(), EVENTS_MAX + 2);
        assert_eq!(all[EVENTS_MAX], Kind::JoinEnded as u8);
        assert_eq!(all[EVENTS_MAX + 1], Kind::Lagged as u8);
    }

    #[test]
    fn a_slow_reader_gets_the_newest_value_of_every_key() {
        let ring = Ring::default();
        assert_eq!(ring.event(change("k", b"nobody watches")), Wake::No);
        ring.watch(true);
        for i in 0..EVENTS_MAX as u32 {
            let _ = ring.event(change("busy", &i.to_le_bytes()));
        }
        for i in 0..100u32 {
            let _ = ring.event(change("a", &i.to_le_bytes()));
            let _ = ring.event(change("b", &i.to_le_bytes()));
        }
        assert_eq!(ring.counts().1, 198);
        let all = drain_all(&ring);
        let kinds = kinds(&all);
        assert_eq!(kinds.len(), EVENTS_MAX + 3, "two keys and the lag behind the ring");
        assert_eq!(kinds.last(), Some(&(Kind::Lagged as u8)));
        let newest = [&[4, 0, 0, 0][..], &99u32.to_le_bytes()].concat();
        assert_eq!(all.windows(8).filter(|w| *w == newest).count(), 3, "busy passed 99, a and b end there");
    }

    #[test]
    fn messages_that_find_no_room_are_counted_and_answers_say_so() {
        let ring = Ring::default();
        let payload = || hearsay_proto::output::Payload::new(Arc::from(&b"payload"[..]), 3);
        for _ in 0..EVENTS_MAX + 5 {
            let (from, topic) = (Arc::from("m1"), Arc::from("t"));
            let _ = ring.event(Event::BroadcastReceived { from, topic, payload: payload() });
        }
        let _ = ring.event(Event::BroadcastsLagged { from: None, dropped: 7 });
        let status = hearsay_proto::wire::AnswerStatus::Ok;
        let answer =
            Event::AnswerReceived { query: 1, from: Arc::from("m1"), status, payload: Arc::from(&b"x"[..]) };
        let _ = ring.event(answer);
        let _ = ring.event(Event::QueryEnded { query: 1, silent: Vec::new() });
        let all = drain_all(&ring);
        let kinds = kinds(&all);
        assert_eq!(kinds.len(), EVENTS_MAX + 3);
        assert_eq!(kinds[EVENTS_MAX..], [Kind::Answer as u8, Kind::QueryEnded as u8, Kind::Lagged as u8]);
        let lost = &all[all.len() - 24..];
        assert_eq!(lost, [0f64, 0.0, 12.0].map(f64::to_le_bytes).concat());
        assert!(all.windows(8).any(|w| w == [b'1', ANSWER_LOST, 0, 0, 0, 0, 13, 0]), "without its payload");
    }

    #[test]
    fn an_event_longer_than_the_buffer_says_what_it_needs() {
        let ring = Ring::default();
        ring.watch(true);
        let _ = ring.event(change("k", &vec![7; 1 << 20]));
        let mut out = vec![0; 1024];
        let Drained::Needs(length) = ring.drain(&mut out) else { panic!("must not fit") };
        assert!(length > 1 << 20);
        assert_eq!(ring.drain(&mut vec![0; length]), Drained::Bytes(length));
    }

    #[test]
    fn a_closed_ring_takes_nothing() {
        let ring = Ring::default();
        let _ = ring.event(Event::LeaveEnded);
        ring.close();
        assert_eq!(ring.event(Event::LeaveEnded), Wake::No);
        assert_eq!(ring.drain(&mut [0; 64]), Drained::Bytes(0));
    }
}
