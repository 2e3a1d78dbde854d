//! Confirm (section 2.3): who holds a version already. POLL to members not yet counted, SEEN from those that hold it or a newer
//! one; nothing is sent unless somebody waits.
//!
//! The hall hands in SEEN by [`Confirm::handle_seen`] and every accepted entry by [`Confirm::handle_changed`], and drains
//! [`Confirm::poll_action`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::entry::Key;
use crate::member::MemberId;
use crate::output::{CallError, Event};
use crate::record::RumorId;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::{Mono, Now};
use crate::wire::Message;

/// Waiters at once, and members they wait for in all; more are refused at the call.
pub const WAITERS_MAX: usize = 1_024;
const AWAITED_MAX: usize = 1 << 18;
/// POLLs per second: a burst, and then one each so often. Together at most 500 in any second.
const BURST: u32 = 50;
const GAP: Duration = Duration::from_micros(2_223);
/// A round of POLLs begins so long after the last one was sent.
const AGAIN: Duration = Duration::from_millis(500);
/// More than are missing, asked in a round of `spread`.
const SPARE: usize = 3;
/// The first round waits until the rumor may have arrived: so long for each doubling of the members.
const SPREAD_STEP: Duration = Duration::from_millis(25);
/// Ids in one POLL.
const IDS_MAX: usize = 200;

/// What the hall must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A POLL, by datagram.
    Send {
        /// To.
        to: MemberId,
        /// It.
        message: Message,
    },
    /// Tell the user.
    Tell(Event),
}

/// Who has to hold it.
#[derive(Clone, PartialEq, Debug)]
pub enum Goal {
    /// So many others (`spread`).
    Any(usize),
    /// All of these; self counts too (`reached`).
    All(Set<MemberId>),
}

struct Waiter {
    key: Key,
    /// The version asked for and the newest known since: holding either is enough.
    ids: Vec<RumorId>,
    goal: Goal,
    counted: Set<MemberId>,
    /// Still to be asked in this round.
    round: Set<MemberId>,
    round_at: Mono,
    until: Mono,
}

impl Waiter {
    fn of(&self) -> usize {
        match &self.goal {
            Goal::Any(count) => *count,
            Goal::All(members) => members.len() + 1,
        }
    }

    fn count(&self) -> usize {
        self.counted.len() + usize::from(matches!(self.goal, Goal::All(_)))
    }

    fn deadline(&self, send_at: Mono) -> Mono {
        self.until.min(if self.round.is_empty() { self.round_at } else { send_at })
    }
}

/// The part.
pub struct Confirm {
    actions: VecDeque<Action>,
    waiters: Table<u64, Waiter>,
    next: u64,
    awaited: usize,
    tokens: u32,
    filled: Mono,
    /// Whose turn it is.
    turn: u64,
    polls_sent: u64,
    seen_received: u64,
}

impl Confirm {
    /// Nobody waits.
    pub fn new(now: Now) -> Confirm {
        Confirm {
            actions: VecDeque::new(),
            waiters: Table::new(),
            next: 0,
            awaited: 0,
            tokens: BURST,
            filled: now.mono,
            turn: 0,
            polls_sent: 0,
            seen_received: 0,
        }
    }

    /// Waits until `goal` holds the key in one of these versions, or a newer one; [`Event::Confirmed`] follows. `age`: of the
    /// version, by the own wall clock.
    ///
    /// # Errors
    /// [`CallError::TooMany`].
    pub fn wait(
        &mut self,
        now: Now,
        key: Key,
        ids: Vec<RumorId>,
        goal: Goal,
        age: Duration,
        timeout: Duration,
        roster: &Roster,
    ) -> Result<u64, CallError> {
        let awaited = match &goal {
            Goal::Any(count) => *count,
            Goal::All(members) => members.len(),
        };
        if self.waiters.len() >= WAITERS_MAX || self.awaited + awaited > AWAITED_MAX {
            return Err(CallError::TooMany { what: "waits for confirmation", max: WAITERS_MAX });
        }
        let number = self.next;
        self.next += 1;
        self.awaited += awaited;
        let doublings = usize::BITS - roster.living().leading_zeros();
        let round_at = now.mono + (SPREAD_STEP * doublings).saturating_sub(age);
        let until = now.mono + timeout;
        let (counted, round) = (Set::new(), Set::new());
        self.waiters.insert(number, Waiter { key, ids, goal, counted, round, round_at, until });
        self.end_if_done(number);
        Ok(number)
    }

    /// Nobody waits for this any more.
    pub fn cancel(&mut self, number: u64) {
        self.remove(number);
    }

    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.awaited -= match &waiter.goal {
            Goal::Any(count) => *count,
            Goal::All(members) => members.len(),
        };
        Some(waiter)
    }

    fn end_if_done(&mut self, number: u64) {
        if self.waiters.get(&number).is_some_and(|w| w.count() >= w.of()) {
            self.end(number);
        }
    }

    fn end(&mut self, number: u64) {
        if let Some(waiter) = self.remove(number) {
            let (count, of) = (waiter.count() as u64, waiter.of() as u64);
            self.actions.push_back(Action::Tell(Event::Confirmed { waiter: number, count, of }));
        }
    }

    /// An entry was written or accepted here: who waits for an older version of its key is content with this one.
    pub fn handle_changed(&mut self, key: &Key, id: impl Fn() -> RumorId) {
        for waiter in self.waiters.values_mut().filter(|w| w.key == *key) {
            waiter.ids.truncate(1);
            waiter.ids.push(id());
        }
    }

    /// A member holds these.
    pub fn handle_seen(&mut self, from: MemberId, ids: &[RumorId]) {
        let mut done = Vec::new();
        let seen = &mut self.seen_received;
        self.waiters.for_each_mut(|&number, waiter| {
            let wanted = match &waiter.goal {
                Goal::Any(_) => true,
                Goal::All(members) => members.contains(&from),
            };
            if wanted && waiter.ids.iter().any(|id| ids.contains(id)) && waiter.counted.insert(from) {
                *seen += 1;
                waiter.round.remove(&from);
                done.push(number);
            }
        });
        for number in done {
            self.end_if_done(number);
        }
    }

    fn send_at(&self) -> Mono {
        if self.tokens > 0 { self.filled } else { self.filled + GAP }
    }

    /// When [`Confirm::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        let send_at = self.send_at();
        self.waiters.values().map(|w| w.deadline(send_at)).min().unwrap_or(Mono::FAR)
    }

    /// Ends what is over, begins rounds and sends what may be sent now.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let gained = now.mono.since(self.filled).as_nanos() / GAP.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(gained).min(BURST);
        self.filled = if self.tokens == BURST { now.mono } else { self.filled + GAP * gained };
        let over: Vec<u64> =
            self.waiters.iter().filter(|(_, w)| w.until <= now.mono).map(|(number, _)| *number).collect();
        for number in over {
            self.end(number);
        }
        self.waiters.for_each_mut(|_, waiter| {
            if !waiter.round.is_empty() || waiter.round_at > now.mono {
                return;
            }
            waiter.round_at = now.mono + AGAIN;
            let counted = &waiter.counted;
            waiter.round = match &waiter.goal {
                Goal::Any(count) => {
                    let missing = count.saturating_sub(counted.len());
                    let others = roster.pick(rng, missing + SPARE, |id| !counted.contains(&id));
                    others.into_iter().filter(|id| roster.is_living(*id)).collect()
                }
                Goal::All(members) => members.iter().filter(|id| !counted.contains(id)).copied().collect(),
            };
        });
        while self.tokens > 0 {
            let Some((to, ids)) = self.next_poll(now.mono) else { break };
            self.tokens -= 1;
            self.polls_sent += 1;
            self.actions.push_back(Action::Send { to, message: Message::Poll(ids) });
        }
    }

    /// The next member to ask, with what all waiters want to know of it.
    fn next_poll(&mut self, now: Mono) -> Option<(MemberId, Vec<RumorId>)> {
        let has_round = |(number, w): (&u64, &Waiter)| w.round.first().map(|to| (*number, *to));
        let turn = self.waiters.range(self.turn..).find_map(has_round);
        let (number, to) = turn.or_else(|| self.waiters.iter().find_map(has_round))?;
        self.turn = number + 1;
        let mut ids: Vec<RumorId> = Vec::new();
        let mut is_full = false;
        self.waiters.for_each_mut(|_, waiter| {
            if is_full || !waiter.round.contains(&to) {
                return;
            }
            is_full = ids.len() + waiter.ids.len() > IDS_MAX;
            if is_full {
                return;
            }
            waiter.round.remove(&to);
            waiter.round_at = now + AGAIN;
            ids.extend(waiter.ids.iter().copied().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
        });
        Some((to, ids))
    }

    /// Next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Those who wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// POLLs sent, and SEENs that counted.
    pub fn counts(&self) -> [u64; 2] {
        [self.polls_sent, self.seen_received]
    }
}
