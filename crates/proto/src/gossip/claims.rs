//! Liveness: claims, refutation (`D13`), and what follows from any change of a member.

use std::time::Duration;

use super::{Gossip, Leave, TIMES_MAX};
use crate::budget::Class;
use crate::detector::News;
use crate::member::{Accuser, Claim, INCARNATION_JUMP_MAX, Incarnation, Liveness, Member, MemberId};
use crate::output::Event;
use crate::time::{Mono, Now};
use crate::wire::Message;

/// Least time between two claims sent to a member held suspect, dead or left (`D13`).
const NOTICE_GAP: Duration = Duration::from_millis(200);
/// How long sessions are quick after somebody held dead came back (`S2`).
pub(super) const QUICK_AFTER_REVIVAL: Duration = Duration::from_secs(60);

impl Gossip {
    /// One claim, from a rumor, a datagram, a page or a session.
    pub(super) fn handle_claim(&mut self, now: Now, from: MemberId, claim: &Claim) {
        if claim.id == self.roster.my_id() {
            self.handle_claim_about_me(now, from, claim);
            return;
        }
        let Some((incarnation, liveness)) = self.roster.live(claim.id) else { return };
        match claim.liveness {
            Liveness::Alive | Liveness::Left => self.merge_live(now, claim),
            Liveness::Suspect => {
                if claim.incarnation < incarnation
                    || (claim.incarnation == incarnation && !liveness.is_living())
                {
                    return;
                }
                if self.accusers_all_dead(claim) || self.jumps(claim, incarnation) {
                    return;
                }
                self.handle_suspicion(now, claim);
            }
            Liveness::Dead => {
                if claim.incarnation < incarnation || !liveness.is_living() || self.accusers_all_dead(claim) {
                    return;
                }
                if !self.jumps(claim, incarnation) {
                    self.detector.handle_death_report(now, claim, &self.roster, &mut self.rng);
                }
            }
        }
    }

    fn jumps(&mut self, claim: &Claim, known: Incarnation) -> bool {
        let jumps = claim.incarnation.0 > known.0.saturating_add(INCARNATION_JUMP_MAX);
        self.traffic.records_refused += u64::from(jumps);
        jumps
    }

    /// Does the claim name accusers, and do I hold all of them dead?
    fn accusers_all_dead(&self, claim: &Claim) -> bool {
        !claim.accusers.is_empty()
            && claim.accusers.iter().all(|a| self.roster.liveness(a.id) == Some(Liveness::Dead))
    }

    fn merge_live(&mut self, now: Now, claim: &Claim) {
        match self.roster.merge_live(now.mono, claim.id, claim.incarnation, claim.liveness) {
            Ok(Some(was)) => {
                self.rumors.put_claim(now, claim.clone(), &mut self.rng);
                self.member_changed(now, claim.id, Some(was));
            }
            Ok(None) => {}
            Err(_) => self.traffic.records_refused += 1,
        }
    }

    /// `D8`, also for my own accusations.
    pub(super) fn handle_suspicion(&mut self, now: Now, claim: &Claim) {
        let news = self.detector.handle_suspicion(now, claim, &self.roster, &mut self.rng);
        if news == News::Old {
            return;
        }
        let was = self.roster.merge_live(now.mono, claim.id, claim.incarnation, Liveness::Suspect);
        if let Some(hot) = self.detector.claim_of(claim.id) {
            self.rumors.put_claim(now, hot, &mut self.rng);
        }
        if let Ok(Some(was)) = was {
            self.member_changed(now, claim.id, Some(was));
        }
    }

    /// `D13`: a suspect or dead claim about my id at my incarnation or above, or an alive one above mine, is refuted.
    fn handle_claim_about_me(&mut self, now: Now, from: MemberId, claim: &Claim) {
        if self.leave != Leave::No {
            return;
        }
        let mine = self.roster.me().incarnation;
        let accusing = claim.liveness != Liveness::Alive;
        let refute = if accusing { claim.incarnation >= mine } else { claim.incarnation > mine };
        if refute {
            if self.jumps(claim, mine) {
                return;
            }
            self.hall.refuted_self += 1;
            if claim.liveness == Liveness::Dead {
                self.back_at = Some(now.mono);
            }
            let next = claim.incarnation.next();
            self.roster.update_me(now.mono, |me| me.incarnation = next);
            let alive = self.alive_claim();
            self.rumors.put_claim(now, alive.clone(), &mut self.rng);
            self.post_claim(from, alive.clone());
            for accuser in claim.accusers.iter().filter(|a| a.id != from) {
                self.post_claim(accuser.id, alive.clone());
            }
        } else if accusing {
            let alive = self.alive_claim();
            self.post_claim(from, alive.clone());
            if let Some(accuser) =
                claim.accusers.first().filter(|a| claim.liveness == Liveness::Dead && a.id != from)
            {
                self.post_claim(accuser.id, alive);
            }
        }
    }

    /// What I say of myself.
    pub(super) fn alive_claim(&self) -> Claim {
        let me = self.roster.me();
        Claim::plain(me.id(), me.incarnation, me.liveness)
    }

    /// What I say of a member I hold suspect, dead or left; none if it is alive or unknown.
    pub(super) fn accusation_of(&self, id: MemberId) -> Option<Claim> {
        let (incarnation, liveness) = self.roster.live(id)?;
        let me = || vec![Accuser::new(self.roster.my_id(), 0.0)];
        match liveness {
            Liveness::Alive => None,
            Liveness::Suspect => self.detector.claim_of(id),
            Liveness::Dead => Some(Claim { id, incarnation, liveness, accusers: me() }),
            Liveness::Left => Some(Claim::plain(id, incarnation, liveness)),
        }
    }

    /// `D13`: a member I hold suspect, dead or left has sent something: it is told so, at most each 200 ms.
    pub(super) fn notice(&mut self, now: Now, id: MemberId) {
        if let Some(claim) = self.accusation_of(id)
            && self.notices.due(id, now.mono, NOTICE_GAP)
        {
            self.post_claim(id, claim);
        }
    }

    /// The live part of a member changed from `was` (none: it is new): parts and users are told.
    pub(super) fn member_changed(&mut self, now: Now, id: MemberId, was: Option<Liveness>) {
        self.detector.handle_member(now, id, &self.roster, &mut self.rng);
        let Some(member) = self.roster.get(id) else { return };
        if was.is_none_or(|was| !was.is_living()) && member.liveness.is_living() {
            self.absence.handle_new(id);
        }
        if !member.liveness.is_living() {
            self.absence.handle_gone(now, id, &self.roster);
            self.forget(now, id);
        }
        // Alive again, at a newer incarnation if it is accused anew: two changes in one.
        let again = Member { liveness: Liveness::Alive, ..member.clone() };
        match was {
            Some(Liveness::Dead) if member.liveness.is_living() => {
                self.hall.revived += 1;
                self.note_back(now, id);
                self.detector.handle_revival(now, &mut self.rng);
                let before = self.sync_metrics();
                self.heal.begin(now.mono, member.name().clone(), before);
                self.tell(Event::MemberRevived(again));
            }
            Some(Liveness::Left) if member.liveness.is_living() => self.tell(Event::MemberRevived(again)),
            Some(Liveness::Suspect) if member.liveness.is_living() => self.tell(Event::MemberRefuted(again)),
            None if member.liveness.is_living() => self.tell(Event::MemberJoined(again)),
            _ => {}
        }
        let event = match (was, member.liveness) {
            (_, Liveness::Suspect) => Event::MemberSuspected(member),
            (_, Liveness::Dead) => {
                self.hall.deaths += 1;
                Event::MemberDied(member)
            }
            (Some(Liveness::Alive | Liveness::Suspect | Liveness::Dead), Liveness::Left) => {
                Event::MemberLeft(member)
            }
            // One never seen living that has left, or one that had left: nobody cares.
            (_, Liveness::Left | Liveness::Alive) => return,
        };
        self.tell(event);
    }

    /// The member died, left, was retired or forgotten: what waits for it ends.
    pub(super) fn forget(&mut self, now: Now, id: MemberId) {
        self.sync.handle_gone(now, id);
        self.join.handle_gone(now, id);
        self.clock.forget(id);
        self.beaten.retain(|(to, _), _| *to != id);
    }

    /// This member came back, or may be compared with again: sessions are quick for a minute.
    pub(super) fn note_back(&mut self, now: Now, id: MemberId) {
        self.back_at = Some(now.mono);
        self.revived.retain(|_, at| *at + QUICK_AFTER_REVIVAL > now.mono);
        if self.revived.len() >= TIMES_MAX && !self.revived.contains_key(&id) {
            let oldest = self.revived.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id);
            oldest.and_then(|id| self.revived.remove(&id));
        }
        self.revived.insert(id, now.mono);
    }

    /// Sessions start at once (`S2`), with whomever: within a minute somebody held dead came back, or I did, or I joined within ten
    /// seconds. What a heal brings one member the others of its side lack, too.
    pub(super) fn is_quick(&self, now: Now) -> bool {
        let within = |at: Option<Mono>, time: Duration| at.is_some_and(|at| at + time > now.mono);
        within(self.back_at, QUICK_AFTER_REVIVAL) || within(self.joined_at, Duration::from_secs(10))
    }

    /// A verdict of the detector at the known incarnation.
    pub(super) fn declare(&mut self, now: Now, id: MemberId, liveness: Liveness, hot: bool) {
        // Since the verdict the member may have left, or come back by itself.
        let stands = match self.roster.liveness(id) {
            Some(was) if liveness == Liveness::Dead => was.is_living(),
            was => was == Some(Liveness::Dead),
        };
        if !stands {
            return;
        }
        let Some(was) = self.roster.set_liveness(now.mono, id, liveness) else { return };
        if liveness == Liveness::Dead
            && let Some(address) = self.roster.profile(id).map(|p| p.address)
        {
            self.transfer.handle_dead(now, address, &self.roster);
        }
        if hot && let Some(claim) = self.accusation_of(id) {
            self.rumors.put_claim(now, claim, &mut self.rng);
        }
        self.member_changed(now, id, Some(was));
    }

    /// `D7`: my own accusation, spread and told to the accused.
    pub(super) fn accuse(&mut self, now: Now, id: MemberId, phi: f64) {
        let Some((incarnation, liveness)) = self.roster.live(id) else { return };
        if !liveness.is_living() {
            return;
        }
        let accusers = vec![Accuser::new(self.roster.my_id(), phi)];
        let claim = Claim { id, incarnation, liveness: Liveness::Suspect, accusers };
        self.handle_suspicion(now, &claim);
        self.post(id, Message::Claims(vec![claim]), Class::Detector);
    }
}
