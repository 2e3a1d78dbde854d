//! One member's life: start, stop, what is refused, and that nothing stays behind.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearsay_runtime::proto::Event;
use hearsay_runtime::{Error, Handle, Listener, Options, start};

/// What a listener was told last words of.
#[derive(Default)]
struct Words {
    stopped: AtomicUsize,
    failed: Mutex<Option<String>>,
    panics: AtomicBool,
}

impl Listener for Words {
    fn event(&self, _: Event) {
        assert!(!self.panics.load(Ordering::Relaxed), "the listener is broken");
    }
    fn failed(&self, reason: String) {
        *self.failed.lock().unwrap() = Some(reason);
    }
    fn stopped(&self) {
        self.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

async fn member(options: Options) -> (Handle, Arc<Words>) {
    let words = Arc::new(Words::default());
    (start(options, words.clone()).await.unwrap(), words)
}

async fn refusal(options: Options) -> Error {
    start(options, Arc::new(Words::default())).await.err().expect("refused")
}

/// The test waits here until the worker has done what it does in the background.
async fn eventually(mut ready: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn two_members_start_and_stop_and_their_ports_are_free() {
    let (a, said_a) = member(Options::new("a")).await;
    let (b, said_b) = member(Options::new("b")).await;
    assert_ne!(a.local_addr(), b.local_addr());
    assert_eq!(a.living().unwrap(), 1);
    a.stop().await;
    a.stop().await;
    drop(UdpSocket::bind(a.local_addr()).unwrap());
    drop(TcpListener::bind(a.local_addr()).unwrap());
    assert!(a.is_stopped() && !b.is_stopped());
    assert_eq!(said_a.stopped.load(Ordering::SeqCst), 1);
    assert_eq!(said_b.stopped.load(Ordering::SeqCst), 0);
    b.leave(Duration::from_millis(50)).await;
    b.leave(Duration::from_millis(50)).await;
    b.stop().await;
    drop(UdpSocket::bind(b.local_addr()).unwrap());
    assert_eq!(said_b.stopped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn after_a_stop_every_command_is_refused() {
    let (a, _) = member(Options::new("a")).await;
    a.stop().await;
    let codes = [
        a.set(b"k", Arc::from(&b"v"[..]), None).err(),
        a.get(b"k").err(),
        a.delete(b"k").err(),
        a.scan(b"", None, 1).err(),
        a.members().err(),
        a.me().err(),
        a.observe("b").err(),
        a.update_tags(Default::default()).err(),
        a.set_seeds(Vec::new()).err(),
        a.set_keys(&[[1; 32]]).err(),
        a.root().err(),
    ];
    for code in codes {
        assert_eq!(code.unwrap().code(), "ERR_HEARSAY_STOPPED");
    }
    let _ = a.metrics();
}

#[tokio::test]
async fn a_dropped_handle_stops_its_member() {
    let (a, said) = member(Options::new("a")).await;
    let (local, clone) = (a.local_addr(), a.clone());
    drop(a);
    assert!(!clone.is_stopped());
    drop(clone);
    assert!(eventually(|| said.stopped.load(Ordering::SeqCst) == 1).await);
    assert!(UdpSocket::bind(local).is_ok());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_code_and_a_path() {
    let (a, _) = member(Options::new("a")).await;
    let with = |f: &dyn Fn(&mut Options)| {
        let mut options = Options::new("b");
        f(&mut options);
        options
    };
    let in_use = refusal(with(&|o| o.bind = a.local_addr().to_string())).await;
    assert_eq!((in_use.code(), in_use.path()), ("ERR_HEARSAY_BIND", Some("bind")));
    assert!(in_use.to_string().contains(&a.local_addr().to_string()));
    let cases: [(&dyn Fn(&mut Options), &str, &str); 7] = [
        (&|o| o.bind = "nonsense".to_owned(), "ERR_HEARSAY_OPTION", "bind"),
        (&|o| o.advertise = Some("here".to_owned()), "ERR_HEARSAY_OPTION", "advertise"),
        (&|o| o.seeds = vec!["::1:7".to_owned()], "ERR_HEARSAY_OPTION", "seeds"),
        (&|o| o.seeds = vec!["a:0".to_owned()], "ERR_HEARSAY_OPTION", "seeds"),
        (&|o| o.keys = vec![[0; 32]], "ERR_HEARSAY_KEYS", "keys"),
        (&|o| o.config.detector.threshold = -1.0, "ERR_HEARSAY_OPTION", "failureDetector.threshold"),
        (&|o| o.bind = "192.0.2.1:0".to_owned(), "ERR_HEARSAY_BIND", "bind"),
    ];
    for (change, code, path) in cases {
        let error = refusal(with(change)).await;
        assert_eq!((error.code(), error.path()), (code, Some(path)), "{error}");
    }
    let unknown = refusal(with(&|o| o.bind = "no-such-name.invalid:0".to_owned())).await;
    assert_eq!(unknown.code(), "ERR_HEARSAY_RESOLVE");
    assert!(unknown.to_string().contains("no-such-name.invalid:0"));
}

#[tokio::test]
async fn a_panic_in_the_state_machine_ends_the_member_and_nothing_else() {
    let (a, said) = member(Options::new("a")).await;
    let (b, _) = member(Options::new("b")).await;
    let error = a.update(|_, _| panic!("invariant broken")).unwrap_err();
    assert_eq!(error.code(), "ERR_HEARSAY_INTERNAL");
    a.stop().await;
    assert_eq!(said.failed.lock().unwrap().as_deref(), Some("invariant broken"));
    assert_eq!(a.len().unwrap_err().code(), "ERR_HEARSAY_INTERNAL");
    assert!(b.len().is_ok());
}

#[tokio::test]
async fn noise_from_outside_is_counted_and_harms_nobody() {
    let mut options = Options::new("a");
    options.keys = vec![[3; 32]];
    let (a, _) = member(options).await;
    let outsider = UdpSocket::bind("127.0.0.1:0").unwrap();
    outsider.set_nonblocking(true).unwrap();
    for size in [0, 1, 11, 35, 36, 37, 1_400, 60_000] {
        outsider.send_to(&vec![0x41; size], a.local_addr()).unwrap();
    }
    assert!(eventually(|| a.metrics().host.datagrams_received == 8).await);
    let host = a.metrics().host;
    assert_eq!((host.dropped_size, host.dropped_unauthentic), (4, 4));
    assert!(outsider.recv_from(&mut [0; 100]).is_err(), "an outsider gets no answer");
    assert!(a.len().is_ok());
}

#[tokio::test]
async fn the_advertised_address_is_the_option_the_bound_one_or_the_outward_one() {
    let (a, _) = member(Options::new("a")).await;
    let of = |handle: &Handle| handle.me().unwrap().map(|me| me.address());
    let mut options = Options::new("b");
    options.bind = "0.0.0.0:0".to_owned();
    options.seeds = vec![a.local_addr().to_string()];
    let (b, _) = member(options).await;
    let mut options = Options::new("c");
    options.advertise = Some("127.0.0.9:0".to_owned());
    let (c, _) = member(options).await;
    let expected = [
        (&a, a.local_addr()),
        (&b, ([127, 0, 0, 1], b.local_addr().port()).into()),
        (&c, ([127, 0, 0, 9], c.local_addr().port()).into()),
    ];
    for (handle, address) in expected {
        assert_eq!(of(handle), Some(address));
    }
}
