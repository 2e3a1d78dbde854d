//! Queries (section 2.3): what I asked and who has not answered, what I was asked, and answers under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::retry::{Pace, Retries};
use super::topics::Topics;
use crate::member::MemberId;
use crate::metrics::TalkMetrics;
use crate::output::{Event, Payload};
use crate::rng::Rng;
use crate::table::{Set, Table};
use crate::time::{Mono, Now};
use crate::wire::{AnswerStatus, Message};

/// Own queries under way at most; more are refused at the call.
pub const ASKED_MAX: usize = 1_024;
/// Queries that wait for a responder of this process at most; more are answered with an error.
const OPEN_MAX: usize = 4_096;
/// Numbers of queries have 31 bits: the highest belongs to MAIL.
const NUMBERS: u32 = super::mail::MAIL_BIT - 1;
/// 'None' is answered after U(0, min(this x N, a quarter of the timeout)).
const NONE_DELAY: Duration = Duration::from_millis(1);

struct Asked {
    waiting: Table<MemberId, Arc<str>>,
    answered: Set<MemberId>,
    until: Mono,
}

struct Open {
    from: MemberId,
    number: u32,
    until: Mono,
}

/// Another member's query, or my own to myself.
pub struct Received<'a> {
    pub from: MemberId,
    pub name: &'a str,
    pub number: u32,
    pub topic: &'a str,
    pub payload: Payload,
    pub timeout: Duration,
    /// What is left of it.
    pub left: Duration,
}

/// What a responder said.
pub struct Said {
    pub status: AnswerStatus,
    pub payload: Arc<[u8]>,
}

/// Queries and answers.
pub struct Queries {
    pub topics: Topics,
    next: u32,
    asked: Table<u32, Asked>,
    asked_due: Set<(Mono, u32)>,
    next_open: u64,
    open: Table<u64, Open>,
    open_due: Set<(Mono, u64)>,
    answers: Retries<(MemberId, u32)>,
}

/// Where the outcome goes.
pub struct Out<'a> {
    pub me: MemberId,
    pub my_name: &'a Arc<str>,
    pub events: &'a mut VecDeque<Event>,
    pub metrics: &'a mut TalkMetrics,
}

impl Queries {
    pub fn new() -> Queries {
        Queries {
            topics: Topics::default(),
            next: 0,
            asked: Table::new(),
            asked_due: Set::new(),
            next_open: 0,
            open: Table::new(),
            open_due: Set::new(),
            answers: Retries::new(),
        }
    }

    /// Is there room for one more query of my own?
    pub fn has_room(&self) -> bool {
        self.asked.len() < ASKED_MAX
    }

    /// The next number.
    pub fn number(&self) -> u32 {
        self.next & NUMBERS
    }

    /// My query is on its way to these.
    pub fn ask(
        &mut self,
        now: Now,
        waiting: Table<MemberId, Arc<str>>,
        timeout: Duration,
        out: &mut Out<'_>,
    ) {
        let number = self.number();
        self.next = self.next.wrapping_add(1);
        let until = now.mono + timeout;
        self.asked_due.insert((until, number));
        self.asked.insert(number, Asked { waiting, answered: Set::new(), until });
        out.metrics.queries_sent += 1;
        self.end_if_complete(number, out);
    }

    fn end_if_complete(&mut self, number: u32, out: &mut Out<'_>) {
        if self.asked.get(&number).is_some_and(|asked| asked.waiting.is_empty()) {
            self.end(number, out);
        }
    }

    fn end(&mut self, number: u32, out: &mut Out<'_>) {
        if let Some(asked) = self.cancel(number) {
            let silent = asked.waiting.values().cloned().collect();
            out.events.push_back(Event::QueryEnded { query: number, silent });
        }
    }

    fn cancel(&mut self, number: u32) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.asked_due.remove(&(asked.until, number));
        Some(asked)
    }

    /// Nobody reads the answers any more.
    pub fn forget(&mut self, number: u32) {
        self.cancel(number);
    }

    /// An answer to a query of mine; `name` is its sender's, if known.
    pub fn handle_answer(
        &mut self,
        from: MemberId,
        name: Option<Arc<str>>,
        number: u32,
        said: Said,
        out: &mut Out<'_>,
    ) {
        let Some(asked) = self.asked.get_mut(&number) else { return };
        let expected = asked.waiting.remove(&from);
        let Some(name) = expected.or(name) else { return };
        if !asked.answered.insert(from) {
            return;
        }
        if said.status != AnswerStatus::None {
            out.metrics.answers_received += 1;
            out.events.push_back(Event::AnswerReceived {
                query: number,
                from: name,
                status: said.status,
                payload: said.payload,
            });
        }
        self.end_if_complete(number, out);
    }

    /// A query whose filter matches me.
    pub fn handle_query(
        &mut self,
        now: Now,
        received: Received<'_>,
        living: usize,
        rng: &mut Rng,
        out: &mut Out<'_>,
    ) {
        out.metrics.queries_received += 1;
        let key = (received.from, received.number);
        let until = now.mono + received.left;
        let Some(topic) = self.topics.find(received.topic) else {
            let most = (NONE_DELAY * u32::try_from(living).unwrap_or(u32::MAX)).min(received.timeout / 4);
            let said = Said { status: AnswerStatus::None, payload: Arc::default() };
            let at = if received.from == out.me { now.mono } else { now.mono + rng.up_to(most) };
            self.say(at, key, said, until, out);
            return;
        };
        if self.open.len() >= OPEN_MAX {
            out.metrics.queries_refused += 1;
            let text: &[u8] = b"too many queries at once";
            let said = Said { status: AnswerStatus::Error, payload: Arc::from(text) };
            self.say(now.mono, key, said, until, out);
            return;
        }
        let query = self.next_open;
        self.next_open += 1;
        self.open.insert(query, Open { from: key.0, number: key.1, until });
        self.open_due.insert((until, query));
        out.events.push_back(Event::QueryReceived {
            query,
            from: Arc::from(received.name),
            topic,
            payload: received.payload,
        });
    }

    /// The responder has answered; false if the asker waits no longer.
    pub fn answer(&mut self, now: Now, query: u64, said: Said, out: &mut Out<'_>) -> bool {
        let Some(open) = self.open.remove(&query) else { return false };
        self.open_due.remove(&(open.until, query));
        self.say(now.mono, (open.from, open.number), said, open.until, out);
        true
    }

    fn say(&mut self, at: Mono, key: (MemberId, u32), said: Said, until: Mono, out: &mut Out<'_>) {
        if key.0 == out.me {
            let name = out.my_name.clone();
            self.handle_answer(key.0, Some(name), key.1, said, out);
            return;
        }
        let message = Message::Answer { query: key.1, status: said.status, payload: said.payload };
        if self.answers.insert(key, key.0, message, at, until).is_err() {
            out.metrics.queries_refused += 1;
        }
    }

    pub fn handle_done(&mut self, from: MemberId, number: u32) {
        self.answers.remove((from, number));
    }

    pub fn handle_failed(&mut self, now: Now, to: MemberId, number: u32) {
        self.answers.failed(now.mono, (to, number));
    }

    pub fn deadline(&self) -> Mono {
        let asked = self.asked_due.first().map_or(Mono::FAR, |(at, _)| *at);
        let open = self.open_due.first().map_or(Mono::FAR, |(at, _)| *at);
        asked.min(open).min(self.answers.deadline())
    }

    pub fn handle_timeout(
        &mut self,
        now: Now,
        pace: Pace,
        sends: &mut VecDeque<(MemberId, Message)>,
        out: &mut Out<'_>,
    ) {
        while let Some(&(_, number)) = self.asked_due.first().filter(|(at, _)| *at <= now.mono) {
            self.end(number, out);
        }
        while let Some(&(at, query)) = self.open_due.first().filter(|(at, _)| *at <= now.mono) {
            self.open_due.remove(&(at, query));
            self.open.remove(&query);
        }
        let (due, _) = self.answers.handle_timeout(now.mono, pace);
        out.metrics.answers_sent += due.len() as u64;
        sends.extend(due);
    }

    /// Own queries, queries open here, answers under way.
    pub fn counts(&self) -> [usize; 3] {
        [self.asked.len(), self.open.len(), self.answers.len()]
    }
}
