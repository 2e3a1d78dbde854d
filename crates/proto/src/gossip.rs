//! The hall: the only file that sees all parts; every input enters and every output leaves here.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::entry::{Entry, Version};
use crate::member::{Generation, Member, MemberId, Tags};
use crate::metrics::Metrics;
use crate::output::{CallError, Output, StreamId, Written};
use crate::time::Now;

/// Who a member is at start.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    /// 1..=128 bytes of printable UTF-8.
    pub name: String,
    /// Largest generation this name is known to have used before; the new one is max(that + 1, wall clock ms).
    pub generation_stored: Option<Generation>,
    /// Address others should use.
    pub address: SocketAddr,
    /// Tags.
    pub tags: Tags,
}

/// A seed after resolution by the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// As the user wrote it.
    pub name: String,
    /// What it resolved to, or why not.
    pub addresses: Result<Vec<SocketAddr>, String>,
}

/// One member's protocol state machine: inputs are `handle_*`, commands imperative, outputs [`Gossip::poll_output`].
/// After each input or command, poll until [`Output::Wait`].
pub struct Gossip {
    config: Config,
}

impl Gossip {
    /// A member alone in its cluster. `seed` is 32 bytes of the host's entropy.
    ///
    /// # Errors
    /// [`CallError`] for a wrong configuration, name or tags.
    pub fn new(config: Config, identity: Identity, seed: [u8; 32], now: Now) -> Result<Gossip, CallError> {
        config.check().map_err(CallError::Config)?;
        let _ = (identity, seed, now);
        Ok(Gossip { config })
    }

    /// A plain datagram (header and messages, seal removed and checked) arrived from this source.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, plain: &[u8]) {
        let _ = (now, from, plain);
    }

    /// A stream opened by [`Output::Open`] is connected.
    pub fn handle_stream_opened(&mut self, now: Now, stream: StreamId) {
        let _ = (now, stream);
    }

    /// The host accepted a stream and named it with an odd id.
    pub fn handle_stream_accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) {
        let _ = (now, stream, from);
    }

    /// A plain frame arrived.
    pub fn handle_frame(&mut self, now: Now, stream: StreamId, plain: &[u8]) {
        let _ = (now, stream, plain);
    }

    /// The last frame of this stream has left; there is room for one more.
    pub fn handle_stream_writable(&mut self, now: Now, stream: StreamId) {
        let _ = (now, stream);
    }

    /// The stream failed to open, broke, or was closed by the peer.
    pub fn handle_stream_closed(&mut self, now: Now, stream: StreamId) {
        let _ = (now, stream);
    }

    /// The time of the last [`Output::Wait`] has come, or any later moment.
    pub fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    /// The next thing to do. The bytes of a `Transmit` or `Send` are in `buf`, which is cleared first.
    pub fn poll_output(&mut self, now: Now, buf: &mut Vec<u8>) -> Output {
        let _ = now;
        buf.clear();
        Output::Wait(crate::time::Mono::FAR)
    }

    /// Joins by these seeds, or replaces the seeds knocked at. While alone, the host resolves them anew and calls again.
    /// `Event::JoinEnded` follows once, after an answer, all tries, or `join_timeout`.
    pub fn join(&mut self, now: Now, seeds: Vec<Seed>) {
        let _ = (now, seeds);
    }

    /// Leaves: incarnation + 1, state left, spread; `Event::LeaveEnded` when the rumor has gone its rounds.
    pub fn leave(&mut self, now: Now) {
        let _ = now;
    }

    /// Replaces the own tags.
    ///
    /// # Errors
    /// [`CallError::Tags`].
    pub fn update_tags(&mut self, now: Now, tags: Tags) -> Result<(), CallError> {
        let _ = (now, tags);
        Ok(())
    }

    /// Replaces the own address.
    pub fn update_address(&mut self, now: Now, address: SocketAddr) {
        let _ = (now, address);
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
        let _ = (now, key, value, ttl_ms);
        Ok(Written { version: Version::default(), backlogged: false })
    }

    /// Deletes a key; none if there was no live value.
    ///
    /// # Errors
    /// [`CallError`]: key, left.
    pub fn delete(&mut self, now: Now, key: &[u8]) -> Result<Option<Written>, CallError> {
        let _ = (now, key);
        Ok(None)
    }

    /// The newest known live entry of a key.
    pub fn get(&self, now: Now, key: &[u8]) -> Option<Arc<Entry>> {
        let _ = (now, key);
        None
    }

    /// Live entries of users whose key begins with `prefix` and is greater than `after`, in key order, at most `count`.
    pub fn scan(&self, now: Now, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Vec<Arc<Entry>> {
        let _ = (now, prefix, after, count);
        Vec::new()
    }

    /// Number of live keys of users.
    pub fn len(&self) -> usize {
        0
    }

    /// No live keys?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Own id.
    pub fn id(&self) -> MemberId {
        MemberId::NONE
    }

    /// Own record.
    pub fn me(&self) -> Option<Member> {
        None
    }

    /// All members known, any liveness, self included.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<Member> {
        let _ = name;
        None
    }

    /// Living members, self included.
    pub fn living(&self) -> usize {
        1
    }

    /// Phi of a member as users see it (section 5.1): see `API.md`.
    pub fn phi(&self, now: Now, name: &str) -> Option<f64> {
        let _ = (now, name);
        None
    }

    /// Adds a lasting watch edge (`D1`).
    ///
    /// # Errors
    /// [`CallError::UnknownMember`], [`CallError::TooManyObserved`].
    pub fn observe(&mut self, now: Now, name: &str) -> Result<(), CallError> {
        let _ = (now, name);
        Ok(())
    }

    /// Ends a lasting watch edge.
    pub fn unobserve(&mut self, now: Now, name: &str) {
        let _ = (now, name);
    }

    /// Merkle root of the replica: a hash of the member sum and the live entry sum, 32 bytes.
    pub fn root(&self) -> [u8; 32] {
        [0; 32]
    }

    /// Counters and present values.
    pub fn metrics(&self, now: Now) -> Metrics {
        let _ = now;
        Metrics::default()
    }

    /// Compares incremental state with a rebuild and tables with their limits: for simulators and fuzzers, slow.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn audit(&self) -> Result<(), String> {
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
