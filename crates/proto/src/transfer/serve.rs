//! What leaves on streams, one frame at a time: records and pushed messages in pieces as the budget allows, shortest
//! first; pages at their own rate.

use std::time::Duration;

use super::stream::{Out, Relay, Sending, Stream};
use super::{Action, RETRY, RETRY_BUSY, Source, Transfer};
use crate::budget::{Budget, Class};
use crate::output::StreamId;
use crate::record::{Record, RumorId, Tree};
use crate::time::{Mono, Now};
use crate::wire::{self, Framing, Message, Page, message_bytes};

/// Longest PAGE frame, unless one entry is longer.
pub(super) const PAGE_BYTES: usize = 64 * 1024;
/// PULLs over streams: bytes per second of all together, and how much may leave at once.
const PULL_BYTES_PER_SECOND: f64 = 10_000_000.0;
const PULL_DEPTH: f64 = 500_000.0;
/// Pieces of what is large: bytes of one.
const PART_BYTES_MIN: usize = 1_024;
const PART_BYTES_MAX: usize = 16 * 1024;
/// Share of the budget that large records and messages have for themselves, and share that they leave to others.
const LARGE_SHARE: f64 = 1.0 / 8.0;
const KEPT_SHARE: f64 = 1.0 / 16.0;
/// Header, seal, length and one segment's headers of a frame; headers of each further segment.
const FRAME_OVERHEAD: usize = 96;
const SEGMENT_BYTES: usize = 1_400;
const SEGMENT_OVERHEAD: usize = 52;
/// One of so many pieces goes to the stream that has waited longest, whatever it has left.
const BY_TURN_EACH: u64 = 16;
/// Longest sleep of a stream that waits for the budget, which others may leave to it sooner.
const TOKEN_WAIT_MAX: Duration = Duration::from_millis(50);
const TOKEN_WAIT_MIN: Duration = Duration::from_millis(1);

/// Tokens of all PULLs served over streams.
pub(super) struct PullRate {
    tokens: f64,
    filled: Mono,
}

impl PullRate {
    pub(super) fn new(now: Mono) -> PullRate {
        PullRate { tokens: PULL_DEPTH, filled: now }
    }

    /// Zero if a page may leave now, else when to ask again.
    fn wait(&mut self, now: Mono) -> Duration {
        let elapsed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + elapsed * PULL_BYTES_PER_SECOND).min(PULL_DEPTH);
        if self.tokens > 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / PULL_BYTES_PER_SECOND) + TOKEN_WAIT_MIN
        }
    }
}

/// How fast large records and messages leave beside everything else.
pub(super) struct LargeRate {
    bytes_per_second: f64,
    /// Tokens of the share that is theirs whatever else there is to send.
    tokens: f64,
    filled: Mono,
}

impl LargeRate {
    pub(super) fn new(bytes_per_second_max: u64, now: Mono) -> LargeRate {
        LargeRate { bytes_per_second: bytes_per_second_max as f64, tokens: 0.0, filled: now }
    }

    /// What leaves within the time after which another announcer is asked.
    fn short_bytes(&self) -> usize {
        (self.bytes_per_second * RETRY.as_secs_f64()) as usize
    }

    /// Longest piece: 1/32 of the budget's second, so that it adds little to what one second may hold.
    fn part_bytes(&self) -> usize {
        ((self.bytes_per_second / 32.0) as usize).clamp(PART_BYTES_MIN, PART_BYTES_MAX)
    }

    /// Pays for a piece: from the share of 1/8 that nothing else takes away, or with what small rumors leave, of which 1/16
    /// of a second stays for them. Else how long to wait.
    fn pay(&mut self, now: Mono, budget: &mut Budget, class: Class, bytes: usize) -> Result<(), Duration> {
        let share = self.bytes_per_second * LARGE_SHARE;
        let elapsed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + elapsed * share).min(self.part_bytes() as f64);
        let kept = (self.bytes_per_second * KEPT_SHARE) as usize;
        let cost = on_the_wire(bytes);
        if budget.available(now, class) >= cost + kept {
            budget.spend(now, class, cost);
            // Who gets more than the share has no claim to it.
            self.tokens = (self.tokens - bytes as f64).max(0.0);
            return Ok(());
        }
        if self.tokens >= bytes as f64 {
            self.tokens -= bytes as f64;
            budget.spend(now, class, cost);
            return Ok(());
        }
        let own = Duration::from_secs_f64((bytes as f64 - self.tokens).max(0.0) / share);
        let free = budget.when(now, class, cost + kept).since(now);
        Err(own.min(free).clamp(TOKEN_WAIT_MIN, TOKEN_WAIT_MAX))
    }
}

/// Bytes of a frame with its seal and with the headers of TCP and IP.
fn on_the_wire(bytes: usize) -> usize {
    bytes + FRAME_OVERHEAD + bytes / SEGMENT_BYTES * SEGMENT_OVERHEAD
}

enum Next {
    Frame(Message),
    Wait(Duration),
    Nothing,
}

impl Transfer {
    /// Next action. Records served are charged to `Class::Entries` or `Members`, piece by piece, pages to the part's own
    /// 10 MB/s.
    pub fn poll_action(&mut self, now: Now, budget: &mut Budget, source: &mut dyn Source) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        while let Some(stream) = self.next_ready() {
            let Some(mut s) = self.streams.remove(&stream) else { continue };
            let next =
                if s.open && !s.in_flight { self.next(now, &mut s, budget, source) } else { Next::Nothing };
            let action = self.settle(now, stream, &mut s, next);
            self.streams.insert(stream, s);
            if action.is_some() {
                return action;
            }
        }
        None
    }

    fn settle(&mut self, now: Now, stream: StreamId, s: &mut Stream, next: Next) -> Option<Action> {
        match next {
            Next::Frame(message) => {
                s.in_flight = true;
                s.active_at = now.mono;
                Some(Action::SendFrame { stream, message })
            }
            Next::Wait(wait) => {
                let at = now.mono + wait;
                self.wake_at = if self.blocked.is_empty() { at } else { self.wake_at.min(at) };
                self.blocked.insert(stream);
                None
            }
            Next::Nothing => None,
        }
    }

    fn next(&mut self, now: Now, s: &mut Stream, budget: &mut Budget, source: &mut dyn Source) -> Next {
        if let Some(at) = s.out.iter().position(|o| matches!(o, Out::Control(_)))
            && let Some(Out::Control(message)) = s.out.remove(at)
        {
            return Next::Frame(message);
        }
        let mut wait = None;
        if s.sending.is_none()
            && let Some(refused) = self.begin(now, s, source)
        {
            return Next::Frame(refused);
        }
        if s.sending.is_some() {
            match self.send_on(now, s, budget) {
                Next::Frame(message) => return Next::Frame(message),
                Next::Wait(tokens) => wait = Some(tokens),
                Next::Nothing => {}
            }
        }
        let Some((tree, from)) = s.pull_out else { return wait.map_or(Next::Nothing, Next::Wait) };
        let pull_wait = self.pull_rate.wait(now.mono);
        if !pull_wait.is_zero() {
            return Next::Wait(wait.map_or(pull_wait, |w| w.min(pull_wait)));
        }
        Next::Frame(self.page(s, tree, from, source))
    }

    /// Takes the next record or message of this stream up. BUSY if the record is not held, or if somebody else is still to get
    /// more of it than leaves until another announcer is asked: that one serves what it has of it.
    fn begin(&mut self, now: Now, s: &mut Stream, source: &mut dyn Source) -> Option<Message> {
        let (message, record, to, class) = match s.out.pop_front()? {
            Out::Control(message) => return Some(message),
            Out::Push { to, message } => (message, None, Some(to), Class::Entries),
            Out::Record { id, repair } => {
                let busy = Message::Busy { tree: None, id: Some(id) };
                if self.is_long_under_way(now.mono, id) {
                    self.metrics.busy_sent += 1;
                    return Some(busy);
                }
                let Some((hop, record)) = source.record(id) else {
                    s.sending = self.relay_of(id, &busy);
                    self.metrics.busy_sent += u64::from(s.sending.is_none());
                    return s.sending.is_none().then_some(busy);
                };
                let of_member = matches!(record, Record::Member(_));
                let class = if of_member { Class::Members } else { Class::Entries };
                let message = Message::Record { hop, record };
                if repair {
                    self.metrics.repair_records_sent += 1;
                    self.metrics.repair_bytes_sent += message_bytes(&message) as u64;
                }
                (message, Some(id), None, class)
            }
        };
        let mut bytes = Vec::new();
        if message_bytes(&message) > self.large_rate.part_bytes()
            && !wire::encode_message(&message, &mut bytes, Framing::Frame)
        {
            self.metrics.dropped += 1;
            return None;
        }
        s.sending = Some(Sending { message, record, relay: None, to, class, bytes, at: 0 });
        None
    }

    /// Does somebody who takes it still get much of this record?
    fn is_long_under_way(&self, now: Mono, id: RumorId) -> bool {
        let short = self.large_rate.short_bytes();
        let taking = self.streams.values().filter(|s| now < s.active_at + RETRY_BUSY);
        let mut sent = taking.filter_map(|s| s.sending.as_ref());
        sent.any(|s| s.record == Some(id) && (s.relay.is_some() || s.left() > short))
    }

    /// A record of which so far a part came: that, and the rest as it comes; `busy` is what follows if it does not.
    fn relay_of(&self, id: RumorId, busy: &Message) -> Option<Sending> {
        let (&stream, from) = self.streams.iter().find(|(_, s)| s.coming == Some(id))?;
        Some(Sending {
            message: busy.clone(),
            record: Some(id),
            relay: Some(Relay::From(stream)),
            to: None,
            class: Class::Entries,
            bytes: from.parts.clone(),
            at: 0,
        })
    }

    /// What came on a stream goes to those who get it from here; with `relay` it is the last of it.
    pub(super) fn pass_on(&mut self, from: StreamId, bytes: &[u8], relay: Option<Relay>) {
        let ready = &mut self.ready;
        self.streams.for_each_mut(|&stream, s| {
            if let Some(sending) = s.sending.as_mut().filter(|s| s.relay == Some(Relay::From(from))) {
                sending.bytes.extend_from_slice(bytes);
                sending.relay.clone_from(&relay);
                ready.insert(stream);
            }
        });
    }

    /// The next piece of what is leaving, or all of it, if it can be paid for; else how long to wait.
    fn send_on(&mut self, now: Now, s: &mut Stream, budget: &mut Budget) -> Next {
        let Some(mut sending) = s.sending.take() else { return Next::Nothing };
        if sending.relay == Some(Relay::Broken) {
            s.out.push_front(Out::Control(sending.message));
            return Next::Frame(Message::Part { last: true, bytes: Vec::new().into() });
        }
        let left = sending.left();
        let whole = sending.bytes.is_empty();
        if left == 0 && sending.relay.is_some() {
            s.sending = Some(sending);
            return Next::Nothing;
        }
        let bytes =
            if whole { message_bytes(&sending.message) } else { left.min(self.large_rate.part_bytes()) };
        if let Err(wait) = self.large_rate.pay(now.mono, budget, sending.class, bytes) {
            s.sending = Some(sending);
            return Next::Wait(wait);
        }
        self.turns += 1;
        s.turn = self.turns;
        let last = whole || (bytes == left && sending.relay.is_none());
        if last && sending.record.is_some() {
            self.metrics.records_sent += 1;
            s.sending_record = true;
        }
        if whole {
            return Next::Frame(sending.message);
        }
        let end = sending.at + bytes;
        let piece = sending.bytes.get(sending.at..end).unwrap_or_default().into();
        sending.at = end;
        s.sending = (!last).then_some(sending);
        Next::Frame(Message::Part { last, bytes: piece })
    }

    /// Of the streams that may have something to send the one with the least left of it: who has a record whole can serve it,
    /// so that one transfer after the other spreads it sooner than all of them together. At times the one that has waited
    /// longest, or small ones could hold a large one back for ever.
    fn next_ready(&mut self) -> Option<StreamId> {
        let by_turn = self.turns.is_multiple_of(BY_TURN_EACH);
        let key = |id: &StreamId| {
            self.streams.get(id).map_or((0, 0), |s| (if by_turn { 0 } else { s.left() }, s.turn))
        };
        let next = self.ready.iter().copied().min_by_key(|id| (key(id), *id))?;
        self.ready.remove(&next);
        Some(next)
    }

    fn page(&mut self, s: &mut Stream, tree: Tree, from: u64, source: &mut dyn Source) -> Message {
        let page: Page = source.page(tree, from, self.page_bytes_max);
        s.pull_out = (!page.last && page.next > from).then_some((tree, page.next));
        let message = Message::Page(page);
        self.pull_rate.tokens -= message_bytes(&message) as f64;
        self.metrics.pages_sent += 1;
        message
    }
}
