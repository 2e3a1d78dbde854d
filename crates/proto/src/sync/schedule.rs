//! When a session starts (`S2`, `S3`): a difference is confirmed, then jitter, one at a time, gap, hold-off.

use std::time::Duration;

use super::Comparison;
use crate::config::AntiEntropy;
use crate::member::MemberId;
use crate::record::Tree;
use crate::rng::Rng;
use crate::table::Table;
use crate::time::{Mono, Second};
use crate::wire::Compared;

const CONFIRMS_MAX: usize = 64;
/// A first difference older than this counts as none.
const CONFIRM_AGE_MAX: Duration = Duration::from_secs(60);
const HOLD_MIN: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(60);
const QUICK_GAP: Duration = Duration::from_millis(200);
const QUICK_JITTER: Duration = Duration::from_millis(20);
/// A useful session is followed by a BEAT to that peer after this.
const ECHO: Duration = Duration::from_secs(1);
const ECHOES_MAX: usize = 64;

/// A session to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub tree: Tree,
    pub peer: MemberId,
    pub settled: Second,
    /// Own root when compared: if it has changed, the plan is void.
    pub root: u32,
    pub quick: bool,
    /// The living counts lie far apart: list at once.
    pub far: bool,
    at: Mono,
}

struct Confirm {
    first: Mono,
    /// When to send the BEAT; [`Mono::FAR`]: sent.
    due: Mono,
}

#[derive(Clone, Copy, Default)]
struct Hold {
    until: Mono,
    length: Duration,
}

pub(super) struct Schedule {
    options: AntiEntropy,
    confirms: Table<(MemberId, Tree), Confirm>,
    plans: [Option<Plan>; 2],
    holds: [Hold; 2],
    echoes: Vec<(Mono, MemberId)>,
    last_start: Option<Mono>,
}

impl Schedule {
    pub fn new(options: AntiEntropy) -> Schedule {
        Schedule {
            options,
            confirms: Table::new(),
            plans: [None; 2],
            holds: [Hold::default(); 2],
            echoes: Vec::new(),
            last_start: None,
        }
    }

    pub fn handle_comparison(&mut self, now: Mono, c: &Comparison, running: Option<Tree>, rng: &mut Rng) {
        self.compared(now, c, Tree::Members, c.members, running, rng);
        self.compared(now, c, Tree::Entries, c.entries, running, rng);
    }

    fn compared(
        &mut self,
        now: Mono,
        c: &Comparison,
        tree: Tree,
        result: Compared,
        running: Option<Tree>,
        rng: &mut Rng,
    ) {
        let key = (c.peer, tree);
        match result {
            Compared::Not => return,
            Compared::Equal => {
                self.confirms.remove(&key);
                self.plans.iter_mut().for_each(|plan| {
                    plan.take_if(|p| p.tree == tree && p.peer == c.peer);
                });
                return;
            }
            Compared::Differ | Compared::Far => {}
        }
        if running == Some(tree) {
            return;
        }
        let far = result == Compared::Far;
        let quick = far || c.quick;
        if !quick {
            if self.is_held(now, tree) {
                return;
            }
            let known = self.confirms.get(&key).filter(|f| c.sent_at.since(f.first) <= CONFIRM_AGE_MAX);
            let Some(known) = known else {
                self.confirm(key, c.sent_at);
                return;
            };
            if c.sent_at < known.first + self.options.confirm.mul_f64(0.9) {
                return;
            }
        }
        self.confirms.remove(&key);
        let (root, settled) = match tree {
            Tree::Members => (c.roots.members, Second(0)),
            Tree::Entries => (c.roots.entries, c.settled),
        };
        let jitter = if quick { QUICK_JITTER } else { self.options.session_jitter };
        let plan = Plan { tree, peer: c.peer, settled, root, quick, far, at: now + rng.up_to(jitter) };
        if let Some(slot) = self.plans.get_mut(tree as usize)
            && slot.is_none_or(|old| quick && !old.quick)
        {
            *slot = Some(plan);
        }
    }

    fn confirm(&mut self, key: (MemberId, Tree), first: Mono) {
        if self.confirms.len() >= CONFIRMS_MAX && !self.confirms.contains_key(&key) {
            let oldest = self.confirms.iter().min_by_key(|(_, c)| c.first).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.confirms.remove(&oldest));
        }
        self.confirms.insert(key, Confirm { first, due: first + self.options.confirm });
    }

    fn is_held(&self, now: Mono, tree: Tree) -> bool {
        self.holds.get(tree as usize).is_some_and(|hold| now < hold.until)
    }

    fn gap_over(&self, quick: bool) -> Mono {
        let gap = if quick { QUICK_GAP } else { self.options.session_gap };
        self.last_start.map_or(Mono(0), |at| at + gap)
    }

    /// The plan whose time has come, members first; only while no session runs.
    pub fn take_due(&mut self, now: Mono) -> Option<Plan> {
        for tree in [Tree::Members, Tree::Entries] {
            let held = self.is_held(now, tree);
            let Some(plan) = self.plans.get(tree as usize).copied().flatten() else { continue };
            if plan.at.max(self.gap_over(plan.quick)) <= now {
                if let Some(slot) = self.plans.get_mut(tree as usize) {
                    *slot = None;
                }
                if plan.quick || !held {
                    return Some(plan);
                }
            }
        }
        None
    }

    pub fn started(&mut self, now: Mono) {
        self.last_start = Some(now);
    }

    /// A session has ended.
    pub fn ended(&mut self, now: Mono, tree: Tree, peer: MemberId, moved: u64, whole: bool, quick: bool) {
        let Some(hold) = self.holds.get_mut(tree as usize) else { return };
        if moved > 0 {
            *hold = Hold::default();
            if self.echoes.len() < ECHOES_MAX {
                self.echoes.push((now + ECHO, peer));
            }
        } else if whole && !quick {
            hold.length = (hold.length * 2).clamp(HOLD_MIN, HOLD_MAX);
            hold.until = now + hold.length;
        } else if !whole {
            self.last_start = Some(now);
        }
    }

    /// Peers to which a BEAT is due.
    pub fn due_beats(&mut self, now: Mono) -> Vec<MemberId> {
        let mut peers: Vec<MemberId> =
            self.confirms.iter().filter(|(_, c)| c.due <= now).map(|((peer, _), _)| *peer).collect();
        peers.extend(self.echoes.extract_if(.., |(at, _)| *at <= now).map(|(_, peer)| peer));
        peers.sort_unstable();
        peers.dedup();
        self.confirms.for_each_mut(|(peer, _), confirm| {
            if peers.binary_search(peer).is_ok() {
                confirm.due = Mono::FAR;
            }
        });
        peers
    }

    pub fn forget(&mut self, peer: MemberId) {
        self.confirms.retain(|(p, _), _| *p != peer);
        self.echoes.retain(|(_, p)| *p != peer);
        self.plans.iter_mut().for_each(|plan| {
            plan.take_if(|p| p.peer == peer);
        });
    }

    pub fn deadline(&self, running: bool) -> Mono {
        let confirms = self.confirms.values().map(|c| c.due);
        let echoes = self.echoes.iter().map(|(at, _)| *at);
        let starts = self.plans.iter().flatten().filter(|_| !running);
        let starts = starts.map(|plan| plan.at.max(self.gap_over(plan.quick)));
        confirms.chain(echoes).chain(starts).min().unwrap_or(Mono::FAR)
    }
}
