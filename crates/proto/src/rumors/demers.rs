//! Demers' variants of rumor mongering (Demers et al. 1987, section 1.4) as a pure core: when a rumor loses interest, and
//! whole epidemics in synchronous cycles, as the paper's tables count them.

use crate::config::Loss;
use crate::rng::Rng;

/// What the contacts of one cycle turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No contact, or no answer.
    Nothing,
    /// At least one peer lacked the rumor.
    Useful,
    /// Each peer held it already.
    Useless,
}

/// When a rumor goes cold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Only useless contacts count; a useful one resets the counter. Without it (blind) each contact counts.
    pub feedback: bool,
    /// Coin or counter.
    pub loss: Loss,
    /// At least 1; 0 counts as 1.
    pub k: u8,
}

impl Rule {
    /// One cycle of one rumor; `count` is its counter. True: it goes cold. Several contacts in one cycle count once, and
    /// reset if any was useful (the footnote to the paper's table 3).
    pub fn cycle(&self, count: &mut u32, outcome: Outcome, rng: &mut Rng) -> bool {
        match outcome {
            Outcome::Nothing => return false,
            Outcome::Useful if self.feedback => {
                *count = 0;
                return false;
            }
            Outcome::Useful | Outcome::Useless => {}
        }
        let k = u32::from(self.k.max(1));
        match self.loss {
            Loss::Coin => rng.chance(1.0 / f64::from(k)),
            Loss::Counter => {
                *count += 1;
                *count >= k
            }
        }
    }
}

/// Who opens a contact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Each infective site sends the rumor to a random other.
    Push,
    /// Each site asks a random other, which sends the rumor if it is infective.
    Pull,
}

/// What an epidemic left and cost (algorithms.md 2.1).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figures {
    /// Share of sites that never got the rumor: s.
    pub residue: f64,
    /// Rumors sent per site: m.
    pub traffic: f64,
    /// Mean cycle in which a site got it, of those that did, the first site left out: t_ave.
    pub mean_delay: f64,
    /// Cycle in which the last site got it: t_last.
    pub last_delay: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Susceptible,
    /// With its counter.
    Infective(u32),
    Removed,
}

/// One rumor among `n` sites, in synchronous cycles: states are judged at the start of a cycle, peers are uniform and never
/// oneself, and who gets the rumor starts with it in the next cycle.
pub struct Epidemic {
    rule: Rule,
    direction: Direction,
    sites: Vec<Site>,
    outcomes: Vec<Outcome>,
    infective: usize,
    cycle: u32,
    sent: u64,
    reached: usize,
    delays: u64,
    last: u32,
}

impl Epidemic {
    /// Site 0 has the rumor. At least two sites.
    pub fn new(sites: usize, rule: Rule, direction: Direction) -> Epidemic {
        let mut states = vec![Site::Susceptible; sites.max(2)];
        if let Some(first) = states.first_mut() {
            *first = Site::Infective(0);
        }
        Epidemic {
            rule,
            direction,
            outcomes: vec![Outcome::Nothing; states.len()],
            sites: states,
            infective: 1,
            cycle: 0,
            sent: 0,
            reached: 1,
            delays: 0,
            last: 0,
        }
    }

    /// One cycle; false when no site is infective any more.
    pub fn cycle(&mut self, rng: &mut Rng) -> bool {
        if self.infective == 0 {
            return false;
        }
        self.cycle += 1;
        let n = self.sites.len();
        self.outcomes.fill(Outcome::Nothing);
        let mut reached: Vec<usize> = Vec::new();
        for site in 0..n {
            let opens = self.direction == Direction::Pull || self.is_infective(site);
            if !opens {
                continue;
            }
            let peer = (site + 1 + rng.below(n - 1)) % n;
            let (from, to) = match self.direction {
                Direction::Push => (site, peer),
                Direction::Pull => (peer, site),
            };
            if self.is_infective(from) {
                self.sent += 1;
                let useful = self.sites.get(to) == Some(&Site::Susceptible);
                if useful {
                    reached.push(to);
                }
                if let Some(outcome) = self.outcomes.get_mut(from)
                    && *outcome != Outcome::Useful
                {
                    *outcome = if useful { Outcome::Useful } else { Outcome::Useless };
                }
            }
        }
        for (site, outcome) in self.sites.iter_mut().zip(&self.outcomes) {
            if let Site::Infective(count) = site
                && self.rule.cycle(count, *outcome, rng)
            {
                *site = Site::Removed;
                self.infective -= 1;
            }
        }
        for site in reached {
            if let Some(state) = self.sites.get_mut(site)
                && *state == Site::Susceptible
            {
                *state = Site::Infective(0);
                self.infective += 1;
                self.reached += 1;
                self.delays += u64::from(self.cycle);
                self.last = self.cycle;
            }
        }
        self.infective > 0
    }

    fn is_infective(&self, site: usize) -> bool {
        matches!(self.sites.get(site), Some(Site::Infective(_)))
    }

    /// Figures so far.
    pub fn figures(&self) -> Figures {
        let n = self.sites.len() as f64;
        Figures {
            residue: (self.sites.len() - self.reached) as f64 / n,
            traffic: self.sent as f64 / n,
            mean_delay: self.delays as f64 / (self.reached.max(2) - 1) as f64,
            last_delay: self.last,
        }
    }

    /// Cycles until no site is infective.
    pub fn run(mut self, rng: &mut Rng) -> Figures {
        while self.cycle(rng) {}
        self.figures()
    }
}
