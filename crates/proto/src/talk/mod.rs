//! What members say to each other beside the state: broadcasts, queries and their answers, mail (sections 2.3, 3).
//!
//! How the hall drives it. After each call drain [`Talk::poll_action`].
//! - A reserved entry that is news: [`Talk::handle_reserved`]. ANSWER, MAIL: DONE to the sender where the methods say so.
//! - [`Action::Send`]: by datagram, or over a stream if it does not fit; a stream that fails: [`Talk::handle_send_failed`].

mod broadcasts;
mod format;
mod mail;
mod queries;
mod retry;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use retry::Pace;

use broadcasts::Broadcasts;
use format::Kind;
use mail::{MAIL_BIT, Mail, Taken};
use queries::{Queries, Received, Said};
use topics::{TOPICS_MAX, Topics};

use crate::config::Config;
use crate::entry::{Entry, Version};
use crate::member::{MemberId, Tags};
use crate::metrics::TalkMetrics;
use crate::output::{CallError, Event, Payload};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::Table;
use crate::time::{Mono, Now};
use crate::wire::{AnswerStatus, Message};

/// How long after its end a query is still put to a responder: clocks of members may differ by so much.
const QUERY_SLACK_MS: u64 = 5_000;

/// What the hall must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send it, by datagram or over a stream.
    Send {
        /// To whom.
        to: MemberId,
        /// MAIL or ANSWER.
        message: Message,
    },
    /// Ask a living member for these keys of a sender, which are missing here: by a LIST of their buckets.
    Ask {
        /// Whose they are.
        writer: MemberId,
        /// Reserved keys.
        keys: Vec<Vec<u8>>,
    },
    /// Tell the user.
    Tell(Event),
}

/// The part.
pub struct Talk {
    sends: VecDeque<(MemberId, Message)>,
    events: VecDeque<Event>,
    asks: VecDeque<(MemberId, Vec<Vec<u8>>)>,
    metrics: TalkMetrics,
    subscribed: Topics,
    broadcasts: Broadcasts,
    queries: Queries,
    mail: Mail,
    room: usize,
    bytes_per_second: u64,
    wait: Duration,
    /// Wall ms at which I began.
    born_ms: u64,
}

fn too_many(what: &'static str, max: usize) -> CallError {
    CallError::TooMany { what, max }
}

impl Talk {
    /// Nothing said yet.
    pub fn new(config: &Config, now: Now) -> Talk {
        Talk {
            sends: VecDeque::new(),
            events: VecDeque::new(),
            asks: VecDeque::new(),
            metrics: TalkMetrics::default(),
            subscribed: Topics::default(),
            broadcasts: Broadcasts::new(config.broadcast_retention),
            queries: Queries::new(),
            mail: Mail::new(),
            room: config.room(),
            bytes_per_second: config.bytes_per_second_max,
            wait: config.rtt_initial.mul_f64(1.1) + Duration::from_millis(20),
            born_ms: now.wall.0,
        }
    }

    /// The largest recent round-trip time: W = 1.1 x this + 20 ms.
    pub fn set_rtt(&mut self, rtt_max: Duration) {
        self.wait = rtt_max.mul_f64(1.1) + Duration::from_millis(20);
    }

    /// A new run under a new id: own broadcasts are numbered anew.
    pub fn renew(&mut self) {
        self.broadcasts.renew();
    }

    /// Broadcasts and mail of this topic are told from now on.
    ///
    /// # Errors
    /// [`CallError::TooMany`]: 4,096 topics.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), CallError> {
        self.subscribed.add(topic).map_err(|_| too_many("topics", TOPICS_MAX))
    }

    /// And no longer.
    pub fn unsubscribe(&mut self, topic: &str) {
        self.subscribed.remove(topic);
    }

    /// Queries of this topic are told from now on; before, they are answered with 'none'.
    ///
    /// # Errors
    /// [`CallError::TooMany`]: 4,096 topics.
    pub fn respond(&mut self, topic: &str) -> Result<(), CallError> {
        self.queries.topics.add(topic).map_err(|_| too_many("topics", TOPICS_MAX))
    }

    /// And no longer.
    pub fn unrespond(&mut self, topic: &str) {
        self.queries.topics.remove(topic);
    }

    /// Key and value of my next broadcast.
    pub fn compose(
        &mut self,
        now: Now,
        roster: &Roster,
        topic: &str,
        payload: &[u8],
    ) -> (u32, Vec<u8>, Vec<u8>) {
        let (number, first) = self.broadcasts.number(now);
        let key = format::key(Kind::Broadcast, roster.my_id(), number);
        (number, key.to_vec(), format::broadcast(roster.me().name(), topic, first, payload))
    }

    /// It is in the store: delivered here too.
    pub fn composed(&mut self, entry: &Arc<Entry>) {
        let Talk { subscribed: topics, events, asks, metrics, .. } = self;
        self.broadcasts.wrote(entry.version, entry, broadcasts::Out { topics, events, asks, metrics });
    }

    /// Key of one of my broadcasts, written in this version.
    pub fn broadcast_key(version: Version, number: u32) -> Vec<u8> {
        format::key(Kind::Broadcast, version.writer, number).to_vec()
    }

    /// Key and value of my next query.
    ///
    /// # Errors
    /// [`CallError::TooMany`]: 1,024 under way.
    pub fn compose_query(
        &mut self,
        roster: &Roster,
        topic: &str,
        payload: &[u8],
        filter: &Tags,
        timeout: Duration,
    ) -> Result<(u32, Vec<u8>, Vec<u8>), CallError> {
        if !self.queries.has_room() {
            return Err(too_many("queries", queries::ASKED_MAX));
        }
        let number = self.queries.number();
        let key = format::key(Kind::Query, roster.my_id(), number);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        Ok((number, key.to_vec(), format::query(roster.me().name(), topic, timeout_ms, filter, payload)))
    }

    /// It is in the store: every living member that passes the filter is waited for, and I am asked if I do.
    pub fn asked(
        &mut self,
        now: Now,
        entry: &Arc<Entry>,
        filter: &Tags,
        timeout: Duration,
        roster: &Roster,
        rng: &mut Rng,
    ) {
        let me = roster.me();
        let mut waiting: Table<MemberId, Arc<str>> = roster
            .living_ids()
            .filter_map(|id| roster.profile(id))
            .filter(|profile| format::passes(filter, &profile.tags))
            .map(|profile| (profile.id, profile.name.clone()))
            .collect();
        if format::passes(filter, &me.profile.tags) {
            waiting.insert(me.id(), me.name().clone());
        }
        let mut out = queries::Out {
            me: me.id(),
            my_name: me.name(),
            events: &mut self.events,
            metrics: &mut self.metrics,
        };
        self.queries.ask(now, waiting, timeout, &mut out);
        self.handle_query(now, entry, roster, rng);
    }

    /// Nobody reads the answers to this query any more.
    pub fn forget_query(&mut self, number: u32) {
        self.queries.forget(number);
    }

    /// The responder's answer to [`Event::QueryReceived`]; false if the asker waits no longer.
    pub fn answer(
        &mut self,
        now: Now,
        query: u64,
        status: AnswerStatus,
        payload: Arc<[u8]>,
        roster: &Roster,
    ) -> bool {
        let me = roster.me();
        let mut out = queries::Out {
            me: me.id(),
            my_name: me.name(),
            events: &mut self.events,
            metrics: &mut self.metrics,
        };
        self.queries.answer(now, query, Said { status, payload }, &mut out)
    }

    /// MAIL to a member; its number. [`Event::MailEnded`] follows.
    ///
    /// # Errors
    /// [`CallError::TooMany`]: 4,096 or 64 MiB under way.
    pub fn send(
        &mut self,
        now: Now,
        to: MemberId,
        topic: &str,
        payload: Arc<[u8]>,
        timeout: Duration,
        roster: &Roster,
    ) -> Result<u32, CallError> {
        let seq = self.mail.number();
        if to == roster.my_id() {
            self.metrics.mail_received += 1;
            self.deliver_mail(roster.me().name().clone(), topic, payload);
            self.events.push_back(Event::MailEnded { number: seq, delivered: true });
            return Ok(seq);
        }
        let message = Message::Mail { seq, topic: Arc::from(topic), payload };
        self.mail
            .send(now, to, message, timeout)
            .map_err(|_| too_many("messages under way", retry::UNDER_WAY_MAX))?;
        Ok(seq)
    }

    /// Nobody waits for this MAIL any more.
    pub fn cancel_send(&mut self, number: u32) {
        self.mail.cancel(number);
    }

    /// A reserved entry is news. `pulled`: it came with my PULL, so nobody is told if it is older than I am.
    pub fn handle_reserved(
        &mut self,
        now: Now,
        entry: &Arc<Entry>,
        pulled: bool,
        roster: &Roster,
        rng: &mut Rng,
    ) {
        let quiet = pulled && entry.version.stamp.wall().0 < self.born_ms;
        match format::parse_key(entry) {
            Some((Kind::Broadcast, number)) => {
                let Talk { subscribed: topics, events, asks, metrics, .. } = self;
                let out = broadcasts::Out { topics, events, asks, metrics };
                self.broadcasts.handle_entry(now, number, entry, quiet, out);
            }
            Some((Kind::Query, _)) if quiet => {}
            Some((Kind::Query, _)) => self.handle_query(now, entry, roster, rng),
            None => self.metrics.malformed += 1,
        }
    }

    fn handle_query(&mut self, now: Now, entry: &Arc<Entry>, roster: &Roster, rng: &mut Rng) {
        let Some(((_, number), query)) = format::parse_key(entry).zip(format::parse_query(&entry.value))
        else {
            self.metrics.malformed += 1;
            return;
        };
        let me = roster.me();
        let ends = entry.version.stamp.wall().0.saturating_add(u64::from(query.timeout_ms));
        if !format::passes(&query.filter, &me.profile.tags) || ends + QUERY_SLACK_MS < now.wall.0 {
            return;
        }
        let timeout = Duration::from_millis(u64::from(query.timeout_ms));
        let received = Received {
            from: entry.version.writer,
            name: query.name,
            number,
            topic: query.topic,
            payload: Payload::new(entry.value.clone(), query.payload_at),
            timeout,
            left: timeout,
        };
        let mut out = queries::Out {
            me: me.id(),
            my_name: me.name(),
            events: &mut self.events,
            metrics: &mut self.metrics,
        };
        self.queries.handle_query(now, received, roster.living(), rng, &mut out);
    }

    /// An ANSWER; DONE is due to its sender in any case.
    pub fn handle_answer(
        &mut self,
        from: MemberId,
        number: u32,
        status: AnswerStatus,
        payload: Arc<[u8]>,
        roster: &Roster,
    ) {
        let me = roster.me();
        let name = roster.profile(from).map(|p| p.name.clone());
        let mut out = queries::Out {
            me: me.id(),
            my_name: me.name(),
            events: &mut self.events,
            metrics: &mut self.metrics,
        };
        self.queries.handle_answer(from, name, number, Said { status, payload }, &mut out);
    }

    /// A MAIL; true if DONE is due to its sender.
    pub fn handle_mail(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        topic: &str,
        payload: Arc<[u8]>,
        roster: &Roster,
    ) -> bool {
        let taken = self.mail.take(now, from, seq, &mut self.metrics);
        if taken == Taken::New
            && let Some(profile) = roster.profile(from)
        {
            self.deliver_mail(profile.name.clone(), topic, payload);
        }
        taken != Taken::Refused
    }

    fn deliver_mail(&mut self, from: Arc<str>, topic: &str, payload: Arc<[u8]>) {
        if let Some(topic) = self.subscribed.find(topic) {
            let payload = Payload::new(payload, 0);
            self.events.push_back(Event::MailReceived { from, topic, payload });
        }
    }

    /// DONE: my MAIL or my ANSWER arrived.
    pub fn handle_done(&mut self, from: MemberId, seq: u32) {
        if seq & MAIL_BIT != 0 {
            self.mail.handle_done(from, seq, &mut self.events);
        } else {
            self.queries.handle_done(from, seq);
        }
    }

    /// A message of mine could not be sent over a stream.
    pub fn handle_send_failed(&mut self, now: Now, to: MemberId, message: &Message) {
        match message {
            Message::Mail { seq, .. } => self.mail.handle_failed(now, *seq),
            Message::Answer { query, .. } => self.queries.handle_failed(now, to, *query),
            _ => {}
        }
    }

    /// When [`Talk::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        self.broadcasts.deadline().min(self.queries.deadline()).min(self.mail.deadline())
    }

    /// Tries again what is due, skips gaps, ends queries. `is_coming`: is an entry of this key being transferred to me?
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, is_coming: &dyn Fn(&[u8]) -> bool) {
        let pace = Pace { wait: self.wait, room: self.room, bytes_per_second: self.bytes_per_second };
        let me = roster.me();
        let Talk { sends, events, asks, metrics, subscribed: topics, .. } = self;
        self.mail.handle_timeout(now, pace, sends, events, metrics);
        self.broadcasts.handle_timeout(now, is_coming, broadcasts::Out { topics, events, asks, metrics });
        let mut out = queries::Out { me: me.id(), my_name: me.name(), events, metrics };
        self.queries.handle_timeout(now, pace, sends, &mut out);
    }

    /// Next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(event) = self.events.pop_front() {
            return Some(Action::Tell(event));
        }
        if let Some((writer, keys)) = self.asks.pop_front() {
            self.metrics.gaps_asked += 1;
            return Some(Action::Ask { writer, keys });
        }
        self.sends.pop_front().map(|(to, message)| Action::Send { to, message })
    }

    /// Counters.
    pub fn metrics(&self) -> TalkMetrics {
        self.metrics
    }

    /// MAILs under way, own queries, queries open here, ANSWERs under way.
    pub fn counts(&self) -> [usize; 4] {
        let [asked, open, answers] = self.queries.counts();
        [self.mail.under_way(), asked, open, answers]
    }
}
