//! From options to a running member.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearsay_proto::gossip::{Gossip, Identity};

use crate::chores::{Chores, towards};
use crate::driver::{Driver, supervise};
use crate::error::Error;
use crate::handle::{Handle, Listener, Options, Parts, Shared, now_since};
use crate::metrics::Count;
use crate::process::Process;
use crate::resolve::{Target, resolve_seeds};
use crate::seal::Sealer;
use crate::socket::{KernelDrops, Sockets, Udp, bind, listener as tcp_listener};
use crate::storage::{Store, Writer};

/// A name to bind or advertise gets this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Seeds are members to begin with, not the whole cluster.
pub(crate) const SEEDS_MAX: usize = 1_024;

/// Binds, joins by the seeds in the background and returns; the first `Event::JoinEnded` says how the join went (further
/// ones follow new seeds, and new tries while alone). The future may be
/// awaited on any executor; if it is dropped, the member stops.
///
/// # Errors
/// [`Error::Bind`], [`Error::Option`], [`Error::Keys`], [`Error::Resolve`] (bind and advertise only; seeds that fail are
/// events), [`Error::Call`], [`Error::Storage`], [`Error::System`].
pub async fn start(options: Options, listener: Arc<dyn Listener>) -> Result<Handle, Error> {
    start_with(options, listener, Given::default()).await
}

/// As [`start`], on a store that is open already.
#[cfg(test)]
pub(crate) async fn start_on(
    options: Options,
    listener: Arc<dyn Listener>,
    store: Option<Store>,
) -> Result<Handle, Error> {
    start_with(options, listener, Given { store, udp: None }).await
}

/// What is there already and not made by the options.
#[derive(Default)]
struct Given {
    store: Option<Store>,
    udp: Option<UdpSocket>,
}

async fn start_with(options: Options, listener: Arc<dyn Listener>, given: Given) -> Result<Handle, Error> {
    let process = Process::acquire()?;
    let begun = process.spawn(begin(Arc::clone(&process), options, listener, given)).ok_or(Error::Stopped)?;
    begun.await.map_err(|error| Error::Failed(error.to_string()))?
}

async fn begin(
    process: Arc<Process>,
    options: Options,
    listener: Arc<dyn Listener>,
    given: Given,
) -> Result<Handle, Error> {
    let Options { mut config, name, mut generation_stored, bind: at, advertise, tags, keys, seeds, storage } =
        options;
    let sealer = Sealer::new(&config.label, &keys, wall_nanos(), config.limits.members_max)?;
    config.seal_bytes = sealer.overhead();
    config.check().map_err(hearsay_proto::CallError::Config)?;
    check_seeds(&seeds)?;
    let advertised = match &advertise {
        None => None,
        Some(text) => Some(named(text, "advertise").await?),
    };
    let sockets = bind(named(&at, "bind").await?).map_err(|error| match error {
        Error::Bind { source, .. } => Error::Bind { address: at.clone(), source },
        other => other,
    })?;
    let local = sockets.local;

    let first_timeout = (config.join_timeout / 2).clamp(Duration::from_millis(100), Duration::from_secs(2));
    let mut chores = Chores { resolved: None, outward: None, first_timeout };
    let address = match advertised {
        Some(address) if address.port() == 0 => SocketAddr::new(address.ip(), local.port()),
        Some(address) => address,
        None if !local.ip().is_unspecified() => local,
        None => {
            let found = resolve_seeds(&seeds, first_timeout, local).await;
            let own = towards(&found, local);
            chores.resolved = Some(found);
            chores.outward = Some(own);
            own
        }
    };

    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::System(std::io::Error::other(error)))?;
    let origin = Instant::now();
    let frame_bytes_max = config.frame_bytes_max();
    let store = match storage {
        None => given.store,
        Some(folder) => {
            let label = config.label.clone();
            let opened = blocking(move || {
                let mut store = Store::open(&folder, &label)?;
                let own = store.own()?;
                Ok((store, own))
            });
            let (store, own) = opened.await?;
            generation_stored = generation_stored.max(own.map(|own| own.generation));
            Some(store)
        }
    };
    let mut gossip =
        Gossip::new(config, Identity { name, generation_stored, address, tags }, seed, now_since(origin))?;
    let store = match store {
        None => None,
        Some(store) => {
            let (restored, store) = blocking(move || restore(gossip, store, origin)).await?;
            gossip = restored;
            Some(store)
        }
    };
    let Sockets { udp, tcp, receive_buffer_bytes, send_buffer_bytes, .. } = sockets;
    let udp = given.udp.unwrap_or(udp);
    let kernel_drops = KernelDrops::of(&udp);
    let has_storage = store.is_some();
    let process_of = Arc::clone(&process);
    let parts =
        Parts { gossip, origin, seeds, sealer, local, process: process_of, kernel_drops, has_storage };
    let shared = Arc::new(Shared::new(parts));
    shared.counters.receive_buffer_bytes.add(receive_buffer_bytes);
    shared.counters.send_buffer_bytes.add(send_buffer_bytes);

    let udp = Udp::new(udp).map_err(Error::System)?;
    let tcp = tcp_listener(tcp).map_err(Error::System)?;
    let writer = match store {
        None => None,
        Some(store) => Some(Writer::start(store, Arc::clone(&shared), Arc::clone(&listener))?),
    };
    let (shared_of, listener_of) = (Arc::clone(&shared), Arc::clone(&listener));
    let driver = Driver::new(shared_of, listener_of, udp, tcp, frame_bytes_max, chores, writer);
    let handle = Handle::new(Arc::clone(&shared));
    process.spawn(supervise(shared, listener, driver)).ok_or(Error::Stopped)?;
    Ok(handle)
}

/// Runs what waits for the disk on a thread where nobody else waits for it.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(act).await.map_err(|error| Error::Failed(error.to_string()))?
}

/// Takes up what the disk holds, and saves the new run before anybody hears of it.
fn restore(mut gossip: Gossip, mut store: Store, origin: Instant) -> Result<(Gossip, Store), Error> {
    gossip.keep(now_since(origin));
    store.read(|rows| gossip.restore(now_since(origin), rows))?;
    let batch = gossip.persist_own(now_since(origin));
    store.write_first(&batch.writes)?;
    gossip.handle_persisted(batch.seq);
    Ok((gossip, store))
}

/// Are these seeds well-formed, and not too many?
pub(crate) fn check_seeds(seeds: &[String]) -> Result<(), Error> {
    let wrong = |must| Error::Option { path: "seeds", must };
    if seeds.len() > SEEDS_MAX {
        return Err(wrong(format!("at most {SEEDS_MAX}")));
    }
    for seed in seeds {
        let target = Target::parse(seed).map_err(wrong)?;
        if target.port == 0 {
            return Err(wrong(format!("host:port with a port that is not 0; got '{seed}'")));
        }
    }
    Ok(())
}

async fn named(text: &str, path: &'static str) -> Result<SocketAddr, Error> {
    let target = Target::parse(text).map_err(|must| Error::Option { path, must })?;
    let found = target.resolve(RESOLVE_TIMEOUT).await;
    let found = found.map_err(|reason| Error::Resolve { name: text.to_owned(), reason })?;
    // Most names of machines have an IPv4 address, and most clusters speak it.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| Error::Resolve { name: text.to_owned(), reason: "no address".to_owned() })
}

fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    use hearsay_proto::Event;

    use super::*;

    struct Words(mpsc::Sender<String>);

    impl Listener for Words {
        fn event(&self, _: Event) {}
        fn failed(&self, reason: String) {
            let _ = self.0.send(reason);
        }
    }

    /// A listener of TCP with a connection waiting is always readable, and each datagram asked of it is an error.
    #[tokio::test]
    async fn a_socket_that_only_fails_is_given_up_after_rests() {
        let broken = TcpListener::bind("127.0.0.1:0").unwrap();
        let _waiting = TcpStream::connect(broken.local_addr().unwrap()).unwrap();
        broken.set_nonblocking(true).unwrap();
        let (said, heard) = mpsc::channel();
        let given = Given { store: None, udp: Some(OwnedFd::from(broken).into()) };
        let handle = start_with(Options::new("a"), Arc::new(Words(said)), given).await.unwrap();
        let reason = blocking(move || Ok(heard.recv().unwrap())).await.unwrap();
        assert!(reason.contains("UDP socket"), "{reason}");
        let errors = handle.metrics().host.receive_errors;
        assert!((64..=11 * 64).contains(&errors), "{errors} errors: it did not spin");
        handle.stop().await;
    }
}
