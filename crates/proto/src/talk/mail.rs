//! MAIL to one member (section 3): sent until DONE, taken at most once.

use std::collections::VecDeque;
use std::time::Duration;

use super::retry::{Full, Pace, Retries};
use crate::member::MemberId;
use crate::metrics::TalkMetrics;
use crate::output::Event;
use crate::table::Set;
use crate::time::{Mono, Now};
use crate::wire::Message;

/// Set in the numbers of MAILs, clear in those of queries: DONE acknowledges either.
pub const MAIL_BIT: u32 = 1 << 31;
/// How long the number of a received MAIL is remembered, and at least if the table is full.
const REMEMBERED: Duration = Duration::from_secs(30);
const REMEMBERED_LEAST: Duration = Duration::from_secs(5);
/// Numbers remembered at most; when all are young a new MAIL is not taken, and not acknowledged.
const SEEN_MAX: usize = 65_536;

/// What to do with a received MAIL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Deliver it and say DONE.
    New,
    /// Say DONE again.
    Known,
    /// No room: say nothing, its sender tries again.
    Refused,
}

/// Mail under way and mail received.
pub struct Mail {
    next: u32,
    out: Retries<u32>,
    seen: Set<(MemberId, u32)>,
    order: VecDeque<(Mono, MemberId, u32)>,
}

impl Mail {
    pub fn new() -> Mail {
        Mail { next: 0, out: Retries::new(), seen: Set::new(), order: VecDeque::new() }
    }

    /// The number of the next MAIL.
    pub fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        MAIL_BIT | self.next
    }

    pub fn send(&mut self, now: Now, to: MemberId, message: Message, timeout: Duration) -> Result<(), Full> {
        let Message::Mail { seq, .. } = message else { return Ok(()) };
        self.out.insert(seq, to, message, now.mono, now.mono + timeout)
    }

    /// Nobody waits for it any more.
    pub fn cancel(&mut self, seq: u32) {
        self.out.remove(seq);
    }

    pub fn handle_done(&mut self, from: MemberId, seq: u32, events: &mut VecDeque<Event>) {
        if self.out.to(seq) == Some(from) && self.out.remove(seq) {
            events.push_back(Event::MailEnded { number: seq, delivered: true });
        }
    }

    pub fn handle_failed(&mut self, now: Now, seq: u32) {
        self.out.failed(now.mono, seq);
    }

    /// A MAIL arrived.
    pub fn take(&mut self, now: Now, from: MemberId, seq: u32, metrics: &mut TalkMetrics) -> Taken {
        if self.seen.contains(&(from, seq)) {
            metrics.mail_known += 1;
            return Taken::Known;
        }
        while let Some(&(at, from, seq)) = self.order.front() {
            let age = now.mono.since(at);
            if age < REMEMBERED && (self.seen.len() < SEEN_MAX || age < REMEMBERED_LEAST) {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&(from, seq));
        }
        if self.seen.len() >= SEEN_MAX {
            metrics.mail_refused += 1;
            return Taken::Refused;
        }
        self.seen.insert((from, seq));
        self.order.push_back((now.mono, from, seq));
        metrics.mail_received += 1;
        Taken::New
    }

    pub fn deadline(&self) -> Mono {
        self.out.deadline()
    }

    pub fn handle_timeout(
        &mut self,
        now: Now,
        pace: Pace,
        sends: &mut VecDeque<(MemberId, Message)>,
        events: &mut VecDeque<Event>,
        metrics: &mut TalkMetrics,
    ) {
        let (due, over) = self.out.handle_timeout(now.mono, pace);
        metrics.mail_sent += due.len() as u64;
        sends.extend(due);
        for number in over {
            metrics.mail_failed += 1;
            events.push_back(Event::MailEnded { number, delivered: false });
        }
    }

    pub fn under_way(&self) -> usize {
        self.out.len()
    }
}
