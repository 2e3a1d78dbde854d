use std::time::Instant;

use hearsay_proto::gossip::{Gossip, Identity};
use hearsay_proto::{Config, member::Tags};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use super::*;
use crate::handle::{Parts, now_since};
use crate::process::Process;
use crate::seal::Sealer;
use crate::socket::{KernelDrops, bind, listener};

const KEY: [u8; 32] = [7; 32];
const FRAME_MAX: usize = 1 << 20;

/// One end: a member without a driver, its stream events read by the test.
struct End {
    streams: Streams,
    events: mpsc::Receiver<StreamEvent>,
    accepting: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

fn end(keys: &[[u8; 32]]) -> End {
    let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let origin = Instant::now();
    let identity =
        Identity { name: "m".to_owned(), generation_stored: None, address: sockets.local, tags: Tags::new() };
    let parts = Parts {
        gossip: Gossip::new(Config::lan(), identity, [1; 32], now_since(origin)).unwrap(),
        origin,
        seeds: Vec::new(),
        sealer: Sealer::new("x", keys, 0, 100).unwrap(),
        local: sockets.local,
        process: Process::acquire().unwrap(),
        kernel_drops: KernelDrops::of(&sockets.udp),
        has_storage: false,
    };
    let shared = Arc::new(Shared::new(parts));
    let (tell, events) = mpsc::channel(EVENTS_MAX);
    let streams = Streams { shared, events: tell, frame_bytes_max: FRAME_MAX };
    let (stop, stopped) = watch::channel(false);
    let accepting = tokio::spawn(streams.clone().accept(listener(sockets.tcp).unwrap(), stopped));
    End { streams, events, accepting, stop }
}

impl End {
    fn address(&self) -> SocketAddr {
        self.streams.shared.local
    }

    fn open(&self, id: u64, to: SocketAddr) -> mpsc::Sender<Vec<u8>> {
        let (frames, orders) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(self.streams.clone().open(StreamId(id), to, orders));
        frames
    }

    async fn next(&mut self) -> StreamEvent {
        timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap()
    }

    async fn opened(&mut self) {
        assert!(matches!(self.next().await, StreamEvent::Opened(_)));
    }

    async fn accepted(&mut self) -> (mpsc::Sender<Vec<u8>>, SocketAddr) {
        match self.next().await {
            StreamEvent::Accepted { frames, from, stream } => {
                assert_eq!(stream.0 % 2, 1);
                (frames, from)
            }
            _ => panic!("no stream accepted"),
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        match self.next().await {
            StreamEvent::Frame(_, plain) => plain,
            _ => panic!("no frame"),
        }
    }

    async fn writable(&mut self) {
        assert!(matches!(self.next().await, StreamEvent::Writable(_)));
    }

    async fn closed(&mut self) {
        assert!(matches!(self.next().await, StreamEvent::Closed(_)));
    }

    fn host(&self) -> crate::HostMetrics {
        self.streams.shared.counters.read()
    }
}

fn plain(sender: u64, body: usize) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&hearsay_proto::wire::label_hash("x").to_le_bytes());
    bytes.extend_from_slice(&sender.to_le_bytes());
    bytes.resize(12 + body, 0x5a);
    bytes
}

#[tokio::test]
async fn frames_of_all_sizes_go_both_ways_and_a_close_follows_what_was_sent() {
    for keys in [&[][..], &[KEY]] {
        let (mut a, mut b) = (end(keys), end(keys));
        let frames = a.open(2, b.address());
        a.opened().await;
        frames.send(plain(1, 0)).await.unwrap();
        let (answers, from) = b.accepted().await;
        assert_eq!(from, a.address(), "named by its lasting port");
        assert_eq!(b.frame().await, plain(1, 0));
        a.writable().await;
        for size in [1, 65_536, FRAME_MAX - 12] {
            frames.send(plain(1, size)).await.unwrap();
            assert_eq!(b.frame().await, plain(1, size));
            a.writable().await;
            answers.send(plain(2, size)).await.unwrap();
            assert_eq!(a.frame().await, plain(2, size));
            b.writable().await;
        }
        frames.send(plain(1, 300_000)).await.unwrap();
        drop(frames);
        assert_eq!(b.frame().await, plain(1, 300_000));
        b.closed().await;
        a.writable().await;
        a.closed().await;
        assert_eq!((a.host().streams_open, b.host().streams_open), (0, 0));
        assert_eq!(a.host().frame_bytes_sent, b.host().frame_bytes_received);
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_breaks_the_stream() {
    let (mut a, mut b) = (end(&[KEY]), end(&[KEY]));
    let frames = a.open(2, b.address());
    a.opened().await;
    frames.send(plain(1, FRAME_MAX)).await.unwrap();
    loop {
        if matches!(a.next().await, StreamEvent::Closed(_)) {
            break;
        }
    }
    assert_eq!((b.host().dropped_size, b.host().streams_refused), (1, 1));
    assert!(b.events.try_recv().is_err(), "nobody was told");
}

#[tokio::test]
async fn outsiders_get_no_answer_and_are_counted() {
    let (mut a, b) = (end(&[[9; 32]]), end(&[KEY]));
    let frames = a.open(2, b.address());
    a.opened().await;
    frames.send(plain(1, 64)).await.unwrap();
    a.writable().await;
    a.closed().await;
    assert_eq!((b.host().dropped_unauthentic, b.host().streams_refused), (1, 1));

    let mut raw = TcpStream::connect(b.address()).await.unwrap();
    raw.write_all(&[0xff; 2_000]).await.unwrap();
    let mut answer = Vec::new();
    // A reset or an end, never a byte.
    let _ = timeout(Duration::from_secs(10), raw.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
    assert_eq!(b.host().dropped_unauthentic, 2);
}

#[tokio::test]
async fn a_silent_connection_is_dropped_and_costs_nothing_lasting() {
    let b = end(&[]);
    let mut raw = TcpStream::connect(b.address()).await.unwrap();
    let mut answer = [0; 1];
    let end = timeout(PROOF_TIMEOUT * 3, raw.read(&mut answer)).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(b.host().streams_refused, 1);
}

#[tokio::test]
async fn a_cut_breaks_streams_refuses_new_ones_and_heals() {
    let (mut a, mut b) = (end(&[KEY]), end(&[KEY]));
    let frames = a.open(2, b.address());
    a.opened().await;
    frames.send(plain(1, 1)).await.unwrap();
    a.writable().await;
    b.accepted().await;
    b.frame().await;
    b.streams.shared.faults.cut([a.address()]);
    b.closed().await;
    a.closed().await;

    let frames = a.open(4, b.address());
    a.opened().await;
    frames.send(plain(1, 1)).await.unwrap();
    a.writable().await;
    a.closed().await;
    assert_eq!(b.host().streams_refused, 1, "refused by the end that accepts");
    b.streams.shared.faults.heal();

    a.streams.shared.faults.isolate();
    a.open(6, b.address());
    a.closed().await;
    assert_eq!(a.host().streams_failed, 1, "refused by the end that opens");
    a.streams.shared.faults.heal();

    let frames = a.open(8, b.address());
    a.opened().await;
    frames.send(plain(1, 1)).await.unwrap();
    b.accepted().await;
}

#[tokio::test]
async fn nobody_there_is_a_close() {
    let (mut a, b) = (end(&[]), end(&[]));
    let gone = b.address();
    b.stop.send_replace(true);
    b.accepting.await.unwrap();
    a.open(2, gone);
    a.closed().await;
    assert_eq!(a.host().streams_failed, 1);
}

#[tokio::test]
async fn a_stop_closes_what_was_accepted() {
    let (mut a, mut b) = (end(&[]), end(&[]));
    let frames = a.open(2, b.address());
    a.opened().await;
    frames.send(plain(1, 1)).await.unwrap();
    a.writable().await;
    b.accepted().await;
    b.stop.send_replace(true);
    b.accepting.await.unwrap();
    assert_eq!(b.streams.shared.counters.read().streams_open, 0);
    a.closed().await;
}
