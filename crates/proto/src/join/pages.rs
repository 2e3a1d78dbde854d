//! Server side of a PULL of the members: living members in order of the place of their name.

use std::time::Duration;

use crate::member::{Claim, MemberId};
use crate::record::{Record, Tree};
use crate::roster::Roster;
use crate::time::Mono;
use crate::wire::{Page, claim_bytes, record_bytes};

/// Above this many members the order is built anew at most each [`REBUILD_GAP`]; who came since travels as a rumor.
const REBUILD_ALWAYS_UP_TO: usize = 512;
const REBUILD_GAP: Duration = Duration::from_millis(100);

/// Head of a frame's PAGE without records: kind, length, tree, from, next, last, two counts.
const PAGE_OVERHEAD_BYTES: usize = 5 + 1 + 8 + 8 + 1 + 2 * 3;

/// The order of the living, built when the roster has changed.
pub(super) struct MemberOrder {
    changes: Option<u64>,
    built: Mono,
    order: Vec<(u64, MemberId)>,
}

impl MemberOrder {
    pub(super) fn new() -> MemberOrder {
        MemberOrder { changes: None, built: Mono(0), order: Vec::new() }
    }

    fn refresh(&mut self, now: Mono, roster: &Roster) {
        let fresh = self.changes.is_some()
            && self.order.len() > REBUILD_ALWAYS_UP_TO
            && now.since(self.built) < REBUILD_GAP;
        if self.changes == Some(roster.changes()) || fresh {
            return;
        }
        self.changes = Some(roster.changes());
        self.built = now;
        self.order.clear();
        let hasher = roster.hasher();
        self.order.extend(
            roster
                .living_ids()
                .filter_map(|id| Some((hasher.place(roster.profile(id)?.name.as_bytes()), id))),
        );
        self.order.sort_unstable();
    }

    /// The page that starts at `from`, its message at most `bytes_max` long but for one record, which always fits.
    pub(super) fn page(
        &mut self,
        now: Mono,
        from: u64,
        bytes_max: usize,
        roster: &Roster,
        claim_of: &dyn Fn(MemberId) -> Option<Claim>,
    ) -> (Page, usize) {
        self.refresh(now, roster);
        let mut page = Page {
            tree: Tree::Members,
            from,
            next: u64::MAX,
            last: true,
            records: Vec::new(),
            claims: Vec::new(),
        };
        let mut bytes = PAGE_OVERHEAD_BYTES;
        let start = self.order.partition_point(|&(place, _)| place < from);
        for &(place, id) in self.order.iter().skip(start) {
            let Some(member) = roster.get(id).filter(|m| m.liveness.is_living()) else { continue };
            let claim = claim_of(id);
            let record = Record::Member(member);
            let more = record_bytes(&record) + claim.as_ref().map_or(0, claim_bytes);
            if bytes + more > bytes_max && !page.records.is_empty() {
                page.next = place.max(from.saturating_add(1));
                page.last = false;
                break;
            }
            bytes += more;
            page.records.push(record);
            page.claims.extend(claim);
        }
        (page, bytes)
    }
}
