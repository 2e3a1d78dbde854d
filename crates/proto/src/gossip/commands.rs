//! What users ask and read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Gossip, Leave, Seed, check_tags};
use crate::config::Config;
use crate::entry::Entry;
use crate::member::{Liveness, Member, MemberId, Tags};
use crate::metrics::{Gauges, Metrics};
use crate::output::{CallError, Event, Written};
use crate::time::Now;

impl Gossip {
    /// Joins by these seeds, or replaces the seeds knocked at. While alone, the host resolves them anew and calls again.
    /// `Event::JoinEnded` follows once, after an answer, all tries, or `join_timeout`.
    pub fn join(&mut self, now: Now, seeds: Vec<Seed>) {
        if self.check_open().is_ok() {
            self.join.start(now, seeds, &self.roster, &mut self.rng);
        }
    }

    /// Takes these members as known and joining as done, in silence; records are shared, not copied. For simulations that
    /// begin with full views.
    pub fn adopt(&mut self, now: Now, members: &[Member]) {
        let me = self.roster.my_id();
        for member in members.iter().filter(|m| m.id() != me) {
            self.roster.merge(now, member);
        }
        self.join.adopted();
        self.absence.handle_joined();
        self.detector.start(now, &self.roster, &mut self.rng);
    }

    /// Leaves: incarnation + 1, state left, spread; `Event::LeaveEnded` when the rumor has gone its rounds (`J5`).
    pub fn leave(&mut self, now: Now) {
        if self.leave != Leave::No || self.conflicted {
            return;
        }
        self.roster.update_me(now.mono, |me| {
            me.incarnation = me.incarnation.next();
            me.liveness = Liveness::Left;
        });
        self.detector.stop();
        if self.roster.living() == 0 {
            self.leave = Leave::Done;
            self.tell(Event::LeaveEnded);
            return;
        }
        let claim = self.alive_claim();
        self.rumors.put_claim(now, claim, &mut self.rng);
        let rounds = ((self.roster.living() as f64 + 1.0).ln() / 3.0).ceil() as u32 + 1;
        let spread = self.config.gossip.interval * rounds + Duration::from_millis(50);
        self.leave = Leave::Spreading { until: now.mono + spread };
    }

    /// Replaces the own tags: revision + 1, spread (`J5`).
    ///
    /// # Errors
    /// [`CallError::Tags`], [`CallError::Left`].
    pub fn update_tags(&mut self, now: Now, tags: Tags) -> Result<(), CallError> {
        check_tags(&tags)?;
        self.check_open()?;
        self.update_profile(now, |p| p.tags = tags);
        Ok(())
    }

    /// Replaces the own address: revision + 1, spread (`J5`, `J7`).
    pub fn update_address(&mut self, now: Now, address: SocketAddr) {
        if self.check_open().is_ok() && self.roster.me().address() != address {
            self.update_profile(now, |p| p.address = address);
        }
    }

    fn update_profile(&mut self, now: Now, edit: impl FnOnce(&mut crate::member::Profile)) {
        self.roster.update_me(now.mono, |me| {
            let mut profile = (*me.profile).clone();
            profile.revision += 1;
            edit(&mut profile);
            me.profile = Arc::new(profile);
        });
        self.put_me(now);
        self.tell(Event::MemberUpdated(self.roster.me()));
    }

    pub(super) fn check_open(&self) -> Result<(), CallError> {
        if self.leave == Leave::No && !self.conflicted { Ok(()) } else { Err(CallError::Left) }
    }

    /// Writes a key on the local replica and starts its rumor.
    ///
    /// # Errors
    /// [`CallError`]: key, value, full store, left.
    pub fn set(
        &mut self,
        now: Now,
        key: &[u8],
        value: Arc<[u8]>,
        ttl_ms: Option<u64>,
    ) -> Result<Written, CallError> {
        self.check_open()?;
        let entry = self.store.set(now, key, value, ttl_ms, self.roster.my_id())?;
        Ok(self.written(now, entry, true))
    }

    /// Deletes a key; none if there was no live value.
    ///
    /// # Errors
    /// [`CallError`]: key, left.
    pub fn delete(&mut self, now: Now, key: &[u8]) -> Result<Option<Written>, CallError> {
        self.check_open()?;
        let entry = self.store.delete(now, key, self.roster.my_id())?;
        Ok(entry.map(|entry| self.written(now, entry, true)))
    }

    fn written(&mut self, now: Now, entry: Arc<Entry>, had: bool) -> Written {
        self.dropped.remove(&entry.key);
        self.tell_change(&entry, had);
        self.confirm_changed(&entry);
        let version = entry.version;
        let left_to_repair = self.put_own(now, entry);
        Written { version, backlogged: left_to_repair || self.rumors.backlogged(now) }
    }

    /// The newest known live entry of a user's key.
    pub fn get(&self, now: Now, key: &[u8]) -> Option<Arc<Entry>> {
        self.store.get(now, key).filter(|e| !e.is_reserved())
    }

    /// Live entries of users whose key begins with `prefix` and is greater than `after`, in key order, at most `count`.
    pub fn scan(&self, now: Now, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Vec<Arc<Entry>> {
        self.store.scan(now, prefix, after, count)
    }

    /// Number of live keys of users.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// No live keys?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Own id.
    pub fn id(&self) -> MemberId {
        self.roster.my_id()
    }

    /// Own record.
    pub fn me(&self) -> Option<Member> {
        Some(self.roster.me())
    }

    /// All members known, any liveness, self included.
    pub fn members(&self) -> Vec<Member> {
        self.roster.iter().collect()
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.roster.by_name(name)
    }

    /// Name of the member of this id, if it is known.
    pub fn name_of(&self, id: MemberId) -> Option<Arc<str>> {
        self.roster.profile(id).map(|p| p.name.clone())
    }

    /// Living members, self included.
    pub fn living(&self) -> usize {
        self.roster.living()
    }

    /// Phi of a member as users see it (section 5.1): on a watch edge that of its window; else none while alive, its
    /// accusers' largest while suspect, infinity when dead; 0 for oneself; none when left or unknown.
    pub fn phi(&self, now: Now, name: &str) -> Option<f64> {
        let member = self.roster.by_name(name)?;
        self.detector.phi(now, member.id(), &self.roster)
    }

    /// Adds a lasting watch edge (`D1`).
    ///
    /// # Errors
    /// [`CallError::UnknownMember`], [`CallError::TooManyObserved`].
    pub fn observe(&mut self, now: Now, name: &str) -> Result<(), CallError> {
        let member = self.roster.by_name(name).ok_or(CallError::UnknownMember)?;
        self.detector
            .observe(now, member.id(), &self.roster)
            .map_err(|_| CallError::TooManyObserved { max: crate::detector::OBSERVED_MAX })
    }

    /// Ends a lasting watch edge.
    pub fn unobserve(&mut self, now: Now, name: &str) {
        let _ = now;
        if let Some(member) = self.roster.by_name(name) {
            self.detector.unobserve(member.id());
        }
    }

    /// Merkle root of the replica: a hash of the member sum and the live entry sum, 32 bytes. Equal at members with equal
    /// views and entries; not the settled roots that BEATs carry.
    pub fn root(&self) -> [u8; 32] {
        let mut bytes = [0u8; 32];
        let (members, entries) = bytes.split_at_mut(16);
        members.copy_from_slice(&self.roster.sum().to_le_bytes());
        entries.copy_from_slice(&self.store.live_sum().to_le_bytes());
        self.roster.hasher().key().long(&bytes)
    }

    /// Counters and present values.
    pub fn metrics(&self, now: Now) -> Metrics {
        let alive = self.roster.alive();
        Metrics {
            traffic: self.traffic,
            detector: self.detector_metrics(),
            rumors: self.rumor_metrics(),
            sync: self.sync_metrics(),
            talk: self.talk_metrics(),
            gauges: Gauges {
                members_alive: alive as u64,
                members_suspect: (self.roster.living() - alive) as u64,
                members_dead: self.roster.dead() as u64,
                members_left: self.roster.left() as u64,
                rumors_hot: (self.rumors.hot_claims() + self.rumors.hot_members() + self.rumors.hot_entries())
                    as u64,
                backlog_age_ms: self.rumors.backlog_age(now).as_millis() as u64,
                store_keys: self.store.len() as u64,
                store_bytes: self.store.bytes() as u64,
                store_tombstones: self.store.tombstones() as u64,
                clock_off_ms: self.clock.off_ms(),
            },
        }
    }

    /// Compares incremental state with a rebuild and tables with their limits: for simulators and fuzzers, slow.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.roster.audit()?;
        self.store.audit()?;
        self.audit_tables()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
