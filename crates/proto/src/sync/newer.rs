//! Versions of mine that a peer lacks and has not asked for yet (`S5`): announced again, as its answer may be lost on the way.

use std::time::Duration;

use crate::member::MemberId;
use crate::record::RumorId;
use crate::table::{Set, Table};
use crate::time::Mono;

/// Repeats of an announcement.
const TRIES: u32 = 3;
/// Announced ids remembered, all peers together; one beyond is announced once.
const IDS_MAX: usize = 4_096;

struct Announced {
    ids: Set<RumorId>,
    deadline: Mono,
    tries: u32,
}

#[derive(Default)]
pub(super) struct Newer {
    /// To be announced now.
    fresh: Table<MemberId, Vec<RumorId>>,
    announced: Table<MemberId, Announced>,
}

impl Newer {
    /// This peer lacks this version of mine.
    pub fn add(&mut self, now: Mono, wait: Duration, peer: MemberId, id: RumorId) {
        self.fresh.or_default(peer).push(id);
        let known: usize = self.announced.values().map(|a| a.ids.len()).sum();
        if known < IDS_MAX {
            let new = Announced { ids: Set::new(), deadline: Mono::FAR, tries: 0 };
            let announced = self.announced.or_insert_with(peer, || new);
            announced.ids.insert(id);
            (announced.deadline, announced.tries) = (now + wait, 0);
        }
    }

    /// What to announce now, by peer.
    pub fn take(&mut self) -> Table<MemberId, Vec<RumorId>> {
        std::mem::take(&mut self.fresh)
    }

    /// The peer asks for these.
    pub fn asked(&mut self, peer: MemberId, ids: &[RumorId]) {
        let Some(announced) = self.announced.get_mut(&peer) else { return };
        for id in ids {
            announced.ids.remove(id);
        }
        if announced.ids.is_empty() {
            self.announced.remove(&peer);
        }
    }

    pub fn deadline(&self) -> Mono {
        self.announced.values().map(|a| a.deadline).min().unwrap_or(Mono::FAR)
    }

    /// Announces again what nobody asked for: it may have come another way, so not for long.
    pub fn handle_timeout(&mut self, now: Mono, wait: Duration) {
        let fresh = &mut self.fresh;
        self.announced.retain(|peer, announced| {
            if announced.deadline > now {
                return true;
            }
            announced.tries += 1;
            announced.deadline = now + wait * (1 << announced.tries);
            if announced.tries <= TRIES {
                fresh.or_default(*peer).extend(&announced.ids);
            }
            announced.tries <= TRIES
        });
    }

    pub fn forget(&mut self, peer: MemberId) {
        self.fresh.remove(&peer);
        self.announced.remove(&peer);
    }
}
