//! The one small tokio runtime of this process.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::Error;

/// Threads that resolve names, made on demand and gone when idle.
const RESOLVERS_MAX: usize = 4;

static PROCESS: Mutex<Weak<Process>> = Mutex::new(Weak::new());

/// One worker thread named `hearsay` for all clusters of this process. It is made for the first one and shut down in
/// the background with the last reference, wherever that is dropped, so a process can exit and a worker can end.
pub(crate) struct Process {
    runtime: Option<Runtime>,
}

impl Process {
    /// The running one, or a new one.
    pub(crate) fn acquire() -> Result<Arc<Process>, Error> {
        let mut slot = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = slot.upgrade() {
            return Ok(process);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("hearsay")
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::System)?;
        let process = Arc::new(Process { runtime: Some(runtime) });
        *slot = Arc::downgrade(&process);
        Ok(process)
    }

    /// Runs a future on the worker; the process lives at least until it ends.
    pub(crate) fn spawn<T: Send + 'static>(
        self: &Arc<Process>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let runtime = self.runtime.as_ref()?;
        let process = Arc::clone(self);
        Some(runtime.spawn(async move {
            let value = future.await;
            drop(process);
            value
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a future on the thread of this crate, for hosts without an executor. The thread lives until it ends.
///
/// # Errors
/// [`Error::System`] if the thread cannot be made.
pub fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    Process::acquire()?.spawn(future).ok_or(Error::Stopped)
}
