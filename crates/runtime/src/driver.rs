//! The driver: wait for one of wake, datagram, frame, stream change, deadline; one mutation; drain; repeat. The only
//! place where outputs of the state machine are carried out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearsay_proto::gossip::Gossip;
use hearsay_proto::image::Batch;
use hearsay_proto::output::{Event, Output, StreamId};
use hearsay_proto::time::{Mono, Now};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::chores::{Chores, run as run_chores};
use crate::faults::{Fate, Way};
use crate::handle::{Listener, Phase, Shared, lock, panic_text};
use crate::metrics::Count;
use crate::rest::Rest;
use crate::socket::{DATAGRAM_MAX, Udp};
use crate::storage::Writer;
use crate::stream::{EVENTS_MAX, FRAMES_MAX, StreamEvent, Streams};

/// Datagrams taken before the timers get a turn.
const BATCH: usize = 256;
/// The same after a stall: what lies in the socket is heard before anybody is suspected for silence (`D4`).
const BATCH_LATE: usize = 16_384;
/// A timer this late means a stall.
const LATE: Duration = Duration::from_millis(100);
/// Own datagrams that wait for the kernel to take them.
const QUEUE_MAX: usize = 1_024;
/// Datagrams held up by faults.
const DELAYED_MAX: usize = 16_384;
/// Bytes of outputs gathered under one hold of the lock.
const GATHER_BYTES: usize = 256 * 1024;
/// Outputs gathered under one hold of the lock.
const GATHER_JOBS: usize = 1_024;
/// Streams opened by this member at most.
const OPENED_MAX: usize = 256;

/// What an output asks for, taken out from under the lock.
enum Job {
    /// The bytes lie in `Driver::gathered`.
    Transmit {
        to: SocketAddr,
        plain: Range<usize>,
    },
    Open {
        stream: StreamId,
        to: SocketAddr,
    },
    Send {
        stream: StreamId,
        plain: Vec<u8>,
    },
    Close {
        stream: StreamId,
    },
    Persist(Batch),
    Event(Event),
}

/// A datagram held up by faults: plain on its way out, sealed on its way in.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due: Instant,
    order: u64,
    is_out: bool,
    peer: SocketAddr,
    bytes: Vec<u8>,
}

/// Bytes of a datagram and its source.
type Received = io::Result<(usize, SocketAddr)>;

/// What the driver woke for.
enum Woken {
    Stop,
    Stream(Option<StreamEvent>),
    Readable,
    Writable,
    Wake,
    Deadline,
}

/// Carries one member until it is stopped.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    listener: Arc<dyn Listener>,
    udp: Udp,
    rest: Rest,
    streams: HashMap<StreamId, mpsc::Sender<Vec<u8>>>,
    host: Streams,
    /// The store on disk, if there is one.
    writer: Option<Writer>,
    stream_events: mpsc::Receiver<StreamEvent>,
    /// Opened streams and chores.
    tasks: JoinSet<()>,
    accepting: JoinHandle<()>,
    stop_accepting: watch::Sender<bool>,
    opened: usize,
    /// Streams the state machine must be told are gone, though no task says so.
    broken: Vec<StreamId>,
    /// Time the state machine asked for.
    deadline: Mono,
    gathered: Vec<u8>,
    jobs: Vec<Job>,
    output: Vec<u8>,
    sealed: Vec<u8>,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    delayed_so_far: u64,
}

/// Runs a driver to its end, whatever end that is, and settles the affairs of its member.
pub(crate) async fn supervise(shared: Arc<Shared>, listener: Arc<dyn Listener>, driver: Driver) {
    if let Err(error) = tokio::spawn(driver.run()).await {
        let reason = error.try_into_panic().map_or_else(|e| e.to_string(), |p| panic_text(p.as_ref()));
        shared.fail(reason);
    }
    shared.begin_stop();
    let last_words = catch_unwind(AssertUnwindSafe(|| {
        if let Some(reason) = shared.failure() {
            listener.failed(reason);
        }
        listener.stopped();
    }));
    // A listener that panics now has nobody left to tell.
    drop(last_words);
    lock(&shared.process).take();
    shared.phase.send_replace(Phase::Stopped);
}

impl Driver {
    /// Must be called within the runtime.
    pub(crate) fn new(
        shared: Arc<Shared>,
        listener: Arc<dyn Listener>,
        udp: Udp,
        tcp: TcpListener,
        frame_bytes_max: usize,
        chores: Chores,
        writer: Option<Writer>,
    ) -> Driver {
        let (events, stream_events) = mpsc::channel(EVENTS_MAX);
        let host = Streams { shared: Arc::clone(&shared), events, frame_bytes_max };
        let (stop_accepting, stop) = watch::channel(false);
        let accepting = tokio::spawn(host.clone().accept(tcp, stop));
        let mut tasks = JoinSet::new();
        tasks.spawn(run_chores(Arc::clone(&shared), chores));
        Driver {
            shared,
            listener,
            udp,
            rest: Rest::default(),
            streams: HashMap::new(),
            host,
            writer,
            stream_events,
            tasks,
            accepting,
            stop_accepting,
            opened: 0,
            broken: Vec::new(),
            deadline: Mono::FAR,
            gathered: Vec::new(),
            jobs: Vec::new(),
            output: Vec::new(),
            sealed: Vec::new(),
            queue: VecDeque::new(),
            delayed: BinaryHeap::new(),
            delayed_so_far: 0,
        }
    }

    /// Drives until stopped, then closes everything.
    async fn run(mut self) {
        let mut buf = vec![0; DATAGRAM_MAX];
        self.turn(|_, _| ());
        while !self.shared.is_stopping() {
            match self.wait().await {
                Woken::Stop => break,
                Woken::Wake => self.turn(|_, _| ()),
                Woken::Stream(event) => self.stream_events(event),
                Woken::Writable => self.flush_queue(),
                Woken::Readable | Woken::Deadline => {}
            }
            self.receive(&mut buf, BATCH, Udp::receive);
            self.release_delayed();
            for stream in std::mem::take(&mut self.broken) {
                self.turn(|gossip, now| gossip.handle_stream_closed(now, stream));
            }
            if let Some(late) = self.late_by() {
                self.receive(&mut buf, if late > LATE { BATCH_LATE } else { BATCH }, Udp::receive_direct);
                self.turn(Gossip::handle_timeout);
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.end().await;
    }

    async fn wait(&mut self) -> Woken {
        if !self.broken.is_empty() {
            tokio::task::yield_now().await;
            return Woken::Deadline;
        }
        let due = self.delayed.peek().map(|Reverse(delayed)| delayed.due);
        let rest = self.rest.until(Instant::now());
        let at = self.shared.instant(self.deadline).into_iter().chain(due).chain(rest).min();
        let sleep = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.stop.notified() => Woken::Stop,
            event = self.stream_events.recv() => Woken::Stream(event),
            _ = self.udp.readable(), if rest.is_none() => Woken::Readable,
            _ = self.udp.writable(), if !self.queue.is_empty() => Woken::Writable,
            () = self.shared.wake.notified() => Woken::Wake,
            () = sleep => Woken::Deadline,
        }
    }

    /// How late the timer is; none if it is not due.
    fn late_by(&self) -> Option<Duration> {
        Instant::now().checked_duration_since(self.shared.instant(self.deadline)?)
    }

    /// One mutation, then all that follows from it: outputs until `Wait`, carried out with the lock released.
    fn turn(&mut self, input: impl FnOnce(&mut Gossip, Now)) {
        let mut input = Some(input);
        loop {
            let (output, gathered, jobs) = (&mut self.output, &mut self.gathered, &mut self.jobs);
            let done = self.shared.with(|gossip, now| {
                if let Some(input) = input.take() {
                    input(gossip, now);
                }
                gather(gossip, now, output, gathered, jobs)
            });
            self.carry_out();
            match done {
                Ok(None) => {}
                Ok(Some(wait)) => {
                    self.deadline = wait;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn carry_out(&mut self) {
        let mut jobs = std::mem::take(&mut self.jobs);
        let gathered = std::mem::take(&mut self.gathered);
        for job in jobs.drain(..) {
            match job {
                Job::Transmit { to, plain } => {
                    self.transmit(to, gathered.get(plain).unwrap_or_default());
                }
                Job::Open { stream, to } => self.open(stream, to),
                Job::Send { stream, plain } => self.send_frame(stream, plain),
                // The stream closes once it has sent what it has; nothing of it is heard any more.
                Job::Close { stream } => drop(self.streams.remove(&stream)),
                Job::Persist(batch) => {
                    if let Some(writer) = &self.writer {
                        writer.write(batch);
                    }
                }
                Job::Event(event) => self.tell(event),
            }
        }
        self.jobs = jobs;
        self.gathered = gathered;
        self.gathered.clear();
    }

    fn tell(&mut self, event: Event) {
        let (ends, left) = (matches!(event, Event::NameConflict { .. }), matches!(event, Event::LeaveEnded));
        let listener = &self.listener;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| listener.event(event))) {
            self.shared.fail(format!("the listener panicked: {}", panic_text(payload.as_ref())));
        }
        if left {
            self.shared.phase.send_if_modified(|phase| {
                let was = *phase;
                *phase = was.max(Phase::Left);
                *phase != was
            });
        }
        if ends {
            self.shared.begin_stop();
        }
    }

    fn transmit(&mut self, to: SocketAddr, plain: &[u8]) {
        match self.shared.faults.datagram(Way::Out, to) {
            Fate::Pass => self.send(to, plain),
            Fate::Drop => self.shared.counters.dropped_fault.one(),
            Fate::Delay(by) => self.delay(by, true, to, plain),
        }
    }

    fn send(&mut self, to: SocketAddr, plain: &[u8]) {
        if self.shared.sealer.seal(plain, &mut self.sealed).is_err() {
            return self.shared.counters.send_errors.one();
        }
        if self.queue.is_empty() {
            match self.udp.send(&self.sealed, to) {
                Ok(bytes) => return self.count_sent(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.shared.counters.send_errors.one(),
            }
        }
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back((to, self.sealed.clone()));
        } else {
            self.shared.counters.dropped_send_queue.one();
        }
    }

    fn flush_queue(&mut self) {
        while let Some((to, sealed)) = self.queue.front() {
            match self.udp.send(sealed, *to) {
                Ok(bytes) => self.count_sent(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.shared.counters.send_errors.one(),
            }
            self.queue.pop_front();
        }
    }

    fn count_sent(&self, bytes: usize) {
        self.shared.counters.datagrams_sent.one();
        self.shared.counters.datagram_bytes_sent.add(bytes);
    }

    /// Takes datagrams in one of the two ways of [`Udp`] until the socket is empty, or `most` were taken.
    fn receive(&mut self, buf: &mut [u8], most: usize, take: fn(&Udp, &mut [u8]) -> Received) {
        if self.rest.until(Instant::now()).is_some() {
            return;
        }
        for _ in 0..most {
            let received = take(&self.udp, buf);
            if !self.received(received, buf) {
                return;
            }
        }
    }

    /// False once there is nothing more.
    fn received(&mut self, received: Received, buf: &mut [u8]) -> bool {
        match received {
            Ok((bytes, from)) => {
                self.rest.works();
                self.shared.counters.datagrams_received.one();
                self.shared.counters.datagram_bytes_received.add(bytes);
                if let Some(datagram) = buf.get_mut(..bytes) {
                    match self.shared.faults.datagram(Way::In, from) {
                        Fate::Pass => self.accept(from, datagram),
                        Fate::Drop => self.shared.counters.dropped_fault.one(),
                        Fate::Delay(by) => self.delay(by, false, from, datagram),
                    }
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.rest.works();
                false
            }
            // ICMP answers to what was sent, on systems that report them here, or a socket that is broken.
            Err(error) => {
                self.shared.counters.receive_errors.one();
                let now = Instant::now();
                if self.rest.fails(now) {
                    self.shared.fail(format!("the UDP socket does not work any more: {error}"));
                }
                self.rest.until(now).is_none()
            }
        }
    }

    fn accept(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        match self.shared.sealer.open(datagram) {
            Ok(plain) => self.turn(|gossip, now| gossip.handle_datagram(now, from, plain)),
            Err(cause) => self.shared.counters.dropped(cause),
        }
    }

    fn delay(&mut self, by: Duration, is_out: bool, peer: SocketAddr, bytes: &[u8]) {
        if self.delayed.len() >= DELAYED_MAX {
            return self.shared.counters.dropped_fault.one();
        }
        self.delayed_so_far = self.delayed_so_far.wrapping_add(1);
        let (due, order) = (Instant::now() + by, self.delayed_so_far);
        self.delayed.push(Reverse(Delayed { due, order, is_out, peer, bytes: bytes.to_vec() }));
    }

    fn release_delayed(&mut self) {
        let now = Instant::now();
        while self.delayed.peek().is_some_and(|Reverse(delayed)| delayed.due <= now) {
            let Some(Reverse(mut delayed)) = self.delayed.pop() else { return };
            if delayed.is_out {
                self.send(delayed.peer, &delayed.bytes);
            } else {
                self.accept(delayed.peer, &mut delayed.bytes);
            }
        }
    }

    fn open(&mut self, stream: StreamId, to: SocketAddr) {
        if self.opened >= OPENED_MAX {
            self.shared.counters.streams_failed.one();
            self.broken.push(stream);
            return;
        }
        let (frames, orders) = mpsc::channel(FRAMES_MAX);
        self.streams.insert(stream, frames);
        self.opened += 1;
        self.tasks.spawn(self.host.clone().open(stream, to, orders));
    }

    fn send_frame(&mut self, stream: StreamId, plain: Vec<u8>) {
        let Some(frames) = self.streams.get(&stream) else {
            return self.shared.counters.frames_dropped.one();
        };
        if frames.try_send(plain).is_err() {
            self.shared.counters.frames_dropped.one();
            self.streams.remove(&stream);
            self.broken.push(stream);
        }
    }

    /// This event and those that wait behind it.
    fn stream_events(&mut self, first: Option<StreamEvent>) {
        let mut next = first;
        for _ in 0..EVENTS_MAX {
            let Some(event) = next else { return };
            self.stream_event(event);
            next = self.stream_events.try_recv().ok();
        }
        if let Some(event) = next {
            self.stream_event(event);
        }
    }

    fn stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened(stream) if self.streams.contains_key(&stream) => {
                self.turn(|gossip, now| gossip.handle_stream_opened(now, stream));
            }
            StreamEvent::Accepted { stream, from, frames } => {
                self.streams.insert(stream, frames);
                self.turn(|gossip, now| gossip.handle_stream_accepted(now, stream, from));
            }
            StreamEvent::Frame(stream, plain) if self.streams.contains_key(&stream) => {
                self.turn(|gossip, now| gossip.handle_frame(now, stream, &plain));
            }
            StreamEvent::Writable(stream) if self.streams.contains_key(&stream) => {
                self.turn(|gossip, now| gossip.handle_stream_writable(now, stream));
            }
            StreamEvent::Closed(stream) => {
                // The protocol names the streams it opens with even numbers.
                if stream.0.is_multiple_of(2) {
                    self.opened = self.opened.saturating_sub(1);
                }
                if self.streams.remove(&stream).is_some() {
                    self.turn(|gossip, now| gossip.handle_stream_closed(now, stream));
                }
            }
            // Closed by the protocol already: it wants to hear no more of it.
            StreamEvent::Opened(_) | StreamEvent::Frame(..) | StreamEvent::Writable(_) => {}
        }
    }

    /// Ends all tasks and closes the sockets: the port is free when this is done.
    async fn end(self) {
        let Driver { mut tasks, accepting, stop_accepting, stream_events, streams, udp, writer, .. } = self;
        drop((streams, stream_events, udp));
        stop_accepting.send_replace(true);
        tasks.shutdown().await;
        let _ = accepting.await;
        if let Some(writer) = writer {
            writer.close().await;
        }
    }
}

/// Outputs until `Wait`, which is returned, or until much has gathered: then none, and there is more.
fn gather(
    gossip: &mut Gossip,
    now: Now,
    output: &mut Vec<u8>,
    gathered: &mut Vec<u8>,
    jobs: &mut Vec<Job>,
) -> Option<Mono> {
    let mut frame_bytes = 0;
    while gathered.len() + frame_bytes < GATHER_BYTES && jobs.len() < GATHER_JOBS {
        match gossip.poll_output(now, output) {
            Output::Transmit { to } => {
                let start = gathered.len();
                gathered.extend_from_slice(output);
                jobs.push(Job::Transmit { to, plain: start..gathered.len() });
            }
            Output::Open { stream, to } => jobs.push(Job::Open { stream, to }),
            Output::Send { stream } => {
                frame_bytes += output.len();
                jobs.push(Job::Send { stream, plain: std::mem::take(output) });
            }
            Output::Close { stream } => jobs.push(Job::Close { stream }),
            Output::Persist(batch) => jobs.push(Job::Persist(batch)),
            Output::Event(event) => jobs.push(Job::Event(event)),
            Output::Wait(until) => return Some(until),
        }
    }
    None
}
