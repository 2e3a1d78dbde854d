//! Streams: length-prefixed frames over TCP. A frame is a datagram with more room.
//!
//! Each stream is one task. It tells the driver [`StreamEvent`]s over a bounded channel, so a slow driver holds up
//! readers, and takes plain frames from it: at most one is
//! under way, `Writable` asks for the next. A stream whose sender is dropped closes after what was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearsay_proto::output::StreamId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::faults::Way;
use crate::handle::Shared;
use crate::metrics::Count;
use crate::seal::{Cause, FrameOpener, FrameSealer, PREAMBLE_BYTES, Preamble};
use crate::socket::{canonical_address, tune_stream};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time within which an accepted connection has to prove itself by one authentic frame.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without progress in the middle of a frame, either way.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A stream on which nothing was said for so long, either way, is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the other end to close, once this one has.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read or written at once; memory grows with what has arrived, not with what is announced.
const PIECE_BYTES: usize = 64 * 1024;
/// Accepted streams at most, those that have not proved themselves included.
pub(crate) const ACCEPTED_MAX: usize = 256;
/// Accepted connections that have not proved themselves.
const UNPROVEN_MAX: usize = 64;
/// Frames and changes that wait for the driver.
pub(crate) const EVENTS_MAX: usize = 16;

/// Frames that fit between driver and stream: the one under way and the next.
pub(crate) const FRAMES_MAX: usize = 2;

/// From a stream to the driver.
pub(crate) enum StreamEvent {
    Opened(StreamId),
    Accepted { stream: StreamId, from: SocketAddr, frames: mpsc::Sender<Vec<u8>> },
    Frame(StreamId, Vec<u8>),
    Writable(StreamId),
    Closed(StreamId),
}

/// What every stream task needs.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: mpsc::Sender<StreamEvent>,
    /// Longest plain frame.
    pub(crate) frame_bytes_max: usize,
}

/// The reading half and what opens its frames.
struct Reader {
    half: OwnedReadHalf,
    opener: Option<FrameOpener>,
}

/// Salt of the opening end, as far as it is known to the other half.
type SaltCell = watch::Sender<Option<[u8; 16]>>;

/// Counts a stream as open for as long as it lives.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Open<'a> {
        shared.counters.streams_open.one();
        shared.counters.streams_total.one();
        Open(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.streams_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    /// Connects, then serves the stream until it ends.
    pub(crate) async fn open(self, stream: StreamId, to: SocketAddr, orders: mpsc::Receiver<Vec<u8>>) {
        let faults = &self.shared.faults;
        tokio::time::sleep(faults.frame_delay(Way::Out)).await;
        let connected = if faults.is_cut(to) {
            None
        } else {
            timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await.ok().and_then(Result::ok)
        };
        match connected {
            None => self.shared.counters.streams_failed.one(),
            Some(socket) => {
                let _open = Open::new(&self.shared);
                tune_stream(&socket);
                if self.tell(StreamEvent::Opened(stream)).await {
                    let (half, write) = socket.into_split();
                    let reader = Reader { half, opener: None };
                    self.serve(stream, to, reader, write, orders, None).await;
                }
            }
        }
        self.tell(StreamEvent::Closed(stream)).await;
    }

    /// Accepts until `stop` changes; then closes what was accepted.
    pub(crate) async fn accept(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let unproven = Arc::new(AtomicUsize::new(0));
        let mut next = 1u64;
        loop {
            while tasks.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return tasks.shutdown().await,
            };
            let (socket, from) = match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    // Out of descriptors, most likely: trying at once would only spin.
                    self.shared.counters.receive_errors.one();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if tasks.len() >= ACCEPTED_MAX || unproven.load(Ordering::Relaxed) >= UNPROVEN_MAX {
                self.shared.counters.streams_refused.one();
                continue;
            }
            let stream = StreamId(next);
            next = next.wrapping_add(2);
            unproven.fetch_add(1, Ordering::Relaxed);
            let pending = Pending(Arc::clone(&unproven));
            tasks.spawn(self.clone().admit(stream, socket, canonical_address(from), pending));
        }
    }

    /// Tells the driver of an accepted stream once its first frame has proved authentic: an outsider costs a task for
    /// five seconds, and gets no answer.
    async fn admit(self, stream: StreamId, socket: TcpStream, from: SocketAddr, pending: Pending) {
        tune_stream(&socket);
        let (half, write) = socket.into_split();
        let mut reader = Reader { half, opener: None };
        let proof = timeout(PROOF_TIMEOUT, async {
            let preamble = self.read_preamble(&mut reader.half).await?;
            let from = SocketAddr::new(from.ip(), preamble.port);
            if self.shared.faults.is_cut(from) {
                return None;
            }
            reader.opener = Some(
                self.shared.sealer.frame_opener(preamble, None).map_err(|cause| self.count(cause)).ok()?,
            );
            Some((from, self.read_frame(&mut reader).await?))
        });
        let Ok(Some((from, frame))) = proof.await else {
            self.shared.counters.streams_refused.one();
            return;
        };
        drop(pending);
        let _open = Open::new(&self.shared);
        let (frames, orders) = mpsc::channel(FRAMES_MAX);
        if self.tell(StreamEvent::Accepted { stream, from, frames }).await
            && self.deliver(stream, frame).await
        {
            let answers = reader.opener.as_ref().map(FrameOpener::opener_salt);
            self.serve(stream, from, reader, write, orders, answers).await;
        }
        self.tell(StreamEvent::Closed(stream)).await;
    }

    /// Reads and writes until either end closes, a fault cuts, or time runs out. `answers` is the opener's salt on the
    /// accepting side.
    async fn serve(
        &self,
        stream: StreamId,
        peer: SocketAddr,
        mut reader: Reader,
        mut write: OwnedWriteHalf,
        orders: mpsc::Receiver<Vec<u8>>,
        answers: Option<[u8; 16]>,
    ) {
        let salt: SaltCell = watch::Sender::new(answers);
        let (idle, active) = watch::channel(0u64);
        let closed_by_us = tokio::select! {
            () = self.read_all(stream, &mut reader, &salt, &idle) => false,
            done = self.write_all(stream, &mut write, orders, answers, &salt, &idle) => done,
            () = self.cut(peer) => false,
            () = idled(active) => false,
        };
        if closed_by_us && write.shutdown().await.is_ok() {
            // What the other end still says is read and dropped: closing over unread bytes would reset the connection
            // and could take the last frame with it.
            let mut rest = vec![0; 4_096];
            let drain = async { while matches!(reader.half.read(&mut rest).await, Ok(1..)) {} };
            let _ = timeout(LINGER, drain).await;
        }
    }

    async fn read_all(
        &self,
        stream: StreamId,
        reader: &mut Reader,
        salt: &SaltCell,
        active: &watch::Sender<u64>,
    ) {
        if reader.opener.is_none() {
            let Some(preamble) = self.read_preamble(&mut reader.half).await else { return };
            // The other end answers a frame, so the own salt is known by now.
            let answers = *salt.borrow();
            match self.shared.sealer.frame_opener(preamble, answers) {
                Ok(opener) if answers.is_some() => reader.opener = Some(opener),
                Ok(_) => return self.count(Cause::Unauthentic),
                Err(cause) => return self.count(cause),
            }
        }
        while let Some(frame) = self.read_frame(reader).await {
            active.send_modify(|n| *n = n.wrapping_add(1));
            if !self.deliver(stream, frame).await {
                return;
            }
        }
    }

    async fn deliver(&self, stream: StreamId, frame: Vec<u8>) -> bool {
        let held = self.shared.faults.frame_delay(Way::In);
        if !held.is_zero() {
            tokio::time::sleep(held).await;
        }
        self.tell(StreamEvent::Frame(stream, frame)).await
    }

    async fn read_preamble(&self, half: &mut OwnedReadHalf) -> Option<Preamble> {
        let mut bytes = [0; PREAMBLE_BYTES];
        half.read_exact(&mut bytes).await.ok()?;
        let preamble = Preamble::decode(&bytes);
        if preamble.is_none() {
            self.count(Cause::Unauthentic);
        }
        preamble
    }

    /// The next frame, open; none at the end of the stream or if it is not what it should be.
    async fn read_frame(&self, reader: &mut Reader) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        reader.half.read_exact(&mut length).await.ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        if length > self.frame_bytes_max + self.shared.sealer.frame_overhead() {
            self.count(Cause::Size);
            return None;
        }
        let mut frame = Vec::with_capacity(length.min(PIECE_BYTES));
        while frame.len() < length {
            let missing = (length - frame.len()).min(PIECE_BYTES);
            frame.reserve(missing);
            let mut piece = (&mut reader.half).take(missing as u64);
            match timeout(STALL_TIMEOUT, piece.read_buf(&mut frame)).await {
                Ok(Ok(1..)) => {}
                _ => return None,
            }
        }
        let counters = &self.shared.counters;
        match self.shared.sealer.open_frame(reader.opener.as_mut()?, &mut frame) {
            Ok(()) => {
                counters.frames_received.one();
                counters.frame_bytes_received.add(4 + length);
                Some(frame)
            }
            Err(cause) => {
                self.count(cause);
                None
            }
        }
    }

    /// True once all is sent and no more will come; false if the stream broke.
    async fn write_all(
        &self,
        stream: StreamId,
        write: &mut OwnedWriteHalf,
        mut orders: mpsc::Receiver<Vec<u8>>,
        answers: Option<[u8; 16]>,
        salt: &SaltCell,
        active: &watch::Sender<u64>,
    ) -> bool {
        let mut sealer: Option<FrameSealer> = None;
        while let Some(plain) = orders.recv().await {
            let held = self.shared.faults.frame_delay(Way::Out);
            if !held.is_zero() {
                tokio::time::sleep(held).await;
            }
            if self.write_frame(write, &mut sealer, &plain, answers, salt).await.is_err() {
                return false;
            }
            active.send_modify(|n| *n = n.wrapping_add(1));
            if !self.tell(StreamEvent::Writable(stream)).await {
                return false;
            }
        }
        true
    }

    async fn write_frame(
        &self,
        write: &mut OwnedWriteHalf,
        sealer: &mut Option<FrameSealer>,
        plain: &[u8],
        answers: Option<[u8; 16]>,
        salt: &SaltCell,
    ) -> io::Result<()> {
        let unsealable = |_| io::Error::other("no sender id");
        let by = match sealer {
            Some(by) => by,
            None => {
                let mut own = [0; 16];
                getrandom::fill(&mut own).map_err(io::Error::other)?;
                let port = self.shared.local.port();
                let by = self.shared.sealer.frame_sealer(plain, port, own, answers).map_err(unsealable)?;
                salt.send_replace(Some(by.opener_salt()));
                write_piece(write, &by.preamble().encode()).await?;
                sealer.insert(by)
            }
        };
        let bytes = self.shared.sealer.seal_frame(by, plain).map_err(unsealable)?;
        for piece in bytes.chunks(PIECE_BYTES) {
            write_piece(write, piece).await?;
        }
        self.shared.counters.frames_sent.one();
        self.shared.counters.frame_bytes_sent.add(bytes.len());
        Ok(())
    }

    /// Resolves when a fault cuts this peer off.
    async fn cut(&self, peer: SocketAddr) {
        let mut changes = self.shared.faults.watch();
        while !self.shared.faults.is_cut(peer) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn tell(&self, event: StreamEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    fn count(&self, cause: Cause) {
        self.shared.counters.dropped(cause);
    }
}

/// A connection that has not proved itself yet.
struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves when nothing has happened for [`IDLE_TIMEOUT`].
async fn idled(mut active: watch::Receiver<u64>) {
    while matches!(timeout(IDLE_TIMEOUT, active.changed()).await, Ok(Ok(()))) {}
}

async fn write_piece(write: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    timeout(STALL_TIMEOUT, write.write_all(bytes)).await?
}

#[cfg(test)]
mod tests;
