//! The protocol's own rumor code, [`Rumors`], at sizes where a whole member each does not fit: one membership table for all, no
//! detector, no anti-entropy; sealed datagrams, the budget, delays and losses of the simulated network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::budget::{Budget, DATAGRAM_OVERHEAD};
use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::member::{Generation, Incarnation, Liveness, Member, MemberId, Profile};
use hearsay_proto::record::{Record, RecordHasher, RumorId};
use hearsay_proto::rng::Rng;
use hearsay_proto::roster::Roster;
use hearsay_proto::rumors::Rumors;
use hearsay_proto::time::{Mono, Now, Stamp, Wall};
use hearsay_proto::wire::{HEADER_BYTES, Message, message_bytes};

use crate::network::Network;

/// One update's way.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// When each member had it, ms from the write, ascending.
    pub times_ms: Vec<f64>,
    /// Members.
    pub members: usize,
    /// Payloads sent per member.
    pub copies: f64,
    /// Datagrams sent per member.
    pub datagrams: f64,
    /// Bytes sent per member, IP and UDP headers included.
    pub bytes: f64,
}

impl Spread {
    /// When this share of all members had it; infinity if they never had.
    pub fn reached_ms(&self, share: f64) -> f64 {
        let index = ((self.members as f64 * share).ceil() as usize).max(1) - 1;
        self.times_ms.get(index).copied().unwrap_or(f64::INFINITY)
    }

    /// When all had it.
    pub fn all_ms(&self) -> f64 {
        self.reached_ms(1.0)
    }
}

struct Site {
    /// Made when the first message comes.
    rumors: Option<Box<Rumors>>,
    budget: Budget,
    held: bool,
    timer: Mono,
}

enum What {
    Timer(u32),
    Arrival { to: u32, from: u32, messages: Rc<Vec<Message>> },
}

struct Due {
    at: Mono,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Lean {
    config: Config,
    sites: Vec<Site>,
    roster: Roster,
    entry: Arc<Entry>,
    id: RumorId,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    now: Now,
    rng: Rng,
    net_rng: Rng,
    network: Network,
    loss: f64,
    spread: Spread,
    sent: [u64; 2],
}

fn member(number: u64) -> Member {
    let [_, _, _, _, _, a, b, c] = number.to_be_bytes();
    let profile = Profile {
        name: format!("m{number}").into(),
        generation: Generation(1),
        id: MemberId(number + 1),
        revision: 0,
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 7946),
        tags: Default::default(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

fn at(mono: Mono) -> Now {
    Now { mono, wall: Wall(mono.0 / 1_000_000) }
}

/// The table that all share: `members` members and one that is nobody, whose table it is. A member may draw itself, once in
/// `members` draws; nothing leaves then.
pub fn roster(members: usize) -> Roster {
    let hasher = RecordHasher::new("lean");
    let nobody = member(members as u64);
    let mut roster = Roster::new(hasher, nobody, 7, members + 1, Duration::from_secs(86_400));
    for number in 0..members as u64 {
        roster.merge(at(Mono(0)), &member(number));
    }
    roster
}

/// One write of 64 bytes by a random member of `roster`, until all have it or nothing is under way. Gives the table back.
pub fn spread(config: &Config, roster: Roster, loss: f64, wan: bool, seed: u64) -> (Spread, Roster) {
    let members = roster.living() - 1;
    let entry = Entry {
        key: b"lean/key"[..].into(),
        value: vec![7; 64].into(),
        version: Version { stamp: Stamp(1 << 16), writer: MemberId(1) },
        tombstone: false,
        ttl_ms: None,
    };
    let site = || Site {
        rumors: None,
        budget: Budget::new(config.bytes_per_second_max, Mono(0)),
        held: false,
        timer: Mono::FAR,
    };
    let id = roster.hasher().entry_rumor(&entry);
    let mut rng = Rng::from_number(seed);
    let origin = rng.below(members);
    let mut lean = Lean {
        config: config.clone(),
        sites: (0..members).map(|_| site()).collect(),
        roster,
        entry: Arc::new(entry),
        id,
        queue: BinaryHeap::new(),
        order: 0,
        now: at(Mono(0)),
        net_rng: Rng::from_number(seed ^ 0x6e65),
        rng,
        network: if wan { Network::wan(0) } else { Network::lan(0) },
        loss,
        spread: Spread { members, ..Spread::default() },
        sent: [0; 2],
    };
    lean.hear(origin, 0, true);
    lean.drain(origin);
    while lean.spread.times_ms.len() < members && lean.step() {}
    let records: u64 =
        lean.sites.iter().filter_map(|s| s.rumors.as_ref()).map(|r| r.metrics().records_sent).sum();
    let n = members as f64;
    lean.spread.copies = records as f64 / n;
    lean.spread.datagrams = lean.sent[0] as f64 / n;
    lean.spread.bytes = lean.sent[1] as f64 / n;
    (lean.spread, lean.roster)
}

impl Lean {
    fn push(&mut self, at: Mono, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, what }));
    }

    fn rumors(&mut self, site: usize) -> &mut Rumors {
        let Lean { sites, config, roster, rng, now, .. } = self;
        let Site { rumors, budget, .. } = &mut sites[site];
        rumors.get_or_insert_with(|| {
            let mut rumors = Box::new(Rumors::new(config));
            // It learns how many it lives among.
            rumors.poll_datagram(*now, roster, budget, rng);
            rumors
        })
    }

    /// A member has the record now.
    fn hear(&mut self, site: usize, hop: u8, own: bool) {
        self.sites[site].held = true;
        self.spread.times_ms.push(self.now.mono.0 as f64 / 1e6);
        self.rumors(site);
        let (now, entry, id) = (self.now, self.entry.clone(), self.id);
        let Lean { sites, rng, .. } = self;
        if let Some(rumors) = sites[site].rumors.as_mut() {
            rumors.put_entry(now, entry, id, hop, own, rng);
        }
    }

    fn step(&mut self) -> bool {
        let Some(Reverse(due)) = self.queue.pop() else { return false };
        self.now = at(due.at);
        match due.what {
            What::Timer(site) => {
                let site = site as usize;
                if self.sites[site].timer != due.at {
                    return true;
                }
                self.sites[site].timer = Mono::FAR;
                let now = self.now;
                if let Some(rumors) = self.sites[site].rumors.as_mut() {
                    rumors.handle_timeout(now, &self.roster, &mut self.rng);
                }
                self.drain(site);
            }
            What::Arrival { to, from, messages } => {
                self.arrive(to as usize, MemberId(u64::from(from) + 1), &messages);
                self.drain(to as usize);
            }
        }
        true
    }

    fn arrive(&mut self, site: usize, from: MemberId, messages: &[Message]) {
        let (now, id, entry) = (self.now, self.id, self.entry.clone());
        for message in messages {
            let held = self.sites[site].held;
            match message {
                Message::Record { hop, .. } => {
                    self.rumors(site).handle_arrived(now, id);
                    if held {
                        self.rumors(site).handle_known_record(from, id);
                    } else {
                        self.hear(site, hop.saturating_add(1), false);
                    }
                }
                Message::IHave { ids, .. } if held => self.rumors(site).handle_known_ids(from, ids),
                Message::IHave { ids, .. } => self.rumors(site).handle_ihave(now, from, ids),
                Message::Want { ids, .. } => {
                    self.rumors(site);
                    let Site { rumors: Some(rumors), budget, .. } = &mut self.sites[site] else { continue };
                    let mut find = |_| held.then(|| Record::Entry(entry.clone()));
                    rumors.handle_want(now, from, ids, budget, &mut find);
                }
                Message::Seen(ids) => self.rumors(site).handle_seen(now, ids),
                _ => {}
            }
        }
    }

    fn drain(&mut self, site: usize) {
        let around = HEADER_BYTES + self.config.seal_bytes + DATAGRAM_OVERHEAD;
        let now = self.now;
        loop {
            let Site { rumors: Some(rumors), budget, .. } = &mut self.sites[site] else { return };
            rumors.set_rtt(self.network.delay * 3);
            let parcel = rumors.poll_datagram(now, &self.roster, budget, &mut self.rng);
            let Some(parcel) = parcel else { break };
            let bytes: usize = parcel.messages.iter().map(message_bytes).sum();
            let messages = Rc::new(parcel.messages);
            for to in parcel.to {
                let to = to.0 as usize - 1;
                if to == site || to >= self.sites.len() {
                    continue;
                }
                self.sent[0] += 1;
                self.sent[1] += (bytes + around) as u64;
                if !self.net_rng.chance(self.loss) {
                    let arrives = now.mono + self.network.draw_delay(&mut self.net_rng);
                    let what = What::Arrival { to: to as u32, from: site as u32, messages: messages.clone() };
                    self.push(arrives, what);
                }
            }
        }
        let Some(rumors) = self.sites[site].rumors.as_ref() else { return };
        let deadline = rumors.deadline();
        if deadline != self.sites[site].timer && deadline != Mono::FAR {
            let at = deadline.max(Mono(now.mono.0 + 1));
            self.sites[site].timer = at;
            self.push(at, What::Timer(site as u32));
        }
    }
}
