//! Faults on purpose, in the own send and receive path: cut, isolate, loss, delay. For tests of users, without root.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Longest delay that can be asked for.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Time a lost TCP segment costs before its first repetition.
const RESEND_FIRST: Duration = Duration::from_millis(200);
/// Longest time that losses hold up one frame.
const RESEND_MAX: Duration = Duration::from_secs(6);

/// Which way a datagram or frame goes, seen from this member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Sent by this member.
    Out,
    /// Received by this member.
    In,
}

/// What is to happen to one datagram or frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// As if nothing were.
    Pass,
    /// Lost.
    Drop,
    /// Later.
    Delay(Duration),
}

#[derive(Default)]
struct State {
    isolated: bool,
    cut: HashSet<SocketAddr>,
    loss: [f64; 2],
    delay: [Duration; 2],
    dice: u64,
}

/// The faults of one member. They act on UDP and on TCP: streams to a cut member break and are refused; loss costs a
/// stream time, as retransmission would. Without a fault the cost is one relaxed load per datagram.
pub struct Faults {
    on: AtomicBool,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            on: AtomicBool::new(false),
            state: Mutex::new(State { dice: 0x9e37_79b9_7f4a_7c15, ..State::default() }),
            changed: watch::Sender::new(0),
        }
    }
}

impl Faults {
    /// Nothing passes between this member and these addresses any more, in addition to earlier ones.
    pub fn cut(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.change(|state| state.cut.extend(addresses));
    }

    /// Ends the cut to these addresses.
    pub fn mend(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.change(|state| {
            for address in addresses {
                state.cut.remove(&address);
            }
        });
    }

    /// Nothing passes to or from anybody.
    pub fn isolate(&self) {
        self.change(|state| state.isolated = true);
    }

    /// Each datagram is lost with this probability, `0..=1`, on its way out and in. What is not a number counts as 0.
    pub fn loss(&self, out: f64, into: f64) {
        let clean = |p: f64| if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) };
        self.change(|state| state.loss = [clean(out), clean(into)]);
    }

    /// Each datagram and frame is held up for this long on its way out and in, at most [`DELAY_MAX`].
    pub fn delay(&self, out: Duration, into: Duration) {
        self.change(|state| state.delay = [out.min(DELAY_MAX), into.min(DELAY_MAX)]);
    }

    /// Ends every fault.
    pub fn heal(&self) {
        self.change(|state| *state = State { dice: state.dice, ..State::default() });
    }

    /// Seeds the dice of [`Faults::loss`].
    pub fn reseed(&self, seed: u64) {
        self.lock().dice = seed;
    }

    /// Is nothing to pass between this member and this address?
    pub fn is_cut(&self, address: SocketAddr) -> bool {
        self.are_on() && {
            let state = self.lock();
            state.isolated || state.cut.contains(&address)
        }
    }

    pub(crate) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Fate of one datagram.
    pub(crate) fn datagram(&self, way: Way, peer: SocketAddr) -> Fate {
        if !self.are_on() {
            return Fate::Pass;
        }
        let mut state = self.lock();
        if state.isolated || state.cut.contains(&peer) {
            return Fate::Drop;
        }
        let loss = state.loss(way);
        if loss > 0.0 && state.roll() < loss {
            return Fate::Drop;
        }
        match state.delay(way) {
            Duration::ZERO => Fate::Pass,
            delay => Fate::Delay(delay),
        }
    }

    /// How long one frame is held up; a cut breaks the stream instead.
    pub(crate) fn frame_delay(&self, way: Way) -> Duration {
        if !self.are_on() {
            return Duration::ZERO;
        }
        let mut state = self.lock();
        let (loss, mut held, mut wait) = (state.loss(way), Duration::ZERO, RESEND_FIRST);
        while held < RESEND_MAX && loss > 0.0 && state.roll() < loss {
            held += wait;
            wait *= 2;
        }
        state.delay(way) + held.min(RESEND_MAX)
    }

    /// Resolves after each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        f(&mut state);
        let on = state.isolated
            || !state.cut.is_empty()
            || state.loss.iter().any(|p| *p > 0.0)
            || state.delay.iter().any(|d| !d.is_zero());
        self.on.store(on, Ordering::Relaxed);
        drop(state);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn loss(&self, way: Way) -> f64 {
        let [out, into] = self.loss;
        if way == Way::Out { out } else { into }
    }

    fn delay(&self, way: Way) -> Duration {
        let [out, into] = self.delay;
        if way == Way::Out { out } else { into }
    }

    /// Uniform in `0..1` (Steele, Lea, Flood 2014, SplitMix64).
    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn cut_drops_one_address_and_heal_ends_it() {
        let faults = Faults::default();
        assert!(!faults.are_on());
        faults.cut([address(1)]);
        assert_eq!(faults.datagram(Way::Out, address(1)), Fate::Drop);
        assert_eq!(faults.datagram(Way::In, address(1)), Fate::Drop);
        assert_eq!(faults.datagram(Way::Out, address(2)), Fate::Pass);
        faults.mend([address(1)]);
        assert!(!faults.are_on());
        faults.isolate();
        assert!(faults.is_cut(address(2)));
        faults.heal();
        assert_eq!(faults.datagram(Way::Out, address(1)), Fate::Pass);
    }

    #[test]
    fn loss_has_its_rate_on_its_way_only_and_repeats_with_the_seed() {
        let run = |seed| {
            let faults = Faults::default();
            faults.reseed(seed);
            faults.loss(0.2, 0.0);
            assert_eq!(faults.datagram(Way::In, address(1)), Fate::Pass);
            (0..10_000).map(|_| faults.datagram(Way::Out, address(1)) == Fate::Drop).collect::<Vec<_>>()
        };
        let lost = run(7).iter().filter(|lost| **lost).count();
        assert!((1_880..=2_120).contains(&lost), "{lost} of 10,000 at 20 %: over 3 sigma off");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_frame_pays_for_loss_with_time_and_never_more_than_the_most() {
        let faults = Faults::default();
        faults.delay(Duration::from_millis(30), Duration::ZERO);
        assert_eq!(faults.frame_delay(Way::Out), Duration::from_millis(30));
        assert_eq!(faults.frame_delay(Way::In), Duration::ZERO);
        faults.loss(1.0, f64::NAN);
        assert_eq!(faults.frame_delay(Way::Out), Duration::from_millis(30) + RESEND_MAX);
        assert_eq!(faults.frame_delay(Way::In), Duration::ZERO);
    }
}
