//! What the host counts beside the protocol's own counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::seal::Cause;

/// Declares the counters twice: shared and atomic for the driver, plain for whoever reads.
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// Counters and present values of sockets, seals and streams.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct HostMetrics { $($(#[$doc])* pub $field: u64),* }

        impl HostMetrics {
            /// Calls `f` with the name and value of each.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) { $(f(stringify!($field), self.$field);)* }
        }

        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $field: AtomicU64),* }

        impl Counters {
            pub(crate) fn read(&self) -> HostMetrics {
                HostMetrics { $($field: self.$field.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Datagrams the kernel took.
    datagrams_sent,
    /// Their bytes, sealing included, IP and UDP headers not.
    datagram_bytes_sent,
    /// Datagrams the kernel gave, whatever they were.
    datagrams_received,
    /// Their bytes.
    datagram_bytes_received,
    /// Frames written.
    frames_sent,
    /// Their bytes, length and seal included.
    frame_bytes_sent,
    /// Frames read that were authentic.
    frames_received,
    /// Their bytes, length and seal included.
    frame_bytes_received,
    /// Dropped datagrams and streams: another cluster's label.
    dropped_label,
    /// Dropped datagrams and streams: no key of the ring fits, or the checksum is wrong.
    dropped_unauthentic,
    /// Dropped datagrams and streams: too short to hold header and seal, or over the limit.
    dropped_size,
    /// Dropped datagrams and streams: seen before, or too old to tell.
    dropped_replay,
    /// Dropped on purpose by fault injection, both ways.
    dropped_fault,
    /// Own datagrams dropped because the send queue was full.
    dropped_send_queue,
    /// Datagrams the kernel dropped because the receive buffer was full; 0 where the system does not say.
    kernel_drops,
    /// Sends the system refused, unreachable peers included.
    send_errors,
    /// Receive errors, among them ICMP answers to what was sent.
    receive_errors,
    /// Streams open now.
    streams_open,
    /// Streams opened or accepted so far.
    streams_total,
    /// Accepted connections refused: too many, cut, or without one authentic frame in time.
    streams_refused,
    /// Streams that could not be opened.
    streams_failed,
    /// Own frames dropped because their stream was gone or busy.
    frames_dropped,
    /// Batches saved to the store on disk.
    storage_batches,
    /// Times the disk refused a batch; it is tried again.
    storage_failures,
    /// Receive buffer of the UDP socket in bytes, as the system reports it.
    receive_buffer_bytes,
    /// Send buffer of the UDP socket in bytes, as the system reports it.
    send_buffer_bytes,
}

impl Counters {
    pub(crate) fn dropped(&self, cause: Cause) {
        match cause {
            Cause::Size => &self.dropped_size,
            Cause::Label => &self.dropped_label,
            Cause::Unauthentic => &self.dropped_unauthentic,
            Cause::Replay => &self.dropped_replay,
        }
        .one();
    }
}

pub(crate) trait Count {
    fn add(&self, n: usize);
    fn one(&self) {
        self.add(1);
    }
}

impl Count for AtomicU64 {
    fn add(&self, n: usize) {
        self.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The protocol's counters and the host's.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Metrics {
    /// Of the state machine.
    pub protocol: hearsay_proto::metrics::Metrics,
    /// Of sockets, seals and streams.
    pub host: HostMetrics,
}
