//! One running member as JavaScript holds it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hearsay_proto::entry::Entry;
use hearsay_proto::output::{Event, Written};
use hearsay_runtime::{Error, Handle, Listener, SCAN_CHUNK_MAX};
use napi::bindgen_prelude::{Buffer, Function, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;

use crate::convert::{self, JsError, StartOptions, Writer, millis, refused};
use crate::events::{Drained, Ring, Wake};

/// A page ends with the first entry that takes it over this.
const PAGE_BYTES: usize = 1 << 20;

/// Wakes JavaScript, with nothing but the call; it never keeps the process alive.
type Waker = ThreadsafeFunction<(), (), (), Status, false, true, 2>;

thread_local! {
    /// Members of this environment, to be stopped when it goes.
    static RUNNING: RefCell<Vec<Weak<Shared>>> = const { RefCell::new(Vec::new()) };
    static HOOKED: Cell<bool> = const { Cell::new(false) };
}

/// What JavaScript's thread and the driver's share.
struct Shared {
    ring: Ring,
    waker: Mutex<Option<Waker>>,
    life: Mutex<Life>,
}

enum Life {
    Starting,
    Running(Handle),
    Stopped,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn wake(&self, wake: Wake) {
        if wake == Wake::Now
            && let Some(waker) = &*lock(&self.waker)
        {
            // A full queue means that a wake-up is under way; a closing one that nobody is left.
            let _ = waker.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn handle(&self) -> Result<Handle, JsError> {
        match &*lock(&self.life) {
            Life::Running(handle) => Ok(handle.clone()),
            Life::Starting | Life::Stopped => Err(refused(Error::Stopped)),
        }
    }

    /// The start has ended. A stop that came first wins.
    fn started(&self, result: Result<Handle, Error>) {
        let mut life = lock(&self.life);
        let starting = matches!(*life, Life::Starting);
        match result {
            Ok(handle) if starting => {
                *life = Life::Running(handle);
                drop(life);
                self.wake(self.ring.started(Ok(())));
            }
            Ok(handle) => handle.begin_stop(),
            Err(error) => {
                *life = Life::Stopped;
                drop(life);
                if starting {
                    self.wake(self.ring.started(Err(&error)));
                } else {
                    self.wake(self.ring.stopped());
                }
            }
        }
    }

    /// Asks for the end; the event that it has come follows.
    fn begin_stop(&self) {
        let life = std::mem::replace(&mut *lock(&self.life), Life::Stopped);
        if let Life::Running(handle) = life {
            handle.begin_stop();
        }
    }

    /// Nobody listens any more.
    fn abandon(&self) {
        self.ring.close();
        self.begin_stop();
        drop(lock(&self.waker).take());
    }
}

/// The runtime's listener: everything goes into the ring.
struct ToRing(Arc<Shared>);

impl Listener for ToRing {
    fn event(&self, event: Event) {
        self.0.wake(self.0.ring.event(event));
    }

    fn failed(&self, reason: String) {
        self.0.wake(self.0.ring.failed(&reason));
    }

    fn storage(&self, failure: Option<String>) {
        self.0.wake(self.0.ring.storage(failure.as_deref()));
    }

    fn stopped(&self) {
        self.0.wake(self.0.ring.stopped());
    }
}

/// Stops every member of this environment when it goes.
fn remember(env: Env, shared: &Arc<Shared>) -> Result<(), JsError> {
    if !HOOKED.replace(true) {
        let hook = env.add_env_cleanup_hook((), |()| {
            let running = RUNNING.try_with(|running| running.take()).unwrap_or_default();
            running.iter().filter_map(Weak::upgrade).for_each(|shared| shared.abandon());
        });
        hook.map_err(|error| JsError::new("ERR_HEARSAY_INTERNAL", error.reason))?;
    }
    RUNNING.with_borrow_mut(|running| {
        running.retain(|other| other.strong_count() > 0);
        running.push(Arc::downgrade(shared));
    });
    Ok(())
}

/// One member. Commands before the event `Started` or after a stop throw `ERR_HEARSAY_STOPPED`.
#[napi]
pub struct NativeCluster {
    shared: Arc<Shared>,
}

impl Drop for NativeCluster {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

fn written(written: &Written) -> String {
    let mark = if written.backlogged { "!" } else { "" };
    format!("{}{mark}", written.version)
}

fn addresses(texts: &[String]) -> Result<Vec<SocketAddr>, JsError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            JsError::new("ERR_HEARSAY_ARGUMENT", format!("'{text}' is not 'ip:port' of a member"))
        })
    };
    texts.iter().map(parse).collect()
}

impl NativeCluster {
    /// The running member's handle.
    pub(crate) fn handle(&self) -> Result<Handle, JsError> {
        self.shared.handle()
    }
}

#[napi]
impl NativeCluster {
    /// Begins a start; the event `Started` or `StartFailed` follows. `wake` is called when there is something to drain.
    #[napi(factory)]
    pub fn start(
        env: Env,
        options: StartOptions,
        wake: Function<'_, (), ()>,
    ) -> Result<NativeCluster, JsError> {
        let options = options.into_options()?;
        let waker = wake
            .build_threadsafe_function()
            .callee_handled::<false>()
            .weak::<true>()
            .max_queue_size::<2>()
            .build()
            .map_err(|error| JsError::new("ERR_HEARSAY_INTERNAL", error.reason))?;
        let shared = Arc::new(Shared {
            ring: Ring::default(),
            waker: Mutex::new(Some(waker)),
            life: Mutex::new(Life::Starting),
        });
        remember(env, &shared)?;
        let starting = Arc::clone(&shared);
        hearsay_runtime::spawn(async move {
            let listener = Arc::new(ToRing(Arc::clone(&starting)));
            starting.started(hearsay_runtime::start(options, listener).await);
        })
        .map_err(refused)?;
        Ok(NativeCluster { shared })
    }

    /// Copies packed events to `buffer`: the bytes copied; 0 when none waits; minus the length needed for the next one.
    #[napi]
    pub fn drain(&self, mut buffer: Uint8Array) -> f64 {
        // SAFETY: JavaScript's thread is in this call, and nothing else holds the buffer's memory meanwhile.
        match self.shared.ring.drain(unsafe { buffer.as_mut() }) {
            Drained::Bytes(bytes) => bytes as f64,
            Drained::Needs(bytes) => -(bytes as f64),
        }
    }

    /// Whether changes of the replica are wanted.
    #[napi]
    pub fn watch(&self, watched: bool) {
        self.shared.ring.watch(watched);
    }

    /// Leaves within `timeout_ms`, then stops; the event `Stopped` follows.
    #[napi]
    pub fn leave(&self, timeout_ms: f64) -> Result<(), JsError> {
        let handle = self.shared.handle()?;
        hearsay_runtime::spawn(async move { handle.leave(millis(timeout_ms)).await }).map_err(refused)?;
        Ok(())
    }

    /// Stops at once; the event `Stopped` follows.
    #[napi]
    pub fn stop(&self) {
        self.shared.begin_stop();
    }

    /// Frees what is left after the event `Stopped` or `StartFailed`.
    #[napi]
    pub fn close(&self) {
        self.shared.abandon();
    }

    /// The bound `ip:port`.
    #[napi]
    pub fn local_address(&self) -> Result<String, JsError> {
        Ok(self.shared.handle()?.local_addr().to_string())
    }

    /// Writes the UTF-8 of a string: the version, and `!` behind it if own writes are backlogged.
    #[napi]
    pub fn set_text(&self, key: String, value: String, ttl_ms: Option<f64>) -> Result<String, JsError> {
        self.set(key, value.as_bytes(), ttl_ms)
    }

    /// Writes bytes; as `setText`.
    #[napi]
    pub fn set_bytes(&self, key: String, value: Uint8Array, ttl_ms: Option<f64>) -> Result<String, JsError> {
        self.set(key, value.as_ref(), ttl_ms)
    }

    fn set(&self, key: String, value: &[u8], ttl_ms: Option<f64>) -> Result<String, JsError> {
        let ttl_ms = ttl_ms.map(|ms| ms as u64);
        let done = self.shared.handle()?.set(key.as_bytes(), Arc::from(value), ttl_ms);
        done.map(|done| written(&done)).map_err(refused)
    }

    /// Deletes a key; false if it was not there.
    #[napi]
    pub fn delete(&self, key: String) -> Result<bool, JsError> {
        Ok(self.shared.handle()?.delete(key.as_bytes()).map_err(refused)?.is_some())
    }

    fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>, JsError> {
        self.shared.handle()?.get(key.as_bytes()).map_err(refused)
    }

    /// Waits until every write so far is on disk; the event `Flushed` with this number follows.
    #[napi]
    pub fn flush(&self, number: f64, timeout_ms: f64) -> Result<(), JsError> {
        let (handle, shared) = (self.shared.handle()?, Arc::clone(&self.shared));
        hearsay_runtime::spawn(async move {
            let flushed = handle.flush(millis(timeout_ms)).await;
            shared.wake(shared.ring.flushed(number, &flushed));
        })
        .map_err(refused)?;
        Ok(())
    }

    /// A value as a string; throws `ERR_HEARSAY_CODEC` if it is not UTF-8.
    #[napi]
    pub fn get_text(&self, key: String) -> Result<Option<String>, JsError> {
        let Some(entry) = self.entry(&key)? else { return Ok(None) };
        match std::str::from_utf8(&entry.value) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(JsError::new("ERR_HEARSAY_CODEC", format!("the value of '{key}' is not UTF-8"))),
        }
    }

    /// A value's bytes.
    #[napi]
    pub fn get_bytes(&self, key: String) -> Result<Option<Buffer>, JsError> {
        Ok(self.entry(&key)?.map(|entry| Buffer::from(entry.value.to_vec())))
    }

    /// Is the key there?
    #[napi]
    pub fn has(&self, key: String) -> Result<bool, JsError> {
        Ok(self.entry(&key)?.is_some())
    }

    /// Number of live keys.
    #[napi]
    pub fn length(&self) -> Result<f64, JsError> {
        Ok(self.shared.handle()?.len().map_err(refused)? as f64)
    }

    /// A page of packed entries after `after`, in key order. Each is of kind 1 if another follows, though that may be on the next page, and
    /// 0 if not. Without `values` they are left out.
    #[napi]
    pub fn scan(&self, prefix: String, after: Option<Buffer>, values: bool) -> Result<Buffer, JsError> {
        let entries = self
            .shared
            .handle()?
            .scan(prefix.as_bytes(), after.as_deref(), SCAN_CHUNK_MAX)
            .map_err(refused)?;
        let mut packed = Vec::new();
        let more_beyond = entries.len() == SCAN_CHUNK_MAX;
        let mut rest = entries.iter().peekable();
        while let Some(entry) = rest.next() {
            let follows = more_beyond || rest.peek().is_some();
            Writer::new(&mut packed).record(u8::from(follows), |w| {
                if values {
                    w.entry(entry);
                } else {
                    w.bytes(&entry.key);
                }
            });
            if packed.len() >= PAGE_BYTES {
                break;
            }
        }
        Ok(packed.into())
    }

    /// The own record, packed.
    #[napi]
    pub fn me(&self) -> Result<Option<Buffer>, JsError> {
        Ok(self.shared.handle()?.me().map_err(refused)?.map(|member| packed([member])))
    }

    /// All members, packed.
    #[napi]
    pub fn members(&self) -> Result<Buffer, JsError> {
        Ok(packed(self.shared.handle()?.members().map_err(refused)?))
    }

    /// The member of this name, packed.
    #[napi]
    pub fn member(&self, name: String) -> Result<Option<Buffer>, JsError> {
        Ok(self.shared.handle()?.member(&name).map_err(refused)?.map(|member| packed([member])))
    }

    /// Living members, self included.
    #[napi]
    pub fn living(&self) -> Result<u32, JsError> {
        Ok(u32::try_from(self.shared.handle()?.living().map_err(refused)?).unwrap_or(u32::MAX))
    }

    /// Phi of a member.
    #[napi]
    pub fn phi(&self, name: String) -> Result<Option<f64>, JsError> {
        self.shared.handle()?.phi(&name).map_err(refused)
    }

    /// Adds a lasting watch edge.
    #[napi]
    pub fn observe(&self, name: String) -> Result<(), JsError> {
        self.shared.handle()?.observe(&name).map_err(refused)
    }

    /// Ends a lasting watch edge.
    #[napi]
    pub fn unobserve(&self, name: String) -> Result<(), JsError> {
        self.shared.handle()?.unobserve(&name).map_err(refused)
    }

    /// Replaces the own tags: key and value in turn.
    #[napi]
    pub fn update_tags(&self, tags: Vec<String>) -> Result<(), JsError> {
        self.shared.handle()?.update_tags(convert::tags(tags)).map_err(refused)
    }

    /// Joins by these seeds; the event `JoinEnded` follows.
    #[napi]
    pub fn join(&self, seeds: Vec<String>) -> Result<(), JsError> {
        self.shared.handle()?.set_seeds(seeds).map_err(refused)
    }

    /// The Merkle root of the replica, 64 hex digits.
    #[napi]
    pub fn root(&self) -> Result<String, JsError> {
        Ok(crate::tools::hex(&self.shared.handle()?.root().map_err(refused)?))
    }

    /// Counters as JSON text.
    #[napi]
    pub fn metrics(&self) -> Result<String, JsError> {
        Ok(convert::metrics(&self.shared.handle()?.metrics()))
    }

    /// Events waiting for JavaScript now, and lost so far.
    #[napi]
    pub fn event_counts(&self) -> Vec<f64> {
        let (waiting, lost) = self.shared.ring.counts();
        vec![waiting as f64, lost as f64]
    }

    /// Fault: nothing passes to or from these `ip:port`.
    #[napi]
    pub fn fault_cut(&self, members: Vec<String>) -> Result<(), JsError> {
        self.shared.handle()?.faults().cut(addresses(&members)?);
        Ok(())
    }

    /// Fault: nothing passes to or from anybody.
    #[napi]
    pub fn fault_isolate(&self) -> Result<(), JsError> {
        self.shared.handle()?.faults().isolate();
        Ok(())
    }

    /// Fault: datagrams are lost with these probabilities.
    #[napi]
    pub fn fault_loss(&self, out: f64, into: f64) -> Result<(), JsError> {
        self.shared.handle()?.faults().loss(out, into);
        Ok(())
    }

    /// Fault: datagrams and frames are held up.
    #[napi]
    pub fn fault_delay(&self, out_ms: f64, in_ms: f64) -> Result<(), JsError> {
        self.shared.handle()?.faults().delay(millis(out_ms), millis(in_ms));
        Ok(())
    }

    /// Ends every fault.
    #[napi]
    pub fn fault_heal(&self) -> Result<(), JsError> {
        self.shared.handle()?.faults().heal();
        Ok(())
    }
}

fn packed(members: impl IntoIterator<Item = hearsay_proto::member::Member>) -> Buffer {
    let mut packed = Vec::new();
    for member in members {
        Writer::new(&mut packed).record(0, |w| w.member(&member));
    }
    packed.into()
}
