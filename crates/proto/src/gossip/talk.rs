//! What members say to each other beside the state: broadcasts, queries, mail, and who holds a version already.

use std::sync::Arc;
use std::time::Duration;

use super::{Gossip, check_tags};
use crate::budget::Class;
use crate::confirm::{self, Goal};
use crate::entry::{Entry, Version};
use crate::member::{Liveness, MemberId, Tags};
use crate::output::{CallError, Sent};
use crate::record::{RecordHasher, RumorId, Tree};
use crate::talk::{self, Talk};
use crate::time::Now;
use crate::wire::{AnswerStatus, ListRange, Message, TOPIC_BYTES_MAX, message_bytes};

/// Bytes of a LIST, of a range of one bucket, of one of its tags, at most.
const LIST_BYTES: usize = 12;
const RANGE_BYTES: usize = 7;
const TAG_BYTES: usize = 6;

fn check_topic(topic: &str) -> Result<(), CallError> {
    let (bytes, bytes_max) = (topic.len(), TOPIC_BYTES_MAX);
    if (1..=bytes_max).contains(&bytes) { Ok(()) } else { Err(CallError::Topic { bytes, bytes_max }) }
}

impl Gossip {
    fn check_payload(&self, payload: &[u8]) -> Result<(), CallError> {
        let (bytes, bytes_max) = (payload.len(), self.config.limits.value_bytes_max);
        if bytes <= bytes_max { Ok(()) } else { Err(CallError::Payload { bytes, bytes_max }) }
    }

    fn check_talk(&self, topic: &str, payload: &[u8]) -> Result<(), CallError> {
        check_topic(topic)?;
        self.check_payload(payload)?;
        self.check_open()
    }

    /// Broadcasts and mail of this topic become events from now on.
    ///
    /// # Errors
    /// [`CallError::Topic`], [`CallError::TooMany`]: 4,096 topics.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), CallError> {
        check_topic(topic)?;
        self.talk.subscribe(topic)
    }

    /// And no longer.
    pub fn unsubscribe(&mut self, topic: &str) {
        self.talk.unsubscribe(topic);
    }

    /// Queries of this topic become events from now on; without, they are answered with 'none'.
    ///
    /// # Errors
    /// [`CallError::Topic`], [`CallError::TooMany`]: 4,096 topics.
    pub fn respond(&mut self, topic: &str) -> Result<(), CallError> {
        check_topic(topic)?;
        self.talk.respond(topic)
    }

    /// And no longer.
    pub fn unrespond(&mut self, topic: &str) {
        self.talk.unrespond(topic);
    }

    /// Broadcasts to all members, self included if it subscribes (section 2.3).
    ///
    /// # Errors
    /// [`CallError`]: topic, payload, full store, left.
    pub fn broadcast(&mut self, now: Now, topic: &str, payload: &[u8]) -> Result<Sent, CallError> {
        self.check_talk(topic, payload)?;
        let (number, key, value) = self.talk.compose(now, &self.roster, topic, payload);
        let entry = self.store.set_reserved(now, &key, Arc::from(value), self.roster.my_id())?;
        self.talk.composed(&entry);
        let version = entry.version;
        let left_to_repair = self.put_own(now, entry);
        Ok(Sent { number, version, backlogged: left_to_repair || self.rumors.backlogged(now) })
    }

    /// Sends to the member of this name; the mail's number. `Event::MailEnded` follows, at the latest after `timeout`.
    ///
    /// # Errors
    /// [`CallError`]: topic, payload, unknown member or one that left, too many under way, left.
    pub fn send(
        &mut self,
        now: Now,
        name: &str,
        topic: &str,
        payload: Arc<[u8]>,
        timeout: Duration,
    ) -> Result<u32, CallError> {
        self.check_talk(topic, &payload)?;
        let member = self.roster.by_name(name).filter(|m| m.liveness != Liveness::Left);
        let to = member.ok_or(CallError::UnknownMember)?.id();
        self.talk.set_rtt(self.detector.rtt_max_recent(now));
        self.talk.send(now, to, topic, payload, timeout, &self.roster)
    }

    /// Nobody waits for this mail any more: it is not sent again.
    pub fn cancel_send(&mut self, number: u32) {
        self.talk.cancel_send(number);
    }

    /// Asks every living member that has these tags, self included; the query's number. `Event::AnswerReceived` for each answer
    /// and `Event::QueryEnded` follow, at the latest after `timeout`.
    ///
    /// # Errors
    /// [`CallError`]: topic, payload, tags, full store, too many under way, left.
    pub fn query(
        &mut self,
        now: Now,
        topic: &str,
        payload: &[u8],
        filter: &Tags,
        timeout: Duration,
    ) -> Result<u32, CallError> {
        self.check_talk(topic, payload)?;
        check_tags(filter)?;
        let (number, key, value) = self.talk.compose_query(&self.roster, topic, payload, filter, timeout)?;
        let entry = self.store.set_reserved(now, &key, Arc::from(value), self.roster.my_id())?;
        self.talk.asked(now, &entry, filter, timeout, &self.roster, &mut self.rng);
        self.put_own(now, entry);
        Ok(number)
    }

    /// Nobody reads the answers to this query any more.
    pub fn cancel_query(&mut self, number: u32) {
        self.talk.forget_query(number);
    }

    /// Answers `Event::QueryReceived`; false if the asker waits no longer.
    ///
    /// # Errors
    /// [`CallError::Payload`].
    pub fn answer(
        &mut self,
        now: Now,
        query: u64,
        status: AnswerStatus,
        payload: Arc<[u8]>,
    ) -> Result<bool, CallError> {
        self.check_payload(&payload)?;
        self.talk.set_rtt(self.detector.rtt_max_recent(now));
        Ok(self.talk.answer(now, query, status, payload, &self.roster))
    }

    /// Waits until `members` others hold this version of a key or a newer one; none: the newest known, a delete included.
    /// `Event::Confirmed` with the returned number follows, at the latest after `timeout`.
    ///
    /// # Errors
    /// [`CallError`]: key, unknown key, too many waits, left.
    pub fn spread(
        &mut self,
        now: Now,
        key: &[u8],
        version: Option<Version>,
        members: usize,
        timeout: Duration,
    ) -> Result<u64, CallError> {
        self.check_open()?;
        self.store.check_user_key(key)?;
        let newest = self.store.version_of(key);
        let asked = version.or(newest).ok_or(CallError::UnknownKey)?;
        let mut ids = vec![self.rumor_of(key, asked)];
        ids.extend(newest.filter(|newest| *newest > asked).map(|newest| self.rumor_of(key, newest)));
        let latest = newest.unwrap_or(asked).max(asked);
        self.confirm.wait(
            now,
            Arc::from(key),
            ids,
            Goal::Any(members),
            age(now, latest),
            timeout,
            &self.roster,
        )
    }

    /// Waits until all members that live now, self included, hold this broadcast of mine. `Event::Confirmed` with the returned
    /// number follows, at the latest after `timeout`.
    ///
    /// # Errors
    /// [`CallError`]: too many waits, left.
    pub fn reached(
        &mut self,
        now: Now,
        number: u32,
        version: Version,
        timeout: Duration,
    ) -> Result<u64, CallError> {
        self.check_open()?;
        let me = self.roster.my_id();
        let others = self.roster.living_ids().filter(|id| *id != me).collect();
        let key = Talk::broadcast_key(version, number);
        let ids = vec![self.rumor_of(&key, version)];
        self.confirm.wait(
            now,
            Arc::from(key),
            ids,
            Goal::All(others),
            age(now, version),
            timeout,
            &self.roster,
        )
    }

    /// Nobody waits for this confirmation any more.
    pub fn cancel_confirm(&mut self, waiter: u64) {
        self.confirm.cancel(waiter);
    }

    /// What is under way: mails sent, own queries, queries open here, answers. For tests of bounds and leaks.
    pub fn talk_counts(&self) -> [usize; 4] {
        self.talk.counts()
    }

    fn rumor_of(&self, key: &[u8], version: Version) -> RumorId {
        let hasher = self.roster.hasher();
        let tag = hasher.entry_tag_of(&hasher.entry_name(key), version);
        RumorId { bucket: RecordHasher::bucket(hasher.place(key)), tag }
    }

    /// An entry was written or accepted.
    pub(super) fn confirm_changed(&mut self, entry: &Entry) {
        if !self.confirm.is_empty() {
            let hasher = self.roster.hasher();
            self.confirm.handle_changed(&entry.key, || hasher.entry_rumor(entry));
        }
    }

    /// An entry of another member was accepted; `pulled`: it came with my PULL.
    pub(super) fn talk_of(&mut self, now: Now, entry: &Arc<Entry>, pulled: bool) {
        if entry.is_reserved() {
            self.talk.set_rtt(self.detector.rtt_max_recent(now));
            self.talk.handle_reserved(now, entry, pulled, &self.roster, &mut self.rng);
        }
    }

    pub(super) fn handle_mail(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        topic: &str,
        payload: Arc<[u8]>,
    ) {
        if self.talk.handle_mail(now, from, seq, topic, payload, &self.roster) {
            self.post(from, Message::Done { seq }, Class::Entries);
        }
    }

    pub(super) fn handle_answer(
        &mut self,
        from: MemberId,
        query: u32,
        status: AnswerStatus,
        payload: Arc<[u8]>,
    ) {
        self.talk.handle_answer(from, query, status, payload, &self.roster);
        self.post(from, Message::Done { seq: query }, Class::Entries);
    }

    pub(super) fn handle_done(&mut self, from: MemberId, seq: u32) {
        self.talk.handle_done(from, seq);
    }

    pub(super) fn handle_poll(&mut self, from: MemberId, ids: Vec<RumorId>) {
        self.roster.index_rumors();
        let seen: Vec<RumorId> = ids.into_iter().filter(|&id| self.knows(id)).collect();
        if !seen.is_empty() {
            self.post(from, Message::Seen(seen), Class::Entries);
        }
    }

    pub(super) fn handle_seen(&mut self, now: Now, from: MemberId, ids: &[RumorId]) {
        self.rumors.handle_seen(now, ids);
        self.confirm.handle_seen(from, ids);
    }

    pub(super) fn talk_timeout(&mut self, now: Now) {
        self.talk.set_rtt(self.detector.rtt_max_recent(now));
        let (hasher, transfer) = (self.roster.hasher(), &self.transfer);
        let is_coming = |key: &[u8]| transfer.is_bucket_wanted(RecordHasher::bucket(hasher.place(key)));
        self.talk.handle_timeout(now, &self.roster, &is_coming);
    }

    pub(super) fn run_talk(&mut self, now: Now, action: talk::Action) {
        match action {
            talk::Action::Tell(event) => self.tell(event),
            talk::Action::Ask { writer, keys } => self.ask_for(now, writer, &keys),
            talk::Action::Send { to, message } if message_bytes(&message) > self.config.room() => {
                self.transfer.send(now, to, message, &self.roster);
            }
            talk::Action::Send { to, message } => self.post(to, message, Class::Entries),
        }
    }

    /// Asks the writer or a random other, in turn, for entries missing here: a LIST of nothing but their buckets, as of the last
    /// whole second. Its answer needs no session: IHAVE, which brings the records by `S5`.
    fn ask_for(&mut self, now: Now, writer: MemberId, keys: &[Vec<u8>]) {
        let to = if self.roster.is_living(writer) && self.rng.chance(0.5) { Some(writer) } else { None };
        let others = self.roster.pick_living(&mut self.rng, 1);
        let Some(to) = to.or(others.first().copied()) else { return };
        let settled = now.wall.second().minus(1);
        let hasher = self.roster.hasher();
        let mut buckets: Vec<u16> = keys.iter().map(|key| RecordHasher::bucket(hasher.place(key))).collect();
        buckets.sort_unstable();
        buckets.dedup();
        let Some(view) = self.store.view(now, settled) else { return };
        let room = self.config.room();
        let (mut ranges, mut bytes) = (Vec::new(), LIST_BYTES);
        for bucket in buckets {
            let range = ListRange { first: bucket, last: bucket, tags: view.list(bucket, bucket) };
            bytes += RANGE_BYTES + TAG_BYTES * range.tags.len();
            if bytes > room {
                break;
            }
            ranges.push(range);
        }
        drop(view);
        let seq = self.rng.u32();
        self.post(to, Message::List { seq, tree: Tree::Entries, settled, ranges }, Class::Repair);
    }

    pub(super) fn run_confirm(&mut self, action: confirm::Action) {
        match action {
            confirm::Action::Tell(event) => self.tell(event),
            confirm::Action::Send { to, message } => self.post(to, message, Class::Entries),
        }
    }
}

/// How old a version is by the own wall clock.
fn age(now: Now, version: Version) -> Duration {
    Duration::from_millis(now.wall.0.saturating_sub(version.stamp.wall().0))
}
