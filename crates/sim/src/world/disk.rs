//! A virtual disk: a batch takes its time, is on the disk whole or not at all, and what is under way at a crash may be lost.

use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::Gossip;
use hearsay_proto::entry::Entry;
use hearsay_proto::image::{Acquaintance, Batch, Own, Write};
use hearsay_proto::member::{Generation, MemberId};
use hearsay_proto::rng::Rng;
use hearsay_proto::table::Table;
use hearsay_proto::time::{Now, Second};

use super::World;
use super::queue::What;

/// Rows read at a time, as the runtime does.
const CHUNK: usize = 256;

/// What survives of a host.
pub struct Disk {
    /// Time a batch takes, at least; at most three times as much.
    pub latency: Duration,
    /// Batches saved.
    pub batches: u64,
    own: Option<Own>,
    heard: Vec<(MemberId, Second)>,
    members: Table<Arc<str>, Acquaintance>,
    entries: Table<u64, Arc<Entry>>,
    under_way: Option<Batch>,
    rng: Rng,
}

impl Disk {
    fn new(seed: u64, latency: Duration) -> Disk {
        Disk {
            latency,
            batches: 0,
            own: None,
            heard: Vec::new(),
            members: Table::new(),
            entries: Table::new(),
            under_way: None,
            rng: Rng::from_number(seed),
        }
    }

    /// Entries on it, tombstones included.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Run of the last process that saved anything.
    pub fn generation(&self) -> Option<Generation> {
        self.own.as_ref().map(|own| own.generation)
    }

    fn apply(&mut self, batch: Batch) {
        self.batches += 1;
        for write in batch.writes {
            match write {
                Write::Own(own) => self.own = Some(own),
                Write::Heard(table) => self.heard = table,
                Write::Member(member) => {
                    self.members.insert(member.name.clone(), member);
                }
                Write::NoMember(name) => {
                    self.members.remove(&name);
                }
                Write::Entry { place, entry } => {
                    self.entries.insert(place, entry);
                }
                Write::NoEntry { place } => {
                    self.entries.remove(&place);
                }
            }
        }
    }

    /// The process ends: what was under way is on the disk, or not.
    pub(super) fn crash(&mut self) {
        if let Some(batch) = self.under_way.take()
            && self.rng.chance(0.5)
        {
            self.apply(batch);
        }
    }

    /// Every row, as a start reads them.
    fn rows(&self) -> Vec<Write> {
        let own = self.own.iter().cloned().map(Write::Own);
        let members = self.members.values().cloned().map(Write::Member);
        let entries = self.entries.iter().map(|(&place, entry)| Write::Entry { place, entry: entry.clone() });
        own.chain([Write::Heard(self.heard.clone())]).chain(members).chain(entries).collect()
    }

    pub(super) fn restore(&self, gossip: &mut Gossip, now: Now) {
        gossip.keep(now);
        for rows in self.rows().chunks(CHUNK) {
            gossip.restore(now, rows);
        }
    }
}

impl World {
    /// Gives every host a disk, empty at first; before their starts.
    pub fn add_disks(&mut self, latency: Duration) {
        let seed = self.seed;
        for (host, h) in self.hosts.iter_mut().enumerate() {
            h.disk = Some(Disk::new(seed ^ (host as u64) << 32 ^ 0x6469_736b, latency));
        }
    }

    /// Replaces a host's disk by an empty one, while its process is down.
    pub fn empty_disk(&mut self, host: usize, latency: Duration) {
        self.hosts[host].disk = Some(Disk::new(self.seed ^ (host as u64) << 32 ^ 0x656d_7074, latency));
    }

    /// A member saves a batch.
    pub(super) fn save(&mut self, host: usize, batch: Batch) {
        let h = &mut self.hosts[host];
        let Some(disk) = h.disk.as_mut() else {
            self.checker.fail(format!("host {host} saves without a disk"));
            return;
        };
        if disk.under_way.is_some() {
            self.checker.fail(format!("host {host}: two batches under way"));
        }
        let saved = What::Saved { host: host as u32, runs: h.runs, seq: batch.seq };
        disk.under_way = Some(batch);
        let time = disk.latency + disk.rng.up_to(disk.latency * 2);
        self.queue.push(self.now + time, saved);
    }

    pub(super) fn saved(&mut self, host: usize, runs: u64, seq: u64) {
        let h = &mut self.hosts[host];
        if h.runs != runs || h.gossip.is_none() {
            return;
        }
        if let Some(disk) = h.disk.as_mut()
            && let Some(batch) = disk.under_way.take_if(|batch| batch.seq == seq)
        {
            disk.apply(batch);
            self.with(host, |g, _| g.handle_persisted(seq));
        }
    }

    /// What a start must have brought back: every live entry on the disk, and a higher generation.
    pub(super) fn check_restored(&mut self, host: usize, gossip: &Gossip) {
        let now = self.clock(host);
        let Some(disk) = self.hosts[host].disk.as_ref() else { return };
        let lost = disk.entries().filter(|e| !e.tombstone && e.ttl_ms.is_none()).find(|e| {
            gossip.get(now, &e.key).is_none_or(|held| held.version != e.version || held.value != e.value)
        });
        let later = gossip.me().map(|me| me.profile.generation);
        let risen = disk.generation().is_none_or(|before| later.is_some_and(|later| later > before));
        if let Some(entry) = lost {
            let what = format!("host {host}: {:?} was on its disk and is lost", entry.version);
            self.checker.fail(what);
        }
        if !risen {
            self.checker.fail(format!("host {host}: its generation did not rise to {later:?}"));
        }
    }
}
