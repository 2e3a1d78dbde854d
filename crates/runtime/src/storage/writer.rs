//! The writing thread. It takes one batch at a time; while one is written the state machine gathers the next, so that writes
//! share commits without waiting for each other.
//!
//! If the disk fails, the member goes on in memory: the batch is kept and tried again, and the listener is told, once as it
//! begins and once as it ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use hearsay_proto::image::Batch;
use tokio::sync::oneshot;

use super::{Failure, Store};
use crate::error::Error;
use crate::handle::{Listener, Shared};
use crate::metrics::Count;

/// A batch that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// What was not saved yet when a member stops gets this long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How far the writes of a member are saved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Saved {
    /// As `Gossip::persisted`.
    pub(crate) through: u64,
    /// The disk fails: path and cause.
    pub(crate) failure: Option<Arc<str>>,
}

enum Order {
    Write(Batch),
    Close(oneshot::Sender<()>),
}

/// The driver's end. When it is dropped the thread ends.
pub(crate) struct Writer {
    orders: Sender<Order>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::System`].
    pub(crate) fn start(
        store: Store,
        shared: Arc<Shared>,
        listener: Arc<dyn Listener>,
    ) -> Result<Writer, Error> {
        let (orders, received) = channel();
        let writing = Writing { store, shared, listener, orders: received };
        let thread = std::thread::Builder::new().name("hearsay-disk".to_owned());
        thread.spawn(move || writing.run()).map_err(Error::System)?;
        Ok(Writer { orders })
    }

    /// Hands over a batch.
    pub(crate) fn write(&self, batch: Batch) {
        // A thread that is gone has nobody left to answer.
        let _ = self.orders.send(Order::Write(batch));
    }

    /// Saves what is not saved yet, for a while, and closes the file.
    pub(crate) async fn close(self) {
        let (closed, done) = oneshot::channel();
        if self.orders.send(Order::Close(closed)).is_ok() {
            let _ = done.await;
        }
    }
}

struct Writing {
    store: Store,
    shared: Arc<Shared>,
    listener: Arc<dyn Listener>,
    orders: Receiver<Order>,
}

impl Writing {
    fn run(mut self) {
        let mut closing = None;
        while let Ok(order) = self.orders.recv() {
            match order {
                Order::Write(batch) => match self.save(&batch) {
                    Ok(()) => {}
                    Err(close) => {
                        closing = close;
                        break;
                    }
                },
                Order::Close(closed) => {
                    self.save_rest();
                    closing = Some(closed);
                    break;
                }
            }
        }
        drop(self.store);
        if let Some(closed) = closing {
            let _ = closed.send(());
        }
    }

    /// Writes a batch, again and again until it is on the disk or the member ends.
    fn save(&mut self, batch: &Batch) -> Result<(), Option<oneshot::Sender<()>>> {
        let mut written = self.store.write(&batch.writes);
        let failed = written.is_err();
        while let Err(failure) = written {
            self.fails(failure);
            match self.orders.recv_timeout(RETRY) {
                Ok(Order::Close(closed)) => return Err(Some(closed)),
                // The state machine has one batch under way at a time.
                Ok(Order::Write(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(None),
            }
            written = self.store.write(&batch.writes);
        }
        self.shared.counters.storage_batches.one();
        let through = self.shared.at_end(|gossip, _| {
            gossip.handle_persisted(batch.seq);
            gossip.persisted()
        });
        self.shared.saved.send_modify(|saved| {
            saved.failure = None;
            saved.through = through.unwrap_or(saved.through);
        });
        if failed {
            self.listener.storage(None);
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    fn fails(&self, failure: Failure) {
        let text: Arc<str> = Arc::from(failure.at(self.store.path()).to_string());
        self.shared.counters.storage_failures.one();
        // Told before any flush rejects: whoever sees the rejection finds the member unhealthy.
        if self.shared.failure().is_none() {
            self.listener.storage(Some(text.to_string()));
        }
        self.shared.saved.send_modify(|saved| saved.failure = Some(text));
    }

    fn save_rest(&mut self) {
        let end = Instant::now() + LAST_WORDS;
        while self.shared.failure().is_none() && Instant::now() < end {
            let Some(batch) = self.shared.at_end(|gossip, now| gossip.persist_rest(now)).flatten() else {
                return;
            };
            if self.store.write(&batch.writes).is_err() {
                return;
            }
            let through = self.shared.at_end(|gossip, _| {
                gossip.handle_persisted(batch.seq);
                gossip.persisted()
            });
            self.shared.saved.send_modify(|saved| saved.through = through.unwrap_or(saved.through));
        }
    }
}
