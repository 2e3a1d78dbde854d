//! What is done beside the protocol now and then: seeds resolved again while alone, the own address looked at again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::gossip::Seed;
use tokio::time::{Instant, sleep_until};

use crate::handle::Shared;
use crate::resolve::{outward, resolve_seeds};

/// A name service gets this long, but at the join: there half of the time that joining may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// While alone, seeds are resolved again after this long, then half as much again each time.
const ALONE_FIRST: Duration = Duration::from_secs(5);
/// But not more seldom than this.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// The own address is looked at this often (`J7`).
const ADDRESS_EVERY: Duration = Duration::from_secs(10);

/// What the chores of one member start from.
pub(crate) struct Chores {
    /// Seeds resolved already, for the outward address.
    pub(crate) resolved: Option<Vec<Seed>>,
    /// The outward address in use, if the member chose it itself.
    pub(crate) outward: Option<SocketAddr>,
    /// Time for the first resolution.
    pub(crate) first_timeout: Duration,
}

/// Runs until aborted or the member stops.
pub(crate) async fn run(shared: Arc<Shared>, chores: Chores) {
    let Chores { mut resolved, mut outward, first_timeout } = chores;
    let mut seeds = shared.seeds.subscribe();
    seeds.mark_changed();
    let mut known: Vec<Seed> = Vec::new();
    let mut pause = ALONE_FIRST;
    let mut alone_at = Instant::now() + pause;
    let mut address_at = Instant::now() + ADDRESS_EVERY;
    while !shared.is_stopping() {
        tokio::select! {
            changed = seeds.changed() => {
                if changed.is_err() {
                    return;
                }
                let names = seeds.borrow_and_update().clone();
                let found = match resolved.take() {
                    Some(found) => found,
                    None => resolve_seeds(&names, first_timeout, shared.local).await,
                };
                known.clone_from(&found);
                join(&shared, found);
                pause = ALONE_FIRST;
                alone_at = Instant::now() + pause;
            }
            () = sleep_until(alone_at) => {
                let names = seeds.borrow().clone();
                let is_alone = shared.with(|gossip, _| gossip.living()).is_ok_and(|living| living <= 1);
                if is_alone && !names.is_empty() {
                    let found = resolve_seeds(&names, RESOLVE_TIMEOUT, shared.local).await;
                    if found != known {
                        known.clone_from(&found);
                        join(&shared, found);
                    }
                    pause = (pause + pause / 2).min(ALONE_MAX);
                } else {
                    pause = ALONE_FIRST;
                }
                alone_at = Instant::now() + pause;
            }
            () = sleep_until(address_at), if outward.is_some() => {
                let own = towards(&known, shared.local);
                if outward != Some(own) && shared.with(|gossip, now| gossip.update_address(now, own)).is_ok() {
                    shared.wake.notify_one();
                    outward = Some(own);
                }
                address_at = Instant::now() + ADDRESS_EVERY;
            }
        }
    }
}

/// The own address towards the first seed that resolved.
pub(crate) fn towards(seeds: &[Seed], local: SocketAddr) -> SocketAddr {
    let first = seeds.iter().find_map(|seed| seed.addresses.as_ref().ok()?.first().copied());
    outward(first, local)
}

fn join(shared: &Shared, seeds: Vec<Seed>) {
    if shared.with(|gossip, now| gossip.join(now, seeds)).is_ok() {
        shared.wake.notify_one();
    }
}
