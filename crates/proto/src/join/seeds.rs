//! The seeds: which addresses, which of them are mine, which fail (`J1`, `J4`, `J6`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Seed;
use crate::member::MemberId;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::Mono;

/// Addresses of all seeds together; further ones are left out.
const TARGETS_MAX: usize = 256;
/// Addresses remembered from an earlier run; of more, a random choice.
const REMEMBERED_MAX: usize = 1_024;
/// Failures of one seed are reported at first, then after this time, doubling.
const REPORT_GAP: Duration = Duration::from_secs(30);
const REPORT_GAP_MAX: Duration = Duration::from_secs(3_600);

/// Join timeouts that a seed has which challenged me.
const CHALLENGED_TIMEOUTS: u32 = 3;

const NO_ANSWER: &str = "no answer";
const UNREACHABLE: &str = "advertised address unreachable";

struct Target {
    address: SocketAddr,
    tries: u32,
    /// It has sent a CHALLENGE since its last WELCOME.
    challenged: bool,
    /// Who answered there, possibly under another address.
    answered_by: Option<MemberId>,
}

/// When a failing seed is reported again.
struct Episode {
    report_at: Mono,
    gap: Duration,
}

struct Host {
    name: String,
    unresolved: bool,
    targets: Vec<Target>,
    /// First HELLO since the last answer or verdict.
    tried_at: Option<Mono>,
}

impl Host {
    fn is_challenged(&self) -> bool {
        self.targets.iter().any(|t| t.challenged)
    }

    /// When it fails unless it answers: later if it is there and only its WELCOME is missing.
    fn due_at(&self, timeout: Duration) -> Option<Mono> {
        let factor = if self.is_challenged() { CHALLENGED_TIMEOUTS } else { 1 };
        self.tried_at.map(|at| at + timeout * factor)
    }
}

/// A seed that failed: its name and why.
pub(super) type Failure = (String, String);

/// All seeds.
pub(super) struct Seeds {
    hosts: Vec<Host>,
    /// Where members were in an earlier run. No user knows of them, so none is told when they fail.
    remembered: Vec<Target>,
    remembered_so_far: usize,
    own: Set<SocketAddr>,
    episodes: Table<String, Episode>,
}

impl Seeds {
    pub(super) fn new() -> Seeds {
        Seeds {
            hosts: Vec::new(),
            remembered: Vec::new(),
            remembered_so_far: 0,
            own: Set::new(),
            episodes: Table::new(),
        }
    }

    /// A member was here in an earlier run.
    pub(super) fn remember(&mut self, address: SocketAddr, rng: &mut Rng) {
        self.remembered_so_far += 1;
        let target = Target { address, tries: 0, challenged: false, answered_by: None };
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(target);
        } else if let Some(other) = self.remembered.get_mut(rng.below(self.remembered_so_far)) {
            *other = target;
        }
    }

    /// Replaces the list. Returns unresolved seeds to report, and whether there is an address that was not there before.
    pub(super) fn replace(&mut self, now: Mono, seeds: Vec<Seed>) -> (Vec<Failure>, bool) {
        // I may live elsewhere by now; one datagram of my own teaches it again.
        self.own.clear();
        let old: Vec<Host> = std::mem::take(&mut self.hosts);
        let mut old_targets: Table<SocketAddr, Target> = Table::new();
        let mut tried: Table<String, Mono> = Table::new();
        for host in old {
            tried.extend(host.tried_at.map(|at| (host.name, at)));
            old_targets.extend(host.targets.into_iter().map(|t| (t.address, t)));
        }
        let (mut failures, mut fresh, mut room) = (Vec::new(), false, TARGETS_MAX);
        for seed in seeds.into_iter().take(TARGETS_MAX) {
            let tried_at = tried.get(&seed.name).copied();
            let mut host = Host { name: seed.name, unresolved: false, targets: Vec::new(), tried_at };
            let addresses = match seed.addresses {
                Ok(addresses) if addresses.is_empty() => Err("no addresses".to_owned()),
                other => other,
            };
            match addresses {
                Ok(addresses) => {
                    for address in addresses {
                        if room == 0 || host.targets.iter().any(|t| t.address == address) {
                            continue;
                        }
                        room -= 1;
                        fresh |= !old_targets.contains_key(&address);
                        let new = Target { address, tries: 0, challenged: false, answered_by: None };
                        host.targets.push(old_targets.remove(&address).unwrap_or(new));
                    }
                }
                Err(error) => {
                    host.unresolved = true;
                    host.tried_at = None;
                    failures.extend(self.report(now, &host.name, &error));
                }
            }
            self.hosts.push(host);
        }
        let hosts = &self.hosts;
        self.episodes.retain(|name, _| hosts.iter().any(|h| h.name == *name));
        (failures, fresh)
    }

    fn report(&mut self, now: Mono, name: &str, error: &str) -> Option<Failure> {
        match self.episodes.get_mut(name) {
            Some(episode) if now < episode.report_at => return None,
            Some(episode) => {
                episode.report_at = now + episode.gap;
                episode.gap = (episode.gap * 2).min(REPORT_GAP_MAX);
            }
            None => {
                let episode = Episode { report_at: now + REPORT_GAP, gap: REPORT_GAP * 2 };
                self.episodes.insert(name.to_owned(), episode);
            }
        }
        Some((name.to_owned(), error.to_owned()))
    }

    /// This address is mine. False if it is no seed's, or was known to be mine.
    pub(super) fn mark_own(&mut self, address: SocketAddr) -> bool {
        if self.own.len() >= TARGETS_MAX || self.find(address).is_none() || !self.own.insert(address) {
            return false;
        }
        for host in &mut self.hosts {
            if host.targets.iter().all(|t| self.own.contains(&t.address)) {
                host.tried_at = None;
            }
        }
        true
    }

    /// The target at an address; with a seed, when its first HELLO left.
    fn find(&mut self, address: SocketAddr) -> Option<(&mut Target, Option<&mut Option<Mono>>)> {
        let seed = self.hosts.iter_mut().find_map(|h| {
            let target = h.targets.iter_mut().find(|t| t.address == address)?;
            Some((target, Some(&mut h.tried_at)))
        });
        seed.or_else(|| Some((self.remembered.iter_mut().find(|t| t.address == address)?, None)))
    }

    fn foreign<'a>(&'a self, me: SocketAddr) -> impl Iterator<Item = &'a Target> + 'a {
        self.seeds(me).chain(self.met(me))
    }

    fn seeds<'a>(&'a self, me: SocketAddr) -> impl Iterator<Item = &'a Target> + 'a {
        self.hosts.iter().flat_map(|h| &h.targets).filter(move |t| self.is_foreign(me, t))
    }

    fn met<'a>(&'a self, me: SocketAddr) -> impl Iterator<Item = &'a Target> + 'a {
        self.remembered.iter().filter(move |t| self.is_foreign(me, t))
    }

    fn is_foreign(&self, me: SocketAddr, target: &Target) -> bool {
        target.address != me && !self.own.contains(&target.address)
    }

    /// Is there an address to try at all?
    pub(super) fn is_usable(&self, me: SocketAddr) -> bool {
        self.foreign(me).next().is_some()
    }

    /// A random one of the addresses tried least: every second time a seed's, if there are seeds.
    pub(super) fn pick(&self, me: SocketAddr, rng: &mut Rng) -> Option<SocketAddr> {
        let least_tried = |all: Vec<&Target>, rng: &mut Rng| {
            let least = all.iter().map(|t| t.tries).min()?;
            let all: Vec<&Target> = all.into_iter().filter(|t| t.tries == least).collect();
            all.get(rng.below(all.len())).map(|t| t.address)
        };
        let (seeds, met): (Vec<&Target>, Vec<&Target>) = (self.seeds(me).collect(), self.met(me).collect());
        let of_seeds = met.is_empty() || !seeds.is_empty() && rng.chance(0.5);
        least_tried(if of_seeds { seeds } else { met }, rng)
    }

    /// A random address that belongs to no living member.
    pub(super) fn pick_stray(&self, roster: &Roster, rng: &mut Rng) -> Option<SocketAddr> {
        let mut strays: Vec<&Target> = self
            .foreign(roster.me().address())
            .filter(|t| !t.answered_by.is_some_and(|id| roster.is_living(id)))
            .collect();
        if strays.is_empty() {
            return None;
        }
        let held = living_addresses(roster);
        strays.retain(|t| !held.contains(&t.address));
        strays.get(rng.below(strays.len())).map(|t| t.address)
    }

    /// A HELLO leaves. True if earlier ones had no answer at all.
    pub(super) fn note_try(&mut self, now: Mono, address: SocketAddr) -> bool {
        let Some((target, tried_at)) = self.find(address) else { return false };
        let is_seed = tried_at.is_some();
        if let Some(tried_at) = tried_at {
            tried_at.get_or_insert(now);
        }
        let silent = is_seed && target.tries > 0 && !target.challenged && target.answered_by.is_none();
        target.tries = target.tries.saturating_add(1);
        silent
    }

    /// A CHALLENGE came from there.
    pub(super) fn note_challenge(&mut self, address: SocketAddr) {
        if let Some((target, _)) = self.find(address) {
            target.challenged = true;
        }
    }

    /// A WELCOME came from there.
    pub(super) fn note_answer(&mut self, address: SocketAddr, by: MemberId) {
        let Some((target, tried_at)) = self.find(address) else { return };
        target.challenged = false;
        target.answered_by = Some(by);
        target.tries = 0;
        if let Some(tried_at) = tried_at {
            *tried_at = None;
        }
        let name = self.hosts.iter().find(|h| h.targets.iter().any(|t| t.address == address));
        if let Some(name) = name.map(|h| h.name.clone()) {
            self.episodes.remove(&name);
        }
    }

    /// Seeds whose time to answer is over.
    pub(super) fn due(&mut self, now: Mono, timeout: Duration, roster: &Roster) -> Vec<Failure> {
        let due = |h: &Host| h.due_at(timeout).is_some_and(|at| at <= now);
        if !self.hosts.iter().any(due) {
            return Vec::new();
        }
        let held = living_addresses(roster);
        let mut failed: Vec<(String, &'static str)> = Vec::new();
        for host in &mut self.hosts {
            if !due(host) {
                continue;
            }
            host.tried_at = None;
            let challenged = host.is_challenged();
            host.targets.iter_mut().for_each(|t| t.challenged = false);
            if host.targets.iter().any(|t| held.contains(&t.address)) {
                self.episodes.remove(&host.name);
            } else {
                failed.push((host.name.clone(), if challenged { UNREACHABLE } else { NO_ANSWER }));
            }
        }
        failed.iter().filter_map(|(name, error)| self.report(now, name, error)).collect()
    }

    /// When [`Seeds::due`] is to be asked.
    pub(super) fn deadline(&self, timeout: Duration) -> Mono {
        self.hosts.iter().filter_map(|h| h.due_at(timeout)).min().unwrap_or(Mono::FAR)
    }
}

/// Addresses of living members, mine not.
fn living_addresses(roster: &Roster) -> Set<SocketAddr> {
    let me = roster.my_id();
    roster.living_ids().filter(|&id| id != me).filter_map(|id| Some(roster.profile(id)?.address)).collect()
}
