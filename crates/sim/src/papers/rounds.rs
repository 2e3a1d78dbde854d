//! One rumor in synchronous rounds, as the theory counts them: sites are bits, no member, no message.

use hearsay_proto::rng::Rng;

/// Who tells whom in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Who knows tells.
    Push,
    /// Who does not know asks.
    Pull,
    /// Both.
    PushPull,
}

/// What it took until all knew.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Rounds.
    pub rounds: f64,
    /// Payloads sent per site: to those told, and in answer to those who asked and did not know.
    pub copies: f64,
    /// Push-pull where both sides of each call send if they know: payloads per site (the counting of Karp et al.).
    pub both_ways: f64,
}

/// `peers` calls per site and round, to uniform others; states are judged at the start of a round.
pub fn spread(sites: usize, way: Way, peers: usize, rng: &mut Rng) -> Spread {
    let mut knows = vec![false; sites];
    let mut order: Vec<usize> = (0..sites).collect();
    // The first `known` of `order` know; `knows` says the same of each site.
    knows[0] = true;
    let (mut known, mut rounds, mut copies, mut both) = (1usize, 0u32, 0u64, 0u64);
    let mut place: Vec<u32> = (0..sites as u32).collect();
    while known < sites {
        rounds += 1;
        let mut reached: Vec<usize> = Vec::new();
        let from = if way == Way::Pull { known } else { 0 };
        let to = if way == Way::Push { known } else { sites };
        for &site in &order[from..to] {
            for _ in 0..peers {
                let peer = (site + 1 + rng.below(sites - 1)) % sites;
                both += u64::from(knows[site]) + u64::from(knows[peer]);
                if knows[site] {
                    copies += 1;
                    if !knows[peer] {
                        reached.push(peer);
                    }
                } else if knows[peer] {
                    copies += 1;
                    reached.push(site);
                }
            }
        }
        for site in reached {
            if !knows[site] {
                knows[site] = true;
                let (at, other) = (place[site] as usize, order[known]);
                order.swap(at, known);
                place[other] = at as u32;
                place[site] = known as u32;
                known += 1;
            }
        }
    }
    let n = sites as f64;
    Spread { rounds: f64::from(rounds), copies: copies as f64 / n, both_ways: both as f64 / n }
}
