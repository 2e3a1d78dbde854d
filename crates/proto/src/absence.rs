//! Who has been away for too long (`S7`): what I have heard of every member, and whose old entries may still be believed.
//!
//! A tombstone is forgotten G after its stamp, so a copy of the deleted value that has not met it by then would come back.
//! Entries younger than G/2 can meet every tombstone there ever was of them: they move freely. Older ones move only between
//! members that have *heard* of each other lately.
//!
//! `heard` of a member is the newest second T of which I know everything that it knew. Of the living it is my newest match
//! with anybody (an equal entry root at T, a whole session), as whoever is alive here is synchronised by the same matches;
//! it stands still from the moment a member is lost until I match with that very member again. So one number serves all
//! that live, and only the lost, the returned and strangers take memory. (Matches of every single pair would be G/2 apart
//! from some 10,000 members on, and a heal would take thousands of healthy members for absent ones.)
//!
//! A new id is a stranger until I match with it, or with one that did, by its table: whoever passes on a newcomer's record
//! cannot know from which side it pulled what it holds.

use std::time::Duration;

use crate::config::Config;
use crate::member::MemberId;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::{Mono, Now, Second, Stamp, Wall};
use crate::wire::Message;

/// HEARDs under way, and members cleared by one but not yet matched.
const PENDING_MAX: usize = 16;
/// A HEARD without an answer is sent again after this.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A HEARD that comes within this after mine to its sender is not answered: it is an answer itself, if a late one.
const ANSWER_GAP: Duration = Duration::from_secs(2);
/// Members whose last HEARD is remembered.
const SENT_MAX: usize = 256;
/// After HEARDs without conflict entries may move for this long until a match says so for good.
const CLEARED_FOR: Duration = Duration::from_secs(60);
/// Members heard of at all, whoever is living apart; the one heard longest ago goes.
const FROZEN_MAX: usize = 16_384;
/// Bytes of a HEARD besides its table, and of one line of it.
const HEAD_BYTES: usize = 5 + 2 * 12;
const LINE_BYTES: usize = 12;

/// What one side says: how many live and were heard lately, since when it knows of anything, and what it heard of whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The oldest thing it knows, or may have known, is of this second. On the wire: a second line of the sender itself.
    pub began: Second,
    /// Since when it has been up, or whoever's past it took over: a third line. Not the start of its run, which a rejoin renews.
    pub up: Second,
    /// Living members heard of within G/2, self included.
    pub living: u16,
    /// By id.
    pub table: Table<MemberId, Second>,
}

/// What two HEARDs together mean, for the side that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not to be said yet: I am pulling from somebody else.
    Later,
    /// No conflict: entries may move.
    Agree,
    /// Conflict, and the other side drops its old entries.
    Win,
    /// Conflict, and I do.
    Lose,
}

impl Told {
    /// As it came from this member.
    pub fn from_wire(from: MemberId, living: u16, lines: &[(MemberId, Second)]) -> Told {
        let mut own: Vec<Second> =
            lines.iter().filter(|(id, _)| *id == from).take(3).map(|(_, t)| *t).collect();
        own.sort();
        let began = own.first().copied().unwrap_or_default();
        let up = if own.len() == 3 { own[1] } else { began };
        let mut table = Table::new();
        for &(id, t) in lines {
            let known = table.or_insert_with(id, || t);
            *known = t.max(*known);
        }
        Told { living, began, up, table }
    }

    /// Said by one that takes over a past, and knows nothing till then: of nobody but itself, and since now.
    fn takes_over(&self) -> bool {
        self.table.len() <= 1 && self.table.values().all(|now| *now == self.began)
    }

    fn message(&self, me: MemberId) -> Message {
        let lines = self.table.iter().map(|(id, t)| (*id, *t));
        Message::Heard {
            living: self.living,
            table: [(me, self.began), (me, self.up)].into_iter().chain(lines).collect(),
        }
    }
}

/// Compares what both sides told (`S7`). A conflict: what they heard of some member known to both lies more than G/2 apart; or
/// both go back further than that and know nobody in common, or nobody whom both heard within G/2 while one of them has been up
/// for longer, or went down more than G/8 before the other (members that were all down deleted nothing). The side with fewer living
/// members loses; of equal ones, the side without the smallest id among those that only one side has heard of lately. Both ends
/// come to the same end.
pub fn compare(me: MemberId, mine: &Told, peer: MemberId, theirs: &Told, half_secs: u32) -> Verdict {
    let now = mine.table.get(&me).max(theirs.table.get(&peer)).copied().unwrap_or_default();
    let before = now.minus(half_secs);
    let common: Vec<(Second, Second)> =
        mine.table.iter().filter_map(|(id, &t)| Some((t, *theirs.table.get(id)?))).collect();
    let apart = common.iter().any(|(a, b)| a.0.abs_diff(b.0) > half_secs);
    let joint = common.iter().any(|(a, b)| *a.min(b) >= before);
    let together =
        mine.up.min(theirs.up) >= before && common.iter().all(|(a, b)| a.0.abs_diff(b.0) <= half_secs / 4);
    let strange = common.is_empty() || (!joint && !together);
    let conflict = apart || (strange && mine.began < before && theirs.began < before);
    if !conflict {
        return Verdict::Agree;
    }
    let lately = |told: &Told, id: &MemberId| told.table.get(id).is_some_and(|t| *t >= before);
    let smallest = |of: &Told, other: &Told| {
        of.table.keys().find(|id| lately(of, id) && !lately(other, id)).copied().unwrap_or(MemberId(u64::MAX))
    };
    let own = (mine.living, smallest(theirs, mine), peer);
    let other = (theirs.living, smallest(mine, theirs), me);
    if own > other { Verdict::Win } else { Verdict::Lose }
}

struct Asked {
    at: Mono,
    told: Told,
}

/// The part.
pub struct Absence {
    enabled: bool,
    half_secs: u32,
    near_secs: u32,
    silence_secs: u32,
    table_max: usize,
    newest: Second,
    /// The oldest thing I know, or may have known.
    began: Second,
    /// See [`Told::up`].
    up: Second,
    /// Since when what I know is my own: the start, or the last rejoin.
    since: Second,
    /// What I heard of members that are lost, or back but not matched since.
    frozen: Table<MemberId, Second>,
    /// Living members of whom I know nothing.
    strangers: Set<MemberId>,
    asked: Table<MemberId, Asked>,
    cleared: Table<MemberId, (Mono, Told)>,
    sent: Table<MemberId, Mono>,
    /// I hold nothing old that this PULL did not bring, until what I held as it began can have met its tombstones no more.
    fresh: bool,
    fresh_until: Second,
    /// Whom I pull from, until the PULL is over and its table taken over: till then I cannot tell others what I know.
    source: Option<MemberId>,
    pulling: bool,
    /// The source's table is still to be taken over; a short PULL is complete before its HEARD comes.
    takes_over: bool,
}

impl Absence {
    /// Nothing heard of anybody; holding nothing, I know all there was up to now.
    pub fn new(config: &Config, now: Now) -> Absence {
        let secs = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        let detector = &config.detector;
        let room = config.frame_bytes_max().min(1 << 20).saturating_sub(1_024 + HEAD_BYTES);
        Absence {
            enabled: config.anti_entropy.absence,
            half_secs: secs(config.tombstone_lifetime) / 2,
            near_secs: secs(config.tombstone_lifetime) / 8,
            silence_secs: secs(detector.patience * 2 + detector.beat_period * 2),
            table_max: room / LINE_BYTES,
            newest: now.wall.second(),
            began: now.wall.second(),
            up: now.wall.second(),
            since: now.wall.second(),
            frozen: Table::new(),
            strangers: Set::new(),
            asked: Table::new(),
            cleared: Table::new(),
            sent: Table::new(),
            fresh: true,
            fresh_until: now.wall.second().plus(secs(config.tombstone_lifetime) / 4),
            source: None,
            pulling: false,
            takes_over: false,
        }
    }

    /// Is a stamp so old that its entry moves only between members that have heard of each other?
    pub fn is_old(&self, now: Now, stamp: Stamp) -> bool {
        self.enabled && stamp.second() <= now.wall.second().minus(self.half_secs)
    }

    /// The newest stamp that [`Absence::is_old`] holds for.
    pub fn old_until(&self, now: Now) -> Stamp {
        let next = now.wall.second().minus(self.half_secs).plus(1);
        Stamp(Stamp::at(Wall(u64::from(next.0) * 1_000)).0.saturating_sub(1))
    }

    /// What I heard of a member; none: nothing.
    pub fn heard(&self, now: Now, id: MemberId, roster: &Roster) -> Option<Second> {
        if id == roster.my_id() {
            Some(now.wall.second())
        } else if let Some(&t) = self.frozen.get(&id) {
            Some(t)
        } else if !roster.is_living(id) || self.strangers.contains(&id) {
            None
        } else {
            Some(self.newest)
        }
    }

    fn is_within(&self, now: Now, t: Second, secs: u32) -> bool {
        t >= now.wall.second().minus(secs)
    }

    /// May entries of any age move between this member and me? Heard of within G/8, or cleared by HEARDs.
    pub fn is_near(&self, now: Now, id: MemberId, roster: &Roster) -> bool {
        !self.enabled
            || self.cleared.get(&id).is_some_and(|(until, _)| now.mono <= *until)
            || self.heard(now, id, roster).is_some_and(|t| self.is_within(now, t, self.near_secs))
    }

    /// May an old entry from this member be taken? `page`: it came with a PULL.
    pub fn believes(&self, now: Now, from: MemberId, page: bool, roster: &Roster) -> bool {
        (page && self.fresh && now.wall.second() <= self.fresh_until) || self.is_near(now, from, roster)
    }

    /// An entry comparison at T with this member was equal, or a session with it completed.
    pub fn handle_match(&mut self, now: Now, peer: MemberId, settled: Second, roster: &Roster) {
        let settled = settled.min(now.wall.second());
        if self.enabled && !self.is_within(now, self.newest, self.near_secs) {
            self.stand_still(roster);
        }
        self.frozen.remove(&peer);
        self.strangers.remove(&peer);
        if !roster.is_living(peer) {
            // What one that stands still had sent before.
            self.freeze(peer, settled, roster);
        }
        self.newest = self.newest.max(settled);
        if let Some((_, told)) = self.cleared.remove(&peer) {
            self.adopt(now, &told, roster);
        }
    }

    /// I myself was away: whom I still take for living may be lost by now, and the next match speaks for one only.
    fn stand_still(&mut self, roster: &Roster) {
        let unsure = roster.living_ids().filter(|id| *id != roster.my_id() && !self.strangers.contains(id));
        let unsure: Vec<MemberId> = unsure.filter(|id| !self.frozen.contains_key(id)).collect();
        unsure.into_iter().for_each(|id| self.freeze(id, self.newest, roster));
    }

    /// I know what this table's owner knew.
    fn adopt(&mut self, now: Now, told: &Told, roster: &Roster) {
        self.began = self.began.min(told.began);
        self.up = self.up.min(told.up);
        for (&id, &t) in told.table.iter().filter(|(id, _)| **id != roster.my_id()) {
            if roster.is_living(id) && self.is_within(now, t, self.near_secs) {
                self.strangers.remove(&id);
                self.frozen.remove(&id);
            } else if self.frozen.get(&id).is_none_or(|own| *own < t)
                && (!roster.is_living(id) || self.frozen.contains_key(&id) || self.strangers.remove(&id))
            {
                self.freeze(id, t, roster);
            }
        }
    }

    fn freeze(&mut self, id: MemberId, t: Second, roster: &Roster) {
        if self.frozen.len() >= FROZEN_MAX && !self.frozen.contains_key(&id) {
            let oldest = self.frozen.iter().min_by_key(|(_, t)| **t).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.frozen.remove(&oldest);
                if roster.is_living(oldest) {
                    self.strangers.insert(oldest);
                }
            }
        }
        self.frozen.insert(id, t);
    }

    /// An entry of this stamp is mine from now on.
    pub fn handle_taken(&mut self, stamp: Stamp) {
        self.began = self.began.min(stamp.second());
    }

    /// A member lives that did not before: a stranger, unless I had heard of it.
    pub fn handle_new(&mut self, id: MemberId) {
        if self.enabled && !self.frozen.contains_key(&id) {
            self.strangers.insert(id);
        }
    }

    /// A member was lost: what I heard of it stands still, from before its silence began.
    pub fn handle_gone(&mut self, now: Now, id: MemberId, roster: &Roster) {
        self.asked.remove(&id);
        self.cleared.remove(&id);
        self.do_without(id);
        if !self.enabled || self.strangers.remove(&id) || self.frozen.contains_key(&id) {
            return;
        }
        let before = now.wall.second().minus(self.silence_secs);
        self.freeze(id, self.newest.min(before), roster);
    }

    /// A run is over, or a member is forgotten: its id means nothing any more.
    pub fn handle_forgotten(&mut self, id: MemberId) {
        self.frozen.remove(&id);
        self.strangers.remove(&id);
        self.asked.remove(&id);
        self.cleared.remove(&id);
        self.do_without(id);
    }

    /// Have I been here for so long that I may have seen deletes whose tombstones are gone?
    pub fn goes_back(&self, now: Now) -> bool {
        self.enabled && !self.is_within(now, self.since, self.half_secs)
    }

    /// A PULL of entries begins; `old`: I hold entries older than G/2, or go back that far. If not, I take over my source's past with its entries,
    /// and nothing I heard before counts: of what it brings I know no deletes.
    pub fn handle_pull(&mut self, now: Now, from: MemberId, old: bool, roster: &Roster) {
        self.fresh = !old;
        self.fresh_until = now.wall.second().plus(self.half_secs / 2);
        self.takes_over = !old;
        if !old {
            self.frozen.clear();
            self.asked.clear();
            self.cleared.clear();
            self.strangers = roster.living_ids().filter(|id| *id != roster.my_id()).collect();
            self.newest = now.wall.second();
            self.began = self.began.max(now.wall.second().minus(self.half_secs.saturating_add(1)));
            self.up = now.wall.second();
            self.since = self.up;
        }
        self.handle_source(from);
    }

    /// The PULL goes on at this member.
    pub fn handle_source(&mut self, from: MemberId) {
        self.source = Some(from);
        self.pulling = true;
    }

    /// Lists are complete, or there was nobody to ask: what I hold from now on is my own.
    pub fn handle_joined(&mut self) {
        self.fresh = false;
        self.pulling = false;
        self.settle();
    }

    /// This member's table cannot be had. If it was my source I know nobody then, and if what I hold goes far back the next I
    /// meet decides.
    fn do_without(&mut self, id: MemberId) {
        if self.source == Some(id) {
            self.takes_over &= self.pulling;
            self.settle();
        }
    }

    fn settle(&mut self) {
        if !self.pulling && !self.takes_over {
            self.source = None;
        }
    }

    /// Do I know nothing but what my source tells? A PULL that hangs for long leaves entries that have grown old meanwhile.
    fn does_take_over(&self, now: Now) -> bool {
        self.takes_over && now.wall.second() <= self.fresh_until
    }

    /// With whom HEARDs are exchanged when this member is met: with my source and nobody else while there is one.
    pub fn counterpart(&self, met: MemberId) -> MemberId {
        self.source.unwrap_or(met)
    }

    /// All that I heard, for HEARD and for storage: self first, the lately heard, then the others as far as a frame goes.
    pub fn told(&self, now: Now, roster: &Roster) -> Told {
        let living = roster.living_ids();
        let living = living.filter_map(|id| Some((id, self.heard(now, id, roster)?)));
        let lately = living.filter(|(_, t)| self.is_within(now, *t, self.half_secs));
        let mut table: Table<MemberId, Second> = lately.take(self.table_max).collect();
        let count = u16::try_from(table.len()).unwrap_or(u16::MAX);
        table.insert(roster.my_id(), now.wall.second());
        let rest = roster.living_ids().filter_map(|id| Some((id, self.heard(now, id, roster)?)));
        for (id, t) in self.frozen.iter().map(|(id, t)| (*id, *t)).chain(rest) {
            if table.len() >= self.table_max {
                break;
            }
            table.or_insert_with(id, || t);
        }
        // What a PULL brings is its source's, and only the source is told meanwhile.
        let empty = self.does_take_over(now);
        let of = |t: Second| if empty { now.wall.second() } else { t.min(now.wall.second()) };
        Told { living: count, began: of(self.began), up: of(self.up), table }
    }

    /// Takes up what an earlier run on this storage had heard.
    pub fn restore(&mut self, table: &[(MemberId, Second)], roster: &Roster) {
        for &(id, t) in table.iter().take(FROZEN_MAX) {
            self.freeze(id, t, roster);
        }
    }

    /// HEARD to a member with whom entries may not move yet; none while one is under way.
    pub fn ask(&mut self, now: Now, peer: MemberId, roster: &Roster) -> Option<Message> {
        let unanswered = |asked: &Asked| asked.at + ASK_AGAIN <= now.mono;
        if self.asked.get(&peer).is_some_and(unanswered) {
            self.do_without(peer);
        }
        self.asked.retain(|_, asked| !unanswered(asked));
        if !self.enabled || self.asked.contains_key(&peer) || self.asked.len() >= PENDING_MAX {
            return None;
        }
        let told = self.told(now, roster);
        let message = told.message(roster.my_id());
        self.note_sent(now, peer);
        self.asked.insert(peer, Asked { at: now.mono, told });
        Some(message)
    }

    fn note_sent(&mut self, now: Now, peer: MemberId) {
        self.sent.retain(|_, at| *at + ANSWER_GAP > now.mono);
        if self.sent.len() < SENT_MAX {
            self.sent.insert(peer, now.mono);
        }
    }

    /// A HEARD could not be sent.
    pub fn handle_send_failed(&mut self, peer: MemberId) {
        self.asked.remove(&peer);
        self.do_without(peer);
    }

    /// A HEARD: what it means, and the answer if I had not asked.
    pub fn handle_heard(
        &mut self,
        now: Now,
        from: MemberId,
        theirs: Told,
        roster: &Roster,
    ) -> (Verdict, Option<Message>) {
        if !self.enabled || self.counterpart(from) != from {
            return (Verdict::Later, None);
        }
        let asked = self.asked.remove(&from);
        let lately = self.sent.get(&from).is_some_and(|&at| at + ANSWER_GAP > now.mono);
        let answer = asked.is_none() && !lately && self.sent.len() < SENT_MAX;
        let mine = asked.map_or_else(|| self.told(now, roster), |asked| asked.told);
        let reply = answer.then(|| mine.message(roster.my_id()));
        if answer {
            self.note_sent(now, from);
        }
        let verdict = match self.does_take_over(now) {
            true => Verdict::Agree,
            false => compare(roster.my_id(), &mine, from, &theirs, self.half_secs),
        };
        if verdict == Verdict::Agree {
            self.clear(now, from, theirs, roster);
        }
        (verdict, reply)
    }

    fn clear(&mut self, now: Now, from: MemberId, theirs: Told, roster: &Roster) {
        if self.does_take_over(now) && self.source == Some(from) {
            self.takes_over = false;
            // Whoever holds nothing old but what this member gives knows what it knows.
            let newest = theirs.table.iter().filter(|(id, _)| **id != from).map(|(_, t)| *t).max();
            let own = theirs.table.get(&from).copied();
            self.newest = newest.or(own).unwrap_or(self.newest).min(now.wall.second());
            // Whoever agreed with me before agreed with one who knew nothing.
            self.cleared.clear();
            self.adopt(now, &theirs, roster);
            // It heard from me before I knew anything, and will ask again.
            self.sent.remove(&from);
            // The others may have been lost to it long ago; it itself was heard just now.
            if let Some(own) = own.filter(|own| *own > self.newest) {
                self.freeze(from, own.min(now.wall.second()), roster);
            }
            self.settle();
            return;
        }
        self.cleared.retain(|_, (until, _)| now.mono <= *until);
        if theirs.takes_over() {
            // It will hold another's past, which I have not agreed with.
            return;
        }
        if self.cleared.len() >= PENDING_MAX && !self.cleared.contains_key(&from) {
            let first = self.cleared.iter().min_by_key(|(_, (until, _))| *until).map(|(id, _)| *id);
            first.and_then(|id| self.cleared.remove(&id));
        }
        self.cleared.insert(from, (now.mono + CLEARED_FOR, theirs));
    }

    /// Sizes of the tables that peers can fill, with their limits.
    pub fn tables(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("HEARDs sent", self.sent.len(), SENT_MAX),
            ("heard", self.frozen.len(), FROZEN_MAX),
            ("HEARDs under way", self.asked.len(), PENDING_MAX),
            ("members cleared", self.cleared.len(), PENDING_MAX),
        ]
    }

    /// Members of whom nothing is known; no more than members there are.
    pub fn unmatched(&self) -> usize {
        self.strangers.len()
    }
}

#[cfg(test)]
mod tests;
