//! What a heal cost and brought: from the first member that came back to equal roots, or 30 s.

use std::sync::Arc;
use std::time::Duration;

use super::Gossip;
use crate::member::MemberId;
use crate::metrics::SyncMetrics;
use crate::output::{Event, Healed};
use crate::table::Set;
use crate::time::{Mono, Now};

/// A heal is told at the latest after this.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// Equal roots count as the end only when nobody has come back for this long: those of one that came back, and those of
/// another, which may lack the same entries as I do.
const HEAL_QUIET: Duration = Duration::from_secs(1);
const HEAL_QUIET_OTHERS: Duration = Duration::from_secs(5);

/// The heal under way, if any.
#[derive(Default)]
pub(super) struct Heal(Option<Running>);

struct Running {
    since: Mono,
    last: Mono,
    members: Set<Arc<str>>,
    before: SyncMetrics,
}

impl Heal {
    /// A member held dead came back.
    pub(super) fn begin(&mut self, now: Mono, name: Arc<str>, before: SyncMetrics) {
        let running =
            self.0.get_or_insert_with(|| Running { since: now, last: now, members: Set::new(), before });
        running.last = now;
        running.members.insert(name);
    }

    /// When it ends at the latest.
    pub(super) fn deadline(&self) -> Mono {
        self.0.as_ref().map_or(Mono::FAR, |r| r.since + HEAL_MAX)
    }
}

impl Gossip {
    /// A comparison found both trees equal to this peer's.
    pub(super) fn note_equal(&mut self, now: Now, peer: MemberId) {
        let quiet = if self.revived.contains_key(&peer) { HEAL_QUIET } else { HEAL_QUIET_OTHERS };
        if self.heal.0.as_ref().is_some_and(|r| r.last + quiet <= now.mono) {
            self.end_heal(now);
        }
    }

    pub(super) fn end_heal(&mut self, now: Now) {
        let Some(running) = self.heal.0.take() else { return };
        let after = self.sync_metrics();
        let before = running.before;
        self.tell(Event::PartitionHealed(Healed {
            members: running.members.iter().cloned().collect(),
            keys_received: after.records_received - before.records_received,
            keys_sent: after.records_sent - before.records_sent,
            bytes: after.bytes_sent + after.bytes_received - before.bytes_sent - before.bytes_received,
            duration_ms: now.mono.since(running.since).as_millis() as u64,
        }));
    }
}
