//! Suspicions: news of them, their patience, the last questions and the end (`D8`-`D12`).

use std::time::Duration;

use super::contacts::Ask;
use super::{Action, DeathNews, Detector, News};
use crate::config::DetectorRule;
use crate::member::{ACCUSERS_MAX, Accuser, Claim, Incarnation, Liveness, MemberId};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::Mono;
use crate::wire::Message;

/// Last questions (`D10`).
const QUESTIONS: u32 = 4;
/// Members without a record that probe a suspect, on average (`D8`).
const CHECKERS: f64 = 3.0;

/// One running suspicion (`D9`).
#[derive(Debug)]
struct Suspicion {
    incarnation: Incarnation,
    since: Mono,
    accusers: Vec<Accuser>,
    /// A dead claim counts as all accusers (`D12`).
    reported_dead: bool,
    /// Its claim has been spread a second time.
    reminded: bool,
    /// Questions asked in the present series.
    asked: u32,
    /// When the first of all was asked.
    asking_since: Option<Mono>,
    /// Answers I had received when the present series began.
    answers: u64,
    /// Time between two questions.
    gap: Duration,
    due: Mono,
}

impl Suspicion {
    fn claim(&self, id: MemberId) -> Claim {
        Claim {
            id,
            incarnation: self.incarnation,
            liveness: Liveness::Suspect,
            accusers: self.accusers.clone(),
        }
    }
}

/// Running suspicions, by accused.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    running: Table<MemberId, Suspicion>,
    timers: Set<(Mono, MemberId)>,
    /// Only two lived when the timers were set: one accuser is enough.
    pair: bool,
}

impl Suspicions {
    pub(super) fn contains(&self, id: MemberId) -> bool {
        self.running.contains_key(&id)
    }

    pub(super) fn incarnation(&self, id: MemberId) -> Option<Incarnation> {
        self.running.get(&id).map(|s| s.incarnation)
    }

    pub(super) fn accused_by(&self, id: MemberId, incarnation: Incarnation, accuser: MemberId) -> bool {
        self.running
            .get(&id)
            .is_some_and(|s| s.incarnation >= incarnation && s.accusers.iter().any(|a| a.id == accuser))
    }

    pub(super) fn claim(&self, id: MemberId) -> Option<Claim> {
        self.running.get(&id).map(|s| s.claim(id))
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> + '_ {
        self.running.iter().map(|(id, s)| s.claim(*id))
    }

    pub(super) fn phi(&self, id: MemberId) -> Option<f64> {
        let accusers = &self.running.get(&id)?.accusers;
        accusers.iter().map(|a| a.phi()).reduce(f64::max)
    }

    pub(super) fn remove(&mut self, id: MemberId) -> bool {
        let removed = self.running.remove(&id);
        if let Some(s) = &removed {
            self.timers.remove(&(s.due, id));
        }
        removed.is_some()
    }

    pub(super) fn deadline(&self) -> Mono {
        self.timers.first().map_or(Mono::FAR, |&(at, _)| at)
    }

    fn set_due(&mut self, id: MemberId, due: Mono) {
        if let Some(s) = self.running.get_mut(&id) {
            self.timers.remove(&(s.due, id));
            s.due = due;
            self.timers.insert((due, id));
        }
    }
}

impl Detector {
    /// Accusers that make patience short: one while only two live (`D9`).
    fn accusers_needed(&self) -> usize {
        if self.suspicions.pair { 1 } else { self.config.accusers }
    }

    pub(super) fn hear_suspicion(
        &mut self,
        now: Mono,
        claim: &Claim,
        roster: &Roster,
        rng: &mut Rng,
    ) -> News {
        self.review_pair(now, roster);
        let id = claim.id;
        // One held dead or left can be suspect only at a newer incarnation.
        let fits = roster.live(id).is_some_and(|(known, liveness)| {
            known < claim.incarnation || (known == claim.incarnation && liveness.is_living())
        });
        let buried = claim.accusers.iter().all(|a| roster.liveness(a.id) == Some(Liveness::Dead));
        if !fits || id == roster.my_id() || buried {
            return News::Old;
        }
        let accusers_max = self.config.accusers.min(ACCUSERS_MAX);
        if let Some(s) = self.suspicions.running.get_mut(&id) {
            if s.incarnation > claim.incarnation {
                return News::Old;
            }
            if s.incarnation == claim.incarnation {
                let before = s.accusers.len();
                for accuser in &claim.accusers {
                    if s.accusers.len() < accusers_max && s.accusers.iter().all(|a| a.id != accuser.id) {
                        s.accusers.push(*accuser);
                    }
                }
                if s.accusers.len() == before {
                    return News::Old;
                }
                self.set_patience(now, id);
                return News::MoreAccusers;
            }
            self.suspicions.remove(id);
        }
        self.metrics.suspicions += 1;
        let mut accusers: Vec<Accuser> = Vec::with_capacity(accusers_max);
        for accuser in &claim.accusers {
            if accusers.len() < accusers_max && accusers.iter().all(|a| a.id != accuser.id) {
                accusers.push(*accuser);
            }
        }
        let mine = accusers.iter().any(|a| a.id == roster.my_id());
        let suspicion = Suspicion {
            incarnation: claim.incarnation,
            since: now,
            accusers,
            reported_dead: false,
            reminded: false,
            asked: 0,
            asking_since: None,
            answers: 0,
            gap: Duration::ZERO,
            due: Mono::FAR,
        };
        self.suspicions.running.insert(id, suspicion);
        self.set_patience(now, id);
        // D8: whoever can tell looks for itself.
        let checks = self.edges.has_record(id) || self.checks(roster, rng);
        if !mine && checks {
            self.start_probe(now, id, claim.incarnation, None);
        }
        News::New
    }

    pub(super) fn hear_death(&mut self, now: Mono, claim: &Claim, roster: &Roster) -> DeathNews {
        let id = claim.id;
        let known = roster.live(id).filter(|(inc, l)| l.is_living() && *inc <= claim.incarnation);
        if known.is_none() || id == roster.my_id() {
            return DeathNews::Ignored;
        }
        match self.suspicions.running.get_mut(&id) {
            Some(s) if s.incarnation > claim.incarnation => DeathNews::Ignored,
            Some(s) if s.incarnation == claim.incarnation => {
                if !s.reported_dead {
                    s.reported_dead = true;
                    self.set_patience(now, id);
                }
                DeathNews::CountsAsAll
            }
            _ => {
                self.start_probe(now, id, claim.incarnation, Some(Box::new(claim.clone())));
                DeathNews::Probing
            }
        }
    }

    /// Sets when the last questions begin (`D9`, `D10`): the probe time before the patience is over. They are asked whole even
    /// if patience became short too late for them. Half of the doubled patience ends with the reminder.
    fn set_patience(&mut self, now: Mono, id: MemberId) {
        let p = self.probe_time(id);
        let patience = self.config.patience;
        let Some(s) = self.suspicions.running.get(&id).filter(|s| s.asking_since.is_none()) else { return };
        let due = if !self.wants_accusers(id) {
            s.since + patience.saturating_sub(p)
        } else if self.is_to_remind(id) {
            s.since + patience
        } else {
            s.since + (patience * 2).saturating_sub(p)
        };
        self.suspicions.set_due(id, due.max(now));
    }

    /// Has this suspicion fewer accusers than make patience short?
    fn wants_accusers(&self, id: MemberId) -> bool {
        let needed = self.accusers_needed();
        self.suspicions.running.get(&id).is_some_and(|s| !s.reported_dead && s.accusers.len() < needed)
    }

    fn is_to_remind(&self, id: MemberId) -> bool {
        self.suspicions.running.get(&id).is_some_and(|s| !s.reminded)
            && self.wants_accusers(id)
            && !self.config.lacks(DetectorRule::Reminder)
    }

    /// `D9`: one accuser's claim went round once. Who missed it would begin its patience with the death; so every member
    /// spreads it once more, and some check again.
    fn remind(&mut self, now: Mono, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let Some(s) = self.suspicions.running.get_mut(&id) else { return };
        s.reminded = true;
        let (incarnation, mine) = (s.incarnation, s.accusers.iter().any(|a| a.id == roster.my_id()));
        self.actions.push_back(Action::Remind { id });
        self.set_patience(now, id);
        if !mine && self.checks(roster, rng) {
            self.start_probe(now, id, incarnation, None);
        }
    }

    /// `D8`: does this member look for itself, without a record? Suspects are not counted on: in a split they are those whose
    /// checks nobody here would hear of.
    fn checks(&self, roster: &Roster, rng: &mut Rng) -> bool {
        let able = roster.living().saturating_sub(self.suspicions.running.len()).max(1);
        rng.chance(CHECKERS / able as f64) && !self.config.lacks(DetectorRule::Checkers)
    }

    /// Sets all patience anew when the cluster has shrunk to two, or grown from it.
    pub(super) fn review_pair(&mut self, now: Mono, roster: &Roster) {
        let pair = roster.living() <= 2;
        if pair != self.suspicions.pair {
            self.suspicions.pair = pair;
            let ids: Vec<MemberId> = self.suspicions.running.keys().copied().collect();
            ids.into_iter().for_each(|id| self.set_patience(now, id));
        }
    }

    /// A suspicion ends because the member is newer.
    pub(super) fn refuted(&mut self, now: Mono, id: MemberId) {
        if self.suspicions.remove(id) {
            self.metrics.refutations += 1;
            self.edges.probe_ended(now, id);
        }
    }

    /// Last questions and ends that are due.
    pub(super) fn run_suspicions(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        self.review_pair(now, roster);
        while let Some(&(at, id)) = self.suspicions.timers.first() {
            if at > now {
                break;
            }
            match self.suspicions.running.get(&id) {
                None => {
                    self.suspicions.timers.remove(&(at, id));
                }
                Some(s) if s.asking_since.is_none() && self.is_to_remind(id) => {
                    self.remind(now, id, roster, rng);
                }
                Some(s) if s.asked < QUESTIONS => self.ask(now, id, roster, rng),
                Some(_) => self.end_patience(now, id, roster, rng),
            }
        }
    }

    /// One of the last questions (`D10`).
    fn ask(&mut self, now: Mono, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let (p, answers) = (self.probe_time(id), self.answers);
        let phi = self.edges.phi(now, id, &self.config).unwrap_or(0.0);
        let Some(s) = self.suspicions.running.get_mut(&id) else { return };
        if s.asked == 0 {
            s.answers = answers;
            s.gap = p / QUESTIONS;
            s.asking_since.get_or_insert(now);
        }
        s.asked += 1;
        let unanswered = s.answers == answers;
        let due = now + s.gap;
        let accusers = vec![Accuser::new(roster.my_id(), phi)];
        let claim = Claim { accusers, ..s.claim(id) };
        self.suspicions.set_due(id, due);
        if self.config.lacks(DetectorRule::LastQuestions) {
            return;
        }
        self.send(id, Message::Claims(vec![claim]));
        if unanswered && let Some(other) = roster.pick_alive(rng, 1, &[id]).pop() {
            let seq = self.requests.push(now, other, Ask::Ping);
            self.send(other, Message::Ping { seq, origin: None });
        }
    }

    /// The last P is over: dead, unless I may be deaf (`D10`, `D11`, `D14`).
    fn end_patience(&mut self, now: Mono, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let Some(s) = self.suspicions.running.get_mut(&id) else { return };
        let asking_since = s.asking_since.unwrap_or(now);
        let told =
            self.config.lacks(DetectorRule::MayBeDeaf) || self.config.lacks(DetectorRule::LastQuestions);
        if s.answers == self.answers && roster.living() > 2 && !told {
            if now - self.answered_at.max(asking_since) >= self.config.alone_after {
                self.declare_alone(now, id);
                return;
            }
            s.asked = 0;
            self.ask(now, id, roster, rng);
            return;
        }
        self.suspicions.remove(id);
        self.end_probe(now, id);
        self.contacts.settle(id);
        self.metrics.deaths_declared += 1;
        self.metrics.deaths += 1;
        self.actions.push_back(Action::Declare { id });
        self.sweep(now, rng);
    }
}
