//! A session, on the side of the requester (`S4`): descend where digests differ, list what lies below, until every request is
//! answered.

use std::collections::VecDeque;
use std::time::Duration;

use super::schedule::Plan;
use crate::member::MemberId;
use crate::merkle::{LEVEL_MAX, bucket_range, differing, list_level};
use crate::record::Tree;
use crate::replica::Replica;
use crate::table::Table;
use crate::time::{Mono, Second};
use crate::wire::{DiffItem, ListRange, Message, WalkItem, message_bytes};

/// Requests under way.
const WINDOW: usize = 8;
/// Requests sent at once, and the time between two after that: never more than a peer serves within a second (section 7).
const BURST: u32 = 16;
const SPACING: Duration = Duration::from_millis(22);
/// Repeats of a request, each after twice the time.
const TRIES: u32 = 3;
/// Times a request is taken up anew after all repeats, if the peer answered others meanwhile.
const ROUNDS: u32 = 4;
const WALK_HEAD: usize = 16;
const WALK_ITEM: usize = 67;
const LIST_HEAD: usize = 12;
/// A session that waits for records that do not come ends after this.
const QUIET: Duration = Duration::from_secs(2);
/// One that only waits to be asked ends after so many W: the peer repeats a WANT after 1, 2 and 4; then others have answered it.
const UNASKED_WAITS: u32 = 8;

enum Asked {
    Walk(Vec<(u8, u16)>),
    /// What is left of each range, in the order of the LIST.
    List(Vec<Vec<(u16, u16)>>),
}

struct Request {
    asked: Asked,
    since: Mono,
    deadline: Mono,
    tries: u32,
    rounds: u32,
}

pub(super) struct Session {
    pub tree: Tree,
    pub peer: MemberId,
    pub settled: Second,
    pub quick: bool,
    /// Records and claims that moved, either way.
    pub moved: u64,
    /// Nothing was given up.
    pub whole: bool,
    salt: u32,
    list_level: u8,
    walks: VecDeque<(u8, u16)>,
    lists: VecDeque<(u16, u16)>,
    requests: Table<u32, Request>,
    /// When another burst may be sent.
    paced: Mono,
    /// The peer has announced that it asks for so many.
    pub promised: u64,
    /// It has asked for so many.
    pub served: u64,
    /// Last sign of the peer within the session.
    pub heard: Mono,
}

/// What a request's time-out leads to.
pub(super) enum Overdue {
    /// Nothing is due.
    No,
    /// Requests were put back to be asked again.
    Again,
    /// The peer is silent.
    GiveUp,
}

impl Session {
    pub fn new(now: Mono, plan: &Plan, salt: u32, view: &dyn Replica) -> Session {
        let list_level = if plan.far { 0 } else { list_level(view.count()) };
        let mut session = Session {
            tree: plan.tree,
            peer: plan.peer,
            settled: plan.settled,
            quick: plan.quick,
            moved: 0,
            whole: true,
            salt,
            list_level,
            walks: VecDeque::new(),
            lists: VecDeque::new(),
            requests: Table::new(),
            paced: now,
            promised: 0,
            served: 0,
            heard: now,
        };
        if list_level == 0 {
            session.lists.push_back((0, u16::MAX));
        } else {
            session.walks.push_back((0, 0));
        }
        session
    }

    /// Every request is answered.
    pub fn is_found(&self) -> bool {
        self.walks.is_empty() && self.lists.is_empty() && self.requests.is_empty()
    }

    /// When it ends if nothing more moves; [`Mono::FAR`] while requests are unanswered. `open`: records wanted of the peer.
    pub fn ends(&self, wait: Duration, open: usize) -> Mono {
        if !self.is_found() {
            Mono::FAR
        } else if open > 0 {
            self.heard + QUIET
        } else if self.served < self.promised {
            self.heard + QUIET.min(wait * UNASKED_WAITS)
        } else {
            self.heard
        }
    }

    /// Requests to send now.
    pub fn pump(
        &mut self,
        now: Mono,
        wait: Duration,
        room: usize,
        view: &dyn Replica,
        seq: &mut u32,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.requests.len() < WINDOW && self.next_request() <= now {
            let Some((message, asked)) = self.next(*seq, room, view) else { break };
            self.pace(now);
            let deadline = now + wait;
            self.requests.insert(*seq, Request { asked, since: now, deadline, tries: 0, rounds: 0 });
            *seq = seq.wrapping_add(1);
            messages.push(message);
        }
        messages
    }

    /// When the next new request may leave.
    fn next_request(&self) -> Mono {
        Mono(self.paced.0.saturating_sub((SPACING * (BURST - 1)).as_nanos() as u64))
    }

    fn pace(&mut self, now: Mono) {
        self.paced = self.paced.max(now) + SPACING;
    }

    fn next(&mut self, seq: u32, room: usize, view: &dyn Replica) -> Option<(Message, Asked)> {
        let mut items = Vec::new();
        let mut positions = Vec::new();
        while WALK_HEAD + (items.len() + 1) * WALK_ITEM <= room {
            let Some((level, index)) = self.walks.pop_front() else { break };
            if let Some(children) = view.digests(self.salt, level, index) {
                items.push(WalkItem { level, index, children });
                positions.push((level, index));
            }
        }
        if !items.is_empty() {
            return Some((self.walk(seq, items), Asked::Walk(positions)));
        }
        let ranges = self.ranges(room, view);
        let left: Vec<Vec<(u16, u16)>> = ranges.iter().map(|r| vec![(r.first, r.last)]).collect();
        (!ranges.is_empty()).then(|| (self.list(seq, ranges), Asked::List(left)))
    }

    fn walk(&self, seq: u32, items: Vec<WalkItem>) -> Message {
        Message::Walk { seq, tree: self.tree, settled: self.settled, salt: self.salt, items }
    }

    fn list(&self, seq: u32, ranges: Vec<ListRange>) -> Message {
        Message::List { seq, tree: self.tree, settled: self.settled, ranges }
    }

    /// As many of the ranges to list as fit a datagram; a range that does not fit is cut between buckets.
    fn ranges(&mut self, room: usize, view: &dyn Replica) -> Vec<ListRange> {
        let mut ranges = Vec::new();
        let mut bytes = LIST_HEAD;
        while let Some((first, last)) = self.lists.pop_front() {
            let mut tags = view.list(first, last);
            let (head, each) = if first == last { (6, 6) } else { (7, 7) };
            // A step between buckets takes more than one byte where they are sparse.
            let long = if first == last { 0 } else { (usize::from(last - first) / 128).min(tags.len()) + 4 };
            let fit = room.saturating_sub(bytes + head + long) / each;
            if tags.len() <= fit {
                bytes += head + long + each * tags.len();
                ranges.push(ListRange { first, last, tags });
                continue;
            }
            if !ranges.is_empty() && fit < 64 {
                self.lists.push_front((first, last));
                break;
            }
            let cut = tags.get(fit).map_or(last, |t| t.bucket);
            if cut > first {
                tags.retain(|t| t.bucket < cut);
                self.lists.push_front((cut, last));
                ranges.push(ListRange { first, last: cut - 1, tags });
            } else if ranges.is_empty() {
                // One bucket beyond a datagram (over 10^7 records): what is cut off counts as missing here.
                if first < last {
                    self.lists.push_front((first + 1, last));
                }
                tags.retain(|t| t.bucket == first);
                tags.truncate(fit);
                ranges.push(ListRange { first, last: first, tags });
            } else {
                self.lists.push_front((first, last));
            }
            break;
        }
        ranges
    }

    /// A DIFF with the number of a request. False: no request of mine.
    pub fn handle_diff(
        &mut self,
        now: Mono,
        wait: Duration,
        seq: u32,
        items: &[DiffItem],
        view: &dyn Replica,
    ) -> bool {
        let Some(mut request) = self.requests.remove(&seq) else { return false };
        self.heard = now;
        request.deadline = now + wait;
        request.since = now;
        request.tries = 0;
        let done = match &mut request.asked {
            Asked::Walk(positions) => {
                for item in items {
                    let before = positions.len();
                    positions.retain(|p| *p != (item.level, item.index));
                    if positions.len() < before {
                        self.descend(item, view);
                    }
                }
                positions.is_empty()
            }
            Asked::List(left) => {
                let (mut k, mut first) = (usize::MAX, None);
                let mut settle = |k: usize, from: u16, to: u16| {
                    if let Some(parts) = left.get_mut(k) {
                        *parts = parts.iter().flat_map(|part| without(*part, from, to)).collect();
                    }
                };
                for (n, item) in items.iter().enumerate() {
                    match item.level {
                        3 => {
                            (k, first) = (usize::from(item.index), None);
                            self.promised += u64::from(item.bitmap);
                            if items.get(n + 1).is_none_or(|next| next.level == 3) {
                                settle(k, 0, u16::MAX);
                            }
                        }
                        1 => first = Some(item.bitmap),
                        _ => settle(k, first.take().unwrap_or(u16::MAX), item.bitmap),
                    }
                }
                left.iter().all(Vec::is_empty)
            }
        };
        if !done {
            self.requests.insert(seq, request);
        }
        true
    }

    fn descend(&mut self, item: &DiffItem, view: &dyn Replica) {
        let level = item.level + 1;
        let mut digests = item.children.iter();
        for i in (0..16u16).filter(|i| item.bitmap >> i & 1 == 1) {
            let (child, theirs) = (item.index << 4 | i, digests.next());
            if level >= self.list_level {
                self.lists.push_back(bounds(level, child));
            } else if let Some((theirs, mine)) = theirs.zip(view.digests(self.salt, level, child)) {
                let bits = differing(&mine, theirs);
                for j in (0..16u16).filter(|j| bits >> j & 1 == 1) {
                    let position = (level + 1, child << 4 | j);
                    if position.0 >= self.list_level {
                        self.lists.push_back(bounds(position.0, position.1));
                    } else {
                        self.walks.push_back(position);
                    }
                }
            } else if level < LEVEL_MAX {
                self.walks.push_back((level, child));
            }
        }
    }

    /// Repeats what is overdue: only what was not answered, under a new number.
    pub fn handle_timeout(
        &mut self,
        now: Mono,
        wait: Duration,
        room: usize,
        view: &dyn Replica,
        seq: &mut u32,
    ) -> (Overdue, Vec<Message>) {
        let due: Vec<u32> =
            self.requests.iter().filter(|(_, r)| r.deadline <= now).map(|(s, _)| *s).collect();
        let mut messages = Vec::new();
        if due.is_empty() {
            return (Overdue::No, messages);
        }
        for old in due {
            let Some(mut request) = self.requests.remove(&old) else { continue };
            if request.tries >= TRIES {
                if self.heard <= request.since {
                    return (Overdue::GiveUp, Vec::new());
                }
                request.tries = 0;
                request.since = now;
                request.rounds += 1;
                if request.rounds > ROUNDS {
                    self.whole = false;
                    continue;
                }
            } else {
                request.tries += 1;
            }
            request.deadline = now + wait * (1 << request.tries);
            let message = match &mut request.asked {
                Asked::Walk(positions) => {
                    let items = positions.iter().filter_map(|&(level, index)| {
                        let children = view.digests(self.salt, level, index)?;
                        Some(WalkItem { level, index, children })
                    });
                    self.walk(*seq, items.collect())
                }
                Asked::List(left) => {
                    let parts: Vec<(u16, u16)> = left.iter().flatten().copied().collect();
                    *left = parts.iter().map(|part| vec![*part]).collect();
                    let ranges = parts.iter().map(|&(first, last)| {
                        let tags = view.list(first, last);
                        ListRange { first, last, tags }
                    });
                    self.list(*seq, ranges.collect())
                }
            };
            if message_bytes(&message) > room {
                // Cut in pieces since, or grown: as new requests.
                if let Asked::List(left) = request.asked {
                    self.lists.extend(left.into_iter().flatten());
                }
                continue;
            }
            messages.push(message);
            self.requests.insert(*seq, request);
            *seq = seq.wrapping_add(1);
            self.pace(now);
        }
        (Overdue::Again, messages)
    }

    /// When the next request is overdue, or a new one may leave that was held back.
    pub fn deadline(&self) -> Mono {
        let requests = self.requests.values().map(|r| r.deadline);
        let held_back = self.requests.len() < WINDOW && !(self.walks.is_empty() && self.lists.is_empty());
        requests.chain(held_back.then(|| self.next_request())).min().unwrap_or(Mono::FAR)
    }
}

fn bounds(level: u8, index: u16) -> (u16, u16) {
    let range = bucket_range(level, index);
    (*range.start(), *range.end())
}

/// What is left of a part when a range is taken out.
fn without(part: (u16, u16), from: u16, to: u16) -> impl Iterator<Item = (u16, u16)> {
    let (first, last) = part;
    let apart = to < first || from > last || from > to;
    let below = (!apart && from > first).then(|| (first, from - 1));
    let above = (!apart && to < last).then(|| (to + 1, last));
    apart.then_some(part).into_iter().chain(below).chain(above)
}
