//! Simulations: each on a thread of its own, its figures given to one call of a JavaScript function.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearsay_proto::CallError;
use hearsay_runtime::Error;
use hearsay_sim::simulate::{Request, Scenario, run};
use napi::Status;
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::convert::{JsError, StartOptions, millis, refused};

/// What the seal adds to a datagram with keys, and without.
const SEALED_BYTES: usize = 24;
const PLAIN_BYTES: usize = 8;

/// It keeps the process alive until it has been called and dropped.
type Done = ThreadsafeFunction<Option<String>, (), Option<String>, Status, false, false, 1>;

/// A simulation, checked by `ts/options.ts`. Shares are probabilities; durations in ms.
#[napi(object, object_to_js = false)]
pub struct SimulationSettings {
    /// `rumor`, `broadcast`, `query`, `crash`, `join`, `partition`.
    pub kind: String,
    /// Members.
    pub members: u32,
    /// Whole.
    pub seed: f64,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams held back.
    pub reorder: f64,
    /// Mean one-way delay.
    pub delay_ms: f64,
    /// Writes, broadcasts, queries, crashes, or keys of each side.
    pub count: u32,
    /// Bytes of a value or payload.
    pub bytes: u32,
    /// How long the starts of a join, or a cut, last.
    pub lasts_ms: f64,
    /// Share of the members on the smaller side of a cut.
    pub share: f64,
}

impl SimulationSettings {
    fn scenario(&self) -> Result<Scenario, JsError> {
        let (count, bytes) = (self.count as usize, self.bytes as usize);
        Ok(match self.kind.as_str() {
            "rumor" => Scenario::Rumor { writes: count, value_bytes: bytes },
            "broadcast" => Scenario::Broadcast { broadcasts: count, payload_bytes: bytes },
            "query" => Scenario::Query { queries: count },
            "crash" => Scenario::Crash { crashes: count },
            "join" => Scenario::Join { within: millis(self.lasts_ms) },
            "partition" => {
                Scenario::Partition { lasts: millis(self.lasts_ms), share: self.share, keys: count }
            }
            other => {
                return Err(JsError::new("ERR_HEARSAY_OPTION", format!("no scenario is named {other}")));
            }
        })
    }
}

/// One running simulation. It stops when this is collected, or with its environment.
#[napi]
pub struct NativeSimulation {
    stop: Arc<AtomicBool>,
}

impl Drop for NativeSimulation {
    fn drop(&mut self) {
        self.stop();
    }
}

#[napi]
impl NativeSimulation {
    /// Begins; `done` is called once, with the figures as JSON text, or null if it was stopped or failed.
    #[napi(factory)]
    pub fn start(
        options: StartOptions,
        settings: SimulationSettings,
        done: Function<'_, Option<String>, ()>,
    ) -> Result<NativeSimulation, JsError> {
        let scenario = settings.scenario()?;
        let options = options.into_options()?;
        let mut config = options.config;
        config.seal_bytes = if options.keys.is_empty() { PLAIN_BYTES } else { SEALED_BYTES };
        config.check().map_err(|error| refused(Error::from(CallError::Config(error))))?;
        let request = Request {
            members: settings.members as usize,
            seed: settings.seed as u64,
            loss: settings.loss,
            duplicate: settings.duplicate,
            reorder: settings.reorder,
            delay: millis(settings.delay_ms),
            tags: options.tags,
            config,
            scenario,
        };
        let done: Done = done
            .build_threadsafe_function()
            .callee_handled::<false>()
            .max_queue_size::<1>()
            .build()
            .map_err(|error| JsError::new("ERR_HEARSAY_INTERNAL", error.reason))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let simulate = move || {
            let figures = catch_unwind(AssertUnwindSafe(|| run(&request, stopped))).ok().flatten();
            // Refused only by an environment that has gone.
            let _ = done.call(figures, ThreadsafeFunctionCallMode::NonBlocking);
        };
        std::thread::Builder::new()
            .name("hearsay-sim".into())
            .spawn(simulate)
            .map_err(|error| refused(Error::System(error)))?;
        Ok(NativeSimulation { stop })
    }

    /// Ends it soon; `done` is called with null.
    #[napi]
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
