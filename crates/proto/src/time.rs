//! Time as an argument: the host reads its clocks and passes [`Now`] with every input.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the host's monotonic clock, in nanoseconds since an origin of the host's choice. All timers run on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Later than every time that occurs.
    pub const FAR: Mono = Mono(u64::MAX);

    /// Time since `earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0 as f64 / 1e9)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch. Generations, stamps, settled seconds and lifetimes run on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Wall(pub u64);

impl Wall {
    /// The whole second this millisecond lies in.
    pub fn second(self) -> Second {
        Second((self.0 / 1000).min(u64::from(u32::MAX)) as u32)
    }
}

/// A wall-clock second since the Unix epoch: the unit in which entries settle (`S1`, section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Second(pub u32);

impl Second {
    /// `n` seconds earlier, not below zero.
    pub fn minus(self, n: u32) -> Second {
        Second(self.0.saturating_sub(n))
    }
    /// `n` seconds later.
    pub fn plus(self, n: u32) -> Second {
        Second(self.0.saturating_add(n))
    }
}

/// Both clocks of the host at one input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic clock: timers.
    pub mono: Mono,
    /// Wall clock: stamps.
    pub wall: Wall,
}

/// Hybrid logical timestamp: 48 bits of wall milliseconds, 16 bits of counter (Kulkarni et al. 2014, "Logical Physical
/// Clocks", section 3, packed into one word).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Smallest stamp of a wall-clock millisecond.
    pub fn at(wall: Wall) -> Stamp {
        Stamp(wall.0.min((1 << 48) - 1) << 16)
    }
    /// Wall-clock part.
    pub fn wall(self) -> Wall {
        Wall(self.0 >> 16)
    }
    /// Second of the wall-clock part.
    pub fn second(self) -> Second {
        self.wall().second()
    }
}

/// How far in the future of the own wall clock a stamp may lie before it is refused (section 2.3).
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(10);

/// The hybrid logical clock of one member.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Stamp,
}

/// A stamp lies further in the future than [`CLOCK_AHEAD_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockAhead;

impl HybridClock {
    /// A stamp greater than every stamp issued or seen so far.
    pub fn issue(&mut self, wall: Wall) -> Stamp {
        let at = Stamp::at(wall);
        self.last = if at > self.last { at } else { Stamp(self.last.0.saturating_add(1)) };
        self.last
    }

    /// The stamp to tell others: not below any issued or seen, and nothing is issued.
    pub fn read(&self, wall: Wall) -> Stamp {
        self.last.max(Stamp::at(wall))
    }

    /// The newest stamp issued or seen.
    pub fn newest(&self) -> Stamp {
        self.last
    }

    /// Takes a stamp seen in a record or BEAT into account.
    ///
    /// # Errors
    /// [`ClockAhead`] if it lies over [`CLOCK_AHEAD_MAX`] ahead of the own wall clock; the clock is then unchanged.
    pub fn observe(&mut self, wall: Wall, seen: Stamp) -> Result<(), ClockAhead> {
        if seen.wall().0 > wall.0.saturating_add(CLOCK_AHEAD_MAX.as_millis() as u64) {
            return Err(ClockAhead);
        }
        self.last = self.last.max(seen);
        Ok(())
    }

    /// Takes a stamp into account that this clock issued or observed in an earlier run, whatever the wall clock says now.
    pub fn adopt(&mut self, earlier: Stamp) {
        self.last = self.last.max(earlier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_stamps_grow_even_when_the_wall_clock_steps_back() {
        let mut clock = HybridClock::default();
        let a = clock.issue(Wall(1000));
        let b = clock.issue(Wall(400));
        let c = clock.issue(Wall(1000));
        assert!(a < b && b < c);
        assert_eq!(c.wall(), Wall(1000));
    }

    #[test]
    fn a_stamp_too_far_ahead_is_refused_and_changes_nothing() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.observe(Wall(5), Stamp::at(Wall(10_006))), Err(ClockAhead));
        assert_eq!(clock.read(Wall(5)), Stamp::at(Wall(5)));
        assert_eq!(clock.observe(Wall(5), Stamp::at(Wall(10_005))), Ok(()));
        assert!(clock.issue(Wall(6)) > Stamp::at(Wall(10_005)));
    }
}
