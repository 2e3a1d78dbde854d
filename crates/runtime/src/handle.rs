//! The handle: lock, one mutation, wake the driver, return by value.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearsay_proto::config::Config;
use hearsay_proto::entry::Entry;
use hearsay_proto::gossip::Gossip;
use hearsay_proto::member::{Generation, Member, MemberId, Tags};
use hearsay_proto::output::{Event, Written};
use hearsay_proto::time::{Mono, Now, Wall};
use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::faults::Faults;
use crate::metrics::{Counters, Metrics};
use crate::process::Process;
use crate::seal::Sealer;
use crate::storage::Saved;

/// Entries returned by one [`Handle::scan`] at most: the lock is held for one such chunk.
pub const SCAN_CHUNK_MAX: usize = 1_024;

/// Everything a member needs to start.
#[derive(Clone)]
pub struct Options {
    /// The protocol's configuration; `seal_bytes` is set by [`crate::start()`].
    pub config: Config,
    /// 1..=128 bytes of printable UTF-8.
    pub name: String,
    /// Largest generation this name is known to have used before.
    pub generation_stored: Option<Generation>,
    /// `host:port` for UDP and TCP; port 0 picks one. IPv6 in brackets.
    pub bind: String,
    /// `host:port` others should use (`J7`); none: the bound address, else the outward one.
    pub advertise: Option<String>,
    /// Tags.
    pub tags: Tags,
    /// Cluster keys: the first seals, all open. None: datagrams carry a checksum only.
    pub keys: Vec<[u8; 32]>,
    /// `host:port` of members to join by; names are resolved to all their addresses.
    pub seeds: Vec<String>,
    /// Folder of the member's own in which generation and replica survive a restart; made if it is not there.
    pub storage: Option<PathBuf>,
}

impl Options {
    /// A lan member of this name on a free port of 127.0.0.1, alone.
    pub fn new(name: impl Into<String>) -> Options {
        Options {
            config: Config::lan(),
            name: name.into(),
            generation_stored: None,
            bind: "127.0.0.1:0".to_owned(),
            advertise: None,
            tags: Tags::new(),
            keys: Vec::new(),
            seeds: Vec::new(),
            storage: None,
        }
    }
}

impl std::fmt::Debug for Options {
    /// Keys are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("bind", &self.bind)
            .field("advertise", &self.advertise)
            .field("keys", &self.keys.len())
            .field("seeds", &self.seeds)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

/// Who is told. Called on the thread `hearsay`, never with the lock held, in the order things happened; it may call the
/// [`Handle`]. It must not block: heartbeats wait for it.
pub trait Listener: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: Event);

    /// The state machine or this listener panicked: the cluster stops, the process lives. At most once.
    fn failed(&self, reason: String) {
        let _ = reason;
    }

    /// The store on disk began to fail, for this reason, or works again. The member goes on in memory meanwhile. Called on the
    /// thread `hearsay-disk`.
    fn storage(&self, failure: Option<String>) {
        let _ = failure;
    }

    /// Sockets are closed; the last call.
    fn stopped(&self) {}
}

/// How far a member's life has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Running,
    Left,
    Stopped,
}

/// What handles, driver and stream tasks share.
pub(crate) struct Shared {
    gossip: Mutex<Gossip>,
    origin: Instant,
    /// Asks the driver to drain.
    pub(crate) wake: Notify,
    /// Asks the driver to end.
    pub(crate) stop: Notify,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) seeds: watch::Sender<Vec<String>>,
    pub(crate) faults: Faults,
    pub(crate) sealer: Sealer,
    pub(crate) counters: Counters,
    pub(crate) local: SocketAddr,
    pub(crate) process: Mutex<Option<Arc<Process>>>,
    pub(crate) kernel_drops: crate::socket::KernelDrops,
    /// How far writes are on the disk.
    pub(crate) saved: watch::Sender<Saved>,
    has_storage: bool,
}

/// The parts of [`Shared`] that differ from cluster to cluster.
pub(crate) struct Parts {
    pub(crate) gossip: Gossip,
    pub(crate) origin: Instant,
    pub(crate) seeds: Vec<String>,
    pub(crate) sealer: Sealer,
    pub(crate) local: SocketAddr,
    pub(crate) process: Arc<Process>,
    pub(crate) kernel_drops: crate::socket::KernelDrops,
    pub(crate) has_storage: bool,
}

/// Both clocks, the monotonic one since `origin`.
pub(crate) fn now_since(origin: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Mono(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        wall: Wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Shared {
        Shared {
            gossip: Mutex::new(parts.gossip),
            origin: parts.origin,
            wake: Notify::new(),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
            phase: watch::Sender::new(Phase::Running),
            seeds: watch::Sender::new(parts.seeds),
            faults: Faults::default(),
            sealer: parts.sealer,
            counters: Counters::default(),
            local: parts.local,
            process: Mutex::new(Some(parts.process)),
            kernel_drops: parts.kernel_drops,
            saved: watch::Sender::new(Saved::default()),
            has_storage: parts.has_storage,
        }
    }

    /// Runs `f` on the state machine under the lock; a panic ends the cluster, not the process.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Gossip, Now) -> R) -> Result<R, Error> {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut gossip = lock(&self.gossip);
            if self.is_stopping() {
                return None;
            }
            let now = now_since(self.origin);
            Some(f(&mut gossip, now))
        }));
        match ran {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(self.stopped_error()),
            Err(payload) => {
                self.fail(panic_text(payload.as_ref()));
                Err(self.stopped_error())
            }
        }
    }

    /// As [`Shared::with`], but also while the member ends; none if it panics.
    pub(crate) fn at_end<R>(&self, f: impl FnOnce(&mut Gossip, Now) -> R) -> Option<R> {
        let ran = catch_unwind(AssertUnwindSafe(|| f(&mut lock(&self.gossip), now_since(self.origin))));
        ran.map_err(|payload| self.fail(panic_text(payload.as_ref()))).ok()
    }

    /// Instant at which the state machine's clock shows `mono`; none if never.
    pub(crate) fn instant(&self, mono: Mono) -> Option<Instant> {
        if mono == Mono::FAR { None } else { self.origin.checked_add(Duration::from_nanos(mono.0)) }
    }

    /// Records why, and stops.
    pub(crate) fn fail(&self, reason: String) {
        lock(&self.failure).get_or_insert(reason);
        self.begin_stop();
    }

    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    pub(crate) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_one();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn stopped_error(&self) -> Error {
        self.failure().map_or(Error::Stopped, Error::Failed)
    }

    async fn reached(&self, phase: Phase) {
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }
}

/// Text of a caught panic.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
    text.unwrap_or("panicked").to_owned()
}

/// Stops the cluster when the last handle goes.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.begin_stop();
    }
}

/// One running member. Clones are the same member; when the last is dropped the member stops. After a stop every command
/// fails with [`Error::Stopped`]. Commands are synchronous and wait for nothing but the lock, which is held for
/// microseconds; futures may be awaited on any executor.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { _guard: Arc::new(Guard(Arc::clone(&shared))), shared }
    }

    /// Any mutation of the state machine: lock, one call, wake the driver. What has no method of its own goes here.
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Failed`] if it panicked, now or before.
    pub fn update<R>(&self, f: impl FnOnce(&mut Gossip, Now) -> R) -> Result<R, Error> {
        let value = self.shared.with(f);
        self.shared.wake.notify_one();
        value
    }

    /// Any look at the state machine under the lock; the driver is not woken. Keep it short.
    ///
    /// # Errors
    /// As [`Handle::update`].
    pub fn read<R>(&self, f: impl FnOnce(&Gossip, Now) -> R) -> Result<R, Error> {
        self.shared.with(|gossip, now| f(gossip, now))
    }

    /// Writes a key on the local replica and starts its rumor; `ttl_ms` is its lifetime.
    ///
    /// # Errors
    /// [`Error::Call`]: key, value, full store, left; [`Error::Stopped`].
    pub fn set(&self, key: &[u8], value: Arc<[u8]>, ttl_ms: Option<u64>) -> Result<Written, Error> {
        Ok(self.update(|gossip, now| gossip.set(now, key, value, ttl_ms))??)
    }

    /// Deletes a key; none if there was no live value.
    ///
    /// # Errors
    /// [`Error::Call`]: key, left; [`Error::Stopped`].
    pub fn delete(&self, key: &[u8]) -> Result<Option<Written>, Error> {
        Ok(self.update(|gossip, now| gossip.delete(now, key))??)
    }

    /// The newest known live entry of a key.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Arc<Entry>>, Error> {
        self.read(|gossip, now| gossip.get(now, key))
    }

    /// Live entries whose key begins with `prefix` and is greater than `after`, in key order: at most `count` and at most
    /// [`SCAN_CHUNK_MAX`]. An empty answer is the end.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Result<Vec<Arc<Entry>>, Error> {
        self.read(|gossip, now| gossip.scan(now, prefix, after, count.min(SCAN_CHUNK_MAX)))
    }

    /// Number of live keys of users.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn len(&self) -> Result<usize, Error> {
        self.read(|gossip, _| gossip.len())
    }

    /// No live keys?
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Own id.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn id(&self) -> Result<MemberId, Error> {
        self.read(|gossip, _| gossip.id())
    }

    /// Own record.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn me(&self) -> Result<Option<Member>, Error> {
        self.read(|gossip, _| gossip.me())
    }

    /// All members known, any liveness, self included.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        self.read(|gossip, _| gossip.members())
    }

    /// The member of this name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn member(&self, name: &str) -> Result<Option<Member>, Error> {
        self.read(|gossip, _| gossip.member(name))
    }

    /// Living members, self included.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn living(&self) -> Result<usize, Error> {
        self.read(|gossip, _| gossip.living())
    }

    /// Phi of a member as users see it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn phi(&self, name: &str) -> Result<Option<f64>, Error> {
        self.read(|gossip, now| gossip.phi(now, name))
    }

    /// Adds a lasting watch edge (`D1`).
    ///
    /// # Errors
    /// [`Error::Call`]: unknown member, too many; [`Error::Stopped`].
    pub fn observe(&self, name: &str) -> Result<(), Error> {
        Ok(self.update(|gossip, now| gossip.observe(now, name))??)
    }

    /// Ends a lasting watch edge.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn unobserve(&self, name: &str) -> Result<(), Error> {
        self.update(|gossip, now| gossip.unobserve(now, name))
    }

    /// Replaces the own tags.
    ///
    /// # Errors
    /// [`Error::Call`]: tags; [`Error::Stopped`].
    pub fn update_tags(&self, tags: Tags) -> Result<(), Error> {
        Ok(self.update(|gossip, now| gossip.update_tags(now, tags))??)
    }

    /// Merkle root of the replica.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn root(&self) -> Result<[u8; 32], Error> {
        self.read(|gossip, _| gossip.root())
    }

    /// Counters and present values. Stays readable after a stop, without the protocol's part.
    pub fn metrics(&self) -> Metrics {
        let mut host = self.shared.counters.read();
        host.kernel_drops = self.shared.kernel_drops.read();
        Metrics { protocol: self.read(|gossip, now| gossip.metrics(now)).unwrap_or_default(), host }
    }

    /// Replaces the seeds; they are resolved in the background and joined by. For cluster `join` and for seed functions,
    /// which the caller evaluates.
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Option`] for a seed that is not `host:port`.
    pub fn set_seeds(&self, seeds: Vec<String>) -> Result<(), Error> {
        if self.is_stopped() {
            return Err(self.shared.stopped_error());
        }
        crate::start::check_seeds(&seeds)?;
        self.shared.seeds.send_replace(seeds);
        Ok(())
    }

    /// Replaces the ring of cluster keys: the first seals, all open.
    ///
    /// # Errors
    /// [`Error::Keys`]: none given, too many, or the cluster is not sealed; [`Error::Stopped`].
    pub fn set_keys(&self, keys: &[[u8; 32]]) -> Result<(), Error> {
        if self.is_stopped() {
            return Err(self.shared.stopped_error());
        }
        self.shared.sealer.set_keys(keys)
    }

    /// Leaves: spreads the intent, waits until it has gone its rounds, at most `timeout`, then stops. Idempotent.
    pub async fn leave(&self, timeout: Duration) {
        let process = lock(&self.shared.process).clone();
        if self.update(|gossip, now| gossip.leave(now)).is_ok() {
            let shared = Arc::clone(&self.shared);
            let wait = async move {
                let _ = tokio::time::timeout(timeout, shared.reached(Phase::Left)).await;
            };
            if let Some(task) = process.and_then(|process| process.spawn(wait)) {
                let _ = task.await;
            }
        }
        self.stop().await;
    }

    /// Waits until every write so far would survive a loss of power, at most `timeout`; false if the time is over.
    ///
    /// # Errors
    /// [`Error::NoStorage`]; [`Error::Storage`] if the disk fails, now or since before; [`Error::Stopped`] if the member ends
    /// first.
    pub async fn flush(&self, timeout: Duration) -> Result<bool, Error> {
        if !self.shared.has_storage {
            return Err(Error::NoStorage);
        }
        let asked = self.update(|gossip, _| gossip.flush())?;
        let process = lock(&self.shared.process).clone().ok_or(Error::Stopped)?;
        let shared = Arc::clone(&self.shared);
        let wait = async move {
            let (mut saved, mut phase) = (shared.saved.subscribe(), shared.phase.subscribe());
            let done = saved.wait_for(|saved| saved.through >= asked || saved.failure.is_some());
            let ended = phase.wait_for(|phase| *phase >= Phase::Stopped);
            tokio::select! {
                biased;
                done = done => match done {
                    Ok(saved) if saved.through >= asked => Ok(true),
                    Ok(saved) => Err(Error::StorageFails(saved.failure.as_deref().unwrap_or_default().to_owned())),
                    Err(_) => Err(Error::Stopped),
                },
                _ = ended => Err(shared.stopped_error()),
                () = tokio::time::sleep(timeout) => Ok(false),
            }
        };
        let task = process.spawn(wait).ok_or(Error::Stopped)?;
        task.await.map_err(|error| Error::Failed(error.to_string()))?
    }

    /// Stops at once; others see a crash. Resolves when the sockets are closed and the port is free. Idempotent.
    pub async fn stop(&self) {
        self.shared.begin_stop();
        self.shared.reached(Phase::Stopped).await;
    }

    /// Asks for a stop without waiting, from any thread.
    pub fn begin_stop(&self) {
        self.shared.begin_stop();
    }

    /// Was a stop asked for, or did the member fail?
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Faults on purpose.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The bound address, UDP and TCP.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }
}
