//! From options to a running member.

use std::net::SocketAddr;
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

/// A name to bind or advertise gets this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Seeds are members to begin with, not the whole cluster.
pub(crate) const SEEDS_MAX: usize = 1_024;

/// Binds, joins by the seeds in the background and returns; `Event::JoinEnded` says how the join went. The future may be
/// awaited on any executor; if it is dropped, the member stops.
///
/// # Errors
/// [`Error::Bind`], [`Error::Option`], [`Error::Keys`], [`Error::Resolve`] (bind and advertise only; seeds that fail are
/// events), [`Error::Call`], [`Error::System`].
pub async fn start(options: Options, listener: Arc<dyn Listener>) -> Result<Handle, Error> {
    let process = Process::acquire()?;
    let begun = process.spawn(begin(Arc::clone(&process), options, listener)).ok_or(Error::Stopped)?;
    begun.await.map_err(|error| Error::Failed(error.to_string()))?
}

async fn begin(
    process: Arc<Process>,
    options: Options,
    listener: Arc<dyn Listener>,
) -> Result<Handle, Error> {
    let Options { mut config, name, generation_stored, bind: at, advertise, tags, keys, seeds } = options;
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
    let gossip =
        Gossip::new(config, Identity { name, generation_stored, address, tags }, seed, now_since(origin))?;
    let Sockets { udp, tcp, receive_buffer_bytes, send_buffer_bytes, .. } = sockets;
    let kernel_drops = KernelDrops::of(&udp);
    let parts = Parts { gossip, origin, seeds, sealer, local, process: Arc::clone(&process), kernel_drops };
    let shared = Arc::new(Shared::new(parts));
    shared.counters.receive_buffer_bytes.add(receive_buffer_bytes);
    shared.counters.send_buffer_bytes.add(send_buffer_bytes);

    let udp = Udp::new(udp).map_err(Error::System)?;
    let tcp = tcp_listener(tcp).map_err(Error::System)?;
    let driver = Driver::new(Arc::clone(&shared), Arc::clone(&listener), udp, tcp, frame_bytes_max, chores);
    let handle = Handle::new(Arc::clone(&shared));
    process.spawn(supervise(shared, listener, driver)).ok_or(Error::Stopped)?;
    Ok(handle)
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
