//! Streams between members: large records (`R6`), PULL to the end, and any message too large for a datagram.
//!
//! How the hall drives it. After each call drain [`Transfer::poll_action`] (it needs the budget and the records).
//! - `handle_stream_opened/accepted/writable/closed` of the hall: the methods of the same names here.
//! - A frame: decode; its sender must be a known member (else close the stream by [`Transfer::refuse`]); give each message to
//!   [`Transfer::handle_message`] and do with [`Delivered`] as it says.
//! - IHAVE with `large`, for each unknown id: [`Transfer::handle_announced`]. A record that came by any way:
//!   [`Transfer::handle_arrived`].
//! - A member declared dead: [`Transfer::handle_dead`].
//! - [`Action::Began`]: IHAVE with `large` to some members.
//! - `join::Action::PullStream`: [`Transfer::pull`]; [`Action::PullFailed`]: `join.handle_pull_failed`.
//! - MAIL or ANSWER over the datagram limit, HEARD (`S7`): [`Transfer::send`].
//! - [`Action::SendFrame`]: encode as one frame, `Output::Send`; at most one is under way per stream.

mod serve;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::member::MemberId;
use crate::output::StreamId;
use crate::record::{Record, RumorId, Tree};
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::{Mono, Now};
use crate::wire::{self, Message, Page, message_bytes};

use serve::{LargeRate, PAGE_BYTES, PullRate};
use stream::{Out, Relay, Sending, Stream};

/// What streams are served from: the hall implements it over store, rumors and join.
pub trait Source {
    /// The record of exactly this id with the hop to announce (that of the hot rumor, else 200).
    fn record(&mut self, id: RumorId) -> Option<(u8, Record)>;
    /// The page that starts at place `from`: at least one record unless `last`, else at most `bytes_max` bytes; members by
    /// `join.members_page`, entries by `store.page`.
    fn page(&mut self, tree: Tree, from: u64, bytes_max: usize) -> Page;
}

/// What the hall must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// `Output::Open`.
    Open {
        /// Even.
        stream: StreamId,
        /// To.
        to: SocketAddr,
    },
    /// Encode as one frame, `Output::Send`.
    SendFrame {
        /// On.
        stream: StreamId,
        /// What.
        message: Message,
    },
    /// `Output::Close`.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// A large record has begun to come and can be had from me as it does: announce it (`R6`).
    Began {
        /// Its id.
        id: RumorId,
    },
    /// A large record could not be had from any announcer; anti-entropy will bring it.
    GaveUp {
        /// Its id.
        id: RumorId,
    },
    /// A PULL did not come to its end: call `join.handle_pull_failed`.
    PullFailed {
        /// Of which tree.
        tree: Tree,
        /// The source serves too many others at present.
        busy: bool,
    },
    /// A message of [`Transfer::send`] was not sent: the stream could not be opened, or broke.
    SendFailed {
        /// To whom.
        to: MemberId,
        /// The message.
        message: Message,
    },
}

/// What a message on a stream is.
#[derive(Clone, PartialEq, Debug)]
pub enum Delivered {
    /// Done with here.
    Nothing,
    /// A record that was asked for: treat it as a RECORD in a datagram (merge, hot at hop + 1).
    Record {
        /// Its hop.
        hop: u8,
        /// The record.
        record: Record,
    },
    /// A page that was asked for: `join.handle_page`, then merge.
    Page(Page),
    /// Any other kind: treat it as if it came in a datagram (MAIL, ANSWER, DONE, HEARD, CLAIMS).
    Message(Message),
}

/// Counters of this part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferMetrics {
    /// Streams opened by me.
    pub streams_opened: u64,
    /// Streams accepted.
    pub streams_accepted: u64,
    /// Streams refused or closed because a table was full or the peer broke the rules.
    pub streams_refused: u64,
    /// Large records received.
    pub records_received: u64,
    /// Large records sent.
    pub records_sent: u64,
    /// Of the records received and sent, those that a session of anti-entropy asked for, and their bytes.
    pub repair_records_received: u64,
    /// Likewise.
    pub repair_records_sent: u64,
    /// Likewise.
    pub repair_bytes_received: u64,
    /// Likewise.
    pub repair_bytes_sent: u64,
    /// BUSY sent.
    pub busy_sent: u64,
    /// Large records given up.
    pub given_up: u64,
    /// PAGE frames sent.
    pub pages_sent: u64,
    /// PAGE frames received.
    pub pages_received: u64,
    /// Messages dropped: not asked for, or over a limit.
    pub dropped: u64,
}

/// Streams opened by me, and accepted.
const OPENED_MAX: usize = 64;
const ACCEPTED_MAX: usize = 256;
/// Large records under way, each direction (`R6`).
const RECORDS_MAX: usize = 4;
/// PULLs served at once.
const PULLS_OUT_MAX: usize = 16;
/// Messages waiting on one stream.
const QUEUE_MAX: usize = 32;
/// Idle time after which I close what I opened; the other side waits half as long again, so that closes do not cross.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_ACCEPTED: Duration = Duration::from_secs(15);
/// A stream that is not connected by then is given up.
const OPENING: Duration = Duration::from_secs(5);
/// No frame for so long where one was asked for: the stream counts as broken.
const STALL: Duration = Duration::from_secs(60);
/// Wait before another announcer is asked; before the only one is asked again after BUSY.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_BUSY: Duration = Duration::from_secs(1);
/// Announcers remembered per record, the latest last.
const ANNOUNCERS_MAX: usize = 4;
/// Points after which a record is given up: a broken stream costs a hundred, BUSY one. Members that give a megabyte to four
/// others within their budget are busy for half a minute.
const STRIKES_MAX: u32 = 600;
const STRIKES_BROKEN: u32 = 100;

/// Messages as long as can be whose pieces are kept at once, all streams together.
const PARTS_KEPT: usize = 64;

/// A message in pieces is longer than any may be, or too many are under way.
struct TooLong;

/// A large record I lack.
struct Want {
    announcers: Vec<MemberId>,
    asked_last: Option<MemberId>,
    /// A session announced it (`S5`), not a rumor.
    repair: bool,
    /// On which stream it was asked for.
    stream: Option<StreamId>,
    /// Next try, while not asked.
    at: Mono,
    strikes: u32,
}

/// The part.
pub struct Transfer {
    actions: VecDeque<Action>,
    metrics: TransferMetrics,
    wants_max: usize,
    page_bytes_max: usize,
    next_stream: u64,
    streams: Table<StreamId, Stream>,
    by_address: Table<SocketAddr, StreamId>,
    wants: Table<RumorId, Want>,
    pulls: Table<Tree, StreamId>,
    /// Streams that may have something to send.
    ready: Set<StreamId>,
    /// Streams that wait for tokens, and until when.
    blocked: Set<StreamId>,
    wake_at: Mono,
    pull_rate: PullRate,
    large_rate: LargeRate,
    turns: u64,
    value_bytes_max: usize,
    /// Longest message put together from pieces, and all that are not whole yet.
    parts_bytes_max: usize,
}

impl Transfer {
    /// No streams.
    pub fn new(config: &Config, now: Now) -> Transfer {
        Transfer {
            actions: VecDeque::new(),
            metrics: TransferMetrics::default(),
            wants_max: config.limits.wants_max,
            page_bytes_max: PAGE_BYTES.min(config.frame_bytes_max() / 2),
            next_stream: 2,
            streams: Table::new(),
            by_address: Table::new(),
            wants: Table::new(),
            pulls: Table::new(),
            ready: Set::new(),
            blocked: Set::new(),
            wake_at: Mono::FAR,
            pull_rate: PullRate::new(now.mono),
            large_rate: LargeRate::new(config.bytes_per_second_max, now.mono),
            turns: 0,
            value_bytes_max: config.limits.value_bytes_max,
            parts_bytes_max: config.frame_bytes_max(),
        }
    }

    /// A member announced a record that is too large for datagrams and that I lack (`R6`); `repair`: in a session. Beyond
    /// `wants_max` records nothing happens: anti-entropy brings them.
    pub fn handle_announced(&mut self, now: Now, from: MemberId, id: RumorId, repair: bool, roster: &Roster) {
        if !self.wants.contains_key(&id) && self.wants.len() >= self.wants_max {
            self.metrics.dropped += 1;
            return;
        }
        let at = now.mono;
        let want = self.wants.or_insert_with(id, || Want {
            announcers: Vec::new(),
            asked_last: None,
            repair,
            stream: None,
            at,
            strikes: 0,
        });
        if !want.announcers.contains(&from) {
            want.strikes = 0;
            want.at = want.at.min(at + RETRY);
        }
        want.announcers.retain(|&a| a != from);
        if want.announcers.len() >= ANNOUNCERS_MAX {
            want.announcers.remove(0);
        }
        want.announcers.push(from);
        self.start_wants(now.mono, roster);
    }

    /// A record came by any way: its transfer ends.
    pub fn handle_arrived(&mut self, now: Now, id: RumorId, roster: &Roster) {
        if let Some(want) = self.wants.remove(&id) {
            if let Some(s) = want.stream.and_then(|s| self.streams.get_mut(&s)) {
                s.asked.remove(&id);
            }
            self.start_wants(now.mono, roster);
        }
    }

    /// Is a transfer of this record wanted or under way?
    pub fn is_wanted(&self, id: RumorId) -> bool {
        self.wants.contains_key(&id)
    }

    /// Is a transfer of some record of this bucket wanted or under way?
    pub fn is_bucket_wanted(&self, bucket: u16) -> bool {
        let first = RumorId { bucket, tag: 0 };
        self.wants.range(first..=RumorId { bucket, tag: u32::MAX }).next().is_some()
    }

    /// Asks for records whose time has come, as long as fewer than four are under way.
    fn start_wants(&mut self, now: Mono, roster: &Roster) {
        let mut under_way = self.wants.values().filter(|w| w.stream.is_some()).count();
        if under_way >= RECORDS_MAX {
            return;
        }
        let mut due: Vec<(Mono, RumorId)> = self
            .wants
            .iter()
            .filter(|(_, w)| w.stream.is_none() && w.at <= now)
            .map(|(id, w)| (w.at, *id))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            if under_way >= RECORDS_MAX {
                break;
            }
            under_way += usize::from(self.start_want(now, id, roster));
        }
    }

    fn start_want(&mut self, now: Mono, id: RumorId, roster: &Roster) -> bool {
        let Some(want) = self.wants.get_mut(&id) else { return false };
        want.announcers.retain(|&a| roster.is_living(a));
        let other = want.announcers.iter().rev().find(|a| want.asked_last != Some(**a));
        let Some(&from) = other.or(want.announcers.last()) else {
            self.give_up(id);
            return false;
        };
        let address = roster.profile(from).map(|p| p.address);
        let stream = address.and_then(|a| self.stream_to(now, a));
        let Some(want) = self.wants.get_mut(&id) else { return false };
        want.asked_last = Some(from);
        let Some((stream, s)) = stream.and_then(|s| Some((s, self.streams.get_mut(&s)?))) else {
            self.strike(now, id, STRIKES_BROKEN);
            return false;
        };
        want.stream = Some(stream);
        s.asked.insert(id);
        s.touch(now);
        let want = Message::Want { repair: want.repair, large: true, ids: vec![id] };
        s.out.push_back(Out::Control(want));
        self.ready.insert(stream);
        true
    }

    /// A try failed: another announcer after a while, or none.
    fn strike(&mut self, now: Mono, id: RumorId, strikes: u32) {
        let Some(want) = self.wants.get_mut(&id) else { return };
        let busy_alone = strikes < STRIKES_BROKEN && want.announcers.len() < 2;
        want.stream = None;
        want.at = now + if busy_alone { RETRY_BUSY } else { RETRY };
        want.strikes += strikes;
        if want.strikes >= STRIKES_MAX {
            self.give_up(id);
        }
    }

    fn give_up(&mut self, id: RumorId) {
        self.wants.remove(&id);
        self.metrics.given_up += 1;
        self.actions.push_back(Action::GaveUp { id });
    }

    /// PULL over a stream, from this place to the end. One of the same tree that is still under way has stalled: its stream
    /// is closed.
    pub fn pull(&mut self, now: Now, tree: Tree, address: SocketAddr, cursor: u64, roster: &Roster) {
        if let Some(stalled) = self.pulls.remove(&tree) {
            self.actions.push_back(Action::Close { stream: stalled });
            self.handle_closed(now, stalled, roster);
        }
        let stream = self.stream_to(now.mono, address);
        match stream.and_then(|s| Some((s, self.streams.get_mut(&s)?))) {
            Some((stream, s)) => {
                s.touch(now.mono);
                s.out.push_back(Out::Control(Message::Pull { tree, cursor }));
                self.pulls.insert(tree, stream);
                self.ready.insert(stream);
            }
            None => self.actions.push_back(Action::PullFailed { tree, busy: false }),
        }
    }

    /// Sends a message over a stream to a known member, as the budget for entries allows; [`Action::SendFailed`] if that is
    /// not possible. Nothing happens if the same is still on its way there.
    pub fn send(&mut self, now: Now, to: MemberId, message: Message, roster: &Roster) {
        let address = roster.profile(to).map(|p| p.address);
        let stream = address.and_then(|a| self.stream_to(now.mono, a));
        let stream = stream.and_then(|s| Some((s, self.streams.get_mut(&s)?)));
        match stream.filter(|(_, s)| s.out.len() < QUEUE_MAX) {
            Some((_, s)) if s.has(&message) => {}
            Some((stream, s)) => {
                s.touch(now.mono);
                s.out.push_back(Out::Push { to, message });
                self.ready.insert(stream);
            }
            None => self.actions.push_back(Action::SendFailed { to, message }),
        }
    }

    /// The one stream of mine to this address, opened if need be; none if the table is full of busy ones.
    fn stream_to(&mut self, now: Mono, address: SocketAddr) -> Option<StreamId> {
        if let Some(&stream) = self.by_address.get(&address) {
            return Some(stream);
        }
        if self.by_address.len() >= OPENED_MAX {
            let pulls = &self.pulls;
            let idle = self
                .streams
                .iter()
                .filter(|(id, s)| s.mine && s.is_idle() && !pulls.values().any(|p| p == *id));
            let oldest = idle.min_by_key(|(_, s)| s.active_at).map(|(id, _)| *id)?;
            self.remove(oldest);
            self.actions.push_back(Action::Close { stream: oldest });
        }
        let stream = StreamId(self.next_stream);
        self.next_stream += 2;
        self.streams.insert(stream, Stream::new(now, address, true));
        self.by_address.insert(address, stream);
        self.metrics.streams_opened += 1;
        self.actions.push_back(Action::Open { stream, to: address });
        Some(stream)
    }

    fn remove(&mut self, stream: StreamId) -> Option<Stream> {
        let s = self.streams.remove(&stream)?;
        self.ready.remove(&stream);
        self.blocked.remove(&stream);
        if s.mine {
            self.by_address.remove(&s.address);
        }
        Some(s)
    }

    /// A stream of mine is connected.
    pub fn handle_opened(&mut self, now: Now, stream: StreamId) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.open = true;
            s.active_at = now.mono;
            self.ready.insert(stream);
        }
    }

    /// The host accepted a stream.
    pub fn handle_accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) {
        let accepted = self.streams.values().filter(|s| !s.mine).count();
        if accepted >= ACCEPTED_MAX || self.streams.contains_key(&stream) {
            self.metrics.streams_refused += 1;
            self.actions.push_back(Action::Close { stream });
            return;
        }
        self.metrics.streams_accepted += 1;
        self.streams.insert(stream, Stream::new(now.mono, from, false));
    }

    /// The frame under way has left.
    pub fn handle_writable(&mut self, now: Now, stream: StreamId) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.in_flight = false;
            s.sending_record = false;
            s.active_at = now.mono;
            self.ready.insert(stream);
        }
    }

    /// The stream is gone.
    pub fn handle_closed(&mut self, now: Now, stream: StreamId, roster: &Roster) {
        let Some(s) = self.remove(stream) else { return };
        self.pass_on(stream, &[], Some(Relay::Broken));
        for &id in &s.asked {
            self.strike(now.mono, id, STRIKES_BROKEN);
        }
        let failed: Vec<Tree> = self.pulls.iter().filter(|(_, p)| **p == stream).map(|(t, _)| *t).collect();
        for tree in failed {
            self.pulls.remove(&tree);
            self.actions.push_back(Action::PullFailed { tree, busy: false });
        }
        if let Some(Sending { message, to: Some(to), .. }) = s.sending {
            self.actions.push_back(Action::SendFailed { to, message });
        }
        for out in s.out {
            if let Out::Push { to, message } = out {
                self.actions.push_back(Action::SendFailed { to, message });
            }
        }
        self.start_wants(now.mono, roster);
    }

    /// The member at this address was declared dead: what was asked of it is asked of others.
    pub fn handle_dead(&mut self, now: Now, address: SocketAddr, roster: &Roster) {
        if let Some(&stream) = self.by_address.get(&address) {
            self.actions.push_back(Action::Close { stream });
            self.handle_closed(now, stream, roster);
        }
    }

    /// I take a new identity: streams belong to the old one.
    pub fn renew(&mut self, now: Now, roster: &Roster) {
        let all: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in all {
            self.actions.push_back(Action::Close { stream });
            self.handle_closed(now, stream, roster);
        }
    }

    /// Closes a stream whose frame was malformed or came from an unknown member.
    pub fn refuse(&mut self, now: Now, stream: StreamId, roster: &Roster) {
        if self.streams.contains_key(&stream) {
            self.metrics.streams_refused += 1;
            self.actions.push_back(Action::Close { stream });
            self.handle_closed(now, stream, roster);
        }
    }

    /// A message of a frame from a known member.
    pub fn handle_message(
        &mut self,
        now: Now,
        stream: StreamId,
        from: MemberId,
        message: Message,
        roster: &Roster,
    ) -> Delivered {
        let records_out: usize = self.streams.values().map(Stream::records_out).sum();
        let pulls_out = self.streams.values().filter(|s| s.pull_out.is_some()).count();
        let Some(s) = self.streams.get_mut(&stream) else {
            self.metrics.dropped += 1;
            return Delivered::Nothing;
        };
        if *s.peer.get_or_insert(from) != from {
            self.refuse(now, stream, roster);
            return Delivered::Nothing;
        }
        s.active_at = now.mono;
        match message {
            Message::Want { repair, ids, .. } => {
                let mut room = RECORDS_MAX.saturating_sub(records_out);
                for id in ids {
                    if s.out.len() >= QUEUE_MAX {
                        self.metrics.dropped += 1;
                    } else if room > 0 {
                        room -= 1;
                        s.out.push_back(Out::Record { id, repair });
                    } else {
                        s.out.push_back(Out::Control(Message::Busy { tree: None, id: Some(id) }));
                        self.metrics.busy_sent += 1;
                    }
                }
                self.ready.insert(stream);
            }
            Message::Pull { tree, cursor } => {
                if pulls_out < PULLS_OUT_MAX || s.pull_out.is_some() {
                    s.pull_out = Some((tree, cursor));
                } else if s.out.len() < QUEUE_MAX {
                    s.out.push_back(Out::Control(Message::Busy { tree: Some(tree), id: None }));
                    self.metrics.busy_sent += 1;
                }
                self.ready.insert(stream);
            }
            Message::Record { hop, record } => {
                let id = id_of(&record, roster);
                if s.asked.remove(&id) {
                    self.metrics.records_received += 1;
                    let message = Message::Record { hop, record };
                    if self.wants.remove(&id).is_some_and(|want| want.repair) {
                        self.metrics.repair_records_received += 1;
                        self.metrics.repair_bytes_received += message_bytes(&message) as u64;
                    }
                    self.start_wants(now.mono, roster);
                    if let Message::Record { hop, record } = message {
                        return Delivered::Record { hop, record };
                    }
                    return Delivered::Nothing;
                }
                self.metrics.dropped += 1;
            }
            Message::Page(page) if self.pulls.get(&page.tree) == Some(&stream) => {
                if page.last || page.next <= page.from {
                    self.pulls.remove(&page.tree);
                }
                self.metrics.pages_received += 1;
                return Delivered::Page(page);
            }
            Message::Busy { tree: Some(tree), .. } if self.pulls.get(&tree) == Some(&stream) => {
                self.pulls.remove(&tree);
                self.actions.push_back(Action::PullFailed { tree, busy: true });
            }
            Message::Busy { id: Some(id), .. } if s.asked.remove(&id) => {
                self.strike(now.mono, id, 1);
                self.start_wants(now.mono, roster);
            }
            Message::Part { last, bytes } => match self.put_together(stream, last, &bytes, roster) {
                Ok(Some(message)) => return self.handle_message(now, stream, from, message, roster),
                Ok(None) => {}
                Err(TooLong) => self.refuse(now, stream, roster),
            },
            Message::Mail { .. }
            | Message::Answer { .. }
            | Message::Done { .. }
            | Message::Heard { .. }
            | Message::Claims(_) => return Delivered::Message(message),
            _ => self.metrics.dropped += 1,
        }
        Delivered::Nothing
    }

    /// Keeps a piece, and passes it on to those who ask me for the same; the message, once it is whole. One that does not
    /// decode is dropped.
    fn put_together(
        &mut self,
        stream: StreamId,
        last: bool,
        bytes: &[u8],
        roster: &Roster,
    ) -> Result<Option<Message>, TooLong> {
        let kept: usize = self.streams.values().map(|s| s.parts.len()).sum();
        let Some(s) = self.streams.get_mut(&stream) else { return Ok(None) };
        let long = s.parts.len() + bytes.len() > self.parts_bytes_max;
        if long || kept + bytes.len() > PARTS_KEPT * self.parts_bytes_max {
            return Err(TooLong);
        }
        if s.parts.is_empty() && !last && s.asked.len() == 1 {
            s.coming = s.asked.first().copied();
            self.actions.extend(s.coming.map(|id| Action::Began { id }));
        }
        s.parts.extend_from_slice(bytes);
        if !last {
            self.pass_on(stream, bytes, Some(Relay::From(stream)));
            return Ok(None);
        }
        let (whole, coming) = (std::mem::take(&mut s.parts), s.coming.take());
        let limits = wire::Limits { value_bytes_max: self.value_bytes_max };
        let message = wire::decode_parts(&whole, &limits).ok().flatten();
        let message = message.filter(|m| !matches!(m, Message::Part { .. }));
        match &message {
            Some(Message::Record { record, .. }) if coming == Some(id_of(record, roster)) => {
                self.pass_on(stream, bytes, None);
            }
            _ => self.pass_on(stream, &[], Some(Relay::Broken)),
        }
        self.metrics.dropped += u64::from(message.is_none());
        Ok(message)
    }

    fn due_at(&self, id: StreamId, s: &Stream) -> Mono {
        let waits = !s.asked.is_empty() || self.pulls.values().any(|p| *p == id);
        let wait = if !s.open {
            OPENING
        } else if waits || s.in_flight {
            STALL
        } else if !s.is_idle() {
            return Mono::FAR;
        } else if s.mine {
            IDLE
        } else {
            IDLE_ACCEPTED
        };
        s.active_at + wait
    }

    /// When [`Transfer::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        let streams = self.streams.iter().map(|(id, s)| self.due_at(*id, s)).min().unwrap_or(Mono::FAR);
        let under_way = self.wants.values().filter(|w| w.stream.is_some()).count();
        let waiting = self.wants.values().filter(|w| w.stream.is_none() && under_way < RECORDS_MAX);
        let wants = waiting.map(|w| w.at).min().unwrap_or(Mono::FAR);
        let wake = if self.blocked.is_empty() { Mono::FAR } else { self.wake_at };
        streams.min(wants).min(wake)
    }

    /// Does all that is due: retries, idle streams, tokens.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster) {
        if self.wake_at <= now.mono {
            self.wake_at = Mono::FAR;
            self.ready.append(&mut self.blocked);
        }
        let streams = self.streams.iter();
        let due: Vec<StreamId> =
            streams.filter(|(id, s)| self.due_at(**id, s) <= now.mono).map(|(id, _)| *id).collect();
        for stream in due {
            self.actions.push_back(Action::Close { stream });
            self.handle_closed(now, stream, roster);
        }
        self.start_wants(now.mono, roster);
    }

    /// Counters.
    pub fn metrics(&self) -> TransferMetrics {
        self.metrics
    }
}

fn id_of(record: &Record, roster: &Roster) -> RumorId {
    match record {
        Record::Entry(e) => roster.hasher().entry_rumor(e),
        Record::Member(m) => roster.hasher().member_rumor(&m.profile),
    }
}

#[cfg(test)]
mod tests;
