//! Makes a failing case small: fewer faults (ddmin, Zeller and Hildebrandt 2002), shorter, with fewer members.

use super::Case;
use crate::fault::Schedule;

/// Runs of a case that shrinking may cost.
const RUNS_MAX: usize = 600;

/// The smallest case found that still fails in the same way by `fails`.
pub fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut runs = 0;
    let mut still = |candidate: &Case| {
        runs += 1;
        runs <= RUNS_MAX && fails(candidate)
    };
    loop {
        let before = best.clone();
        best = fewer_faults(best, &mut still);
        best = shorter(best, &mut still);
        best = fewer_members(best, &mut still);
        if best == before {
            return best;
        }
    }
}

fn fewer_faults(mut best: Case, still: &mut impl FnMut(&Case) -> bool) -> Case {
    let mut parts = 2;
    while !best.schedule.is_empty() {
        let size = best.schedule.len().div_ceil(parts);
        let without = |from: usize| -> Schedule {
            let rest = best.schedule.iter().enumerate().filter(|(i, _)| *i < from || *i >= from + size);
            rest.map(|(_, t)| t.clone()).collect()
        };
        let smaller = (0..best.schedule.len())
            .step_by(size)
            .map(|from| Case { schedule: without(from), ..best.clone() })
            .find(|candidate| still(candidate));
        match smaller {
            Some(candidate) => {
                best = candidate;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(best.schedule.len()),
        }
    }
    best
}

fn shorter(mut best: Case, still: &mut impl FnMut(&Case) -> bool) -> Case {
    while best.length_ms > 100 {
        let mut candidate = best.clone();
        candidate.length_ms /= 2;
        for timed in &mut candidate.schedule {
            timed.at_ms /= 2;
        }
        if !still(&candidate) {
            // The same faults at the same times, with the quiet end cut off.
            candidate = best.clone();
            candidate.length_ms = best.schedule.last().map_or(0, |t| t.at_ms) + 1;
            if candidate.length_ms >= best.length_ms || !still(&candidate) {
                return best;
            }
        }
        best = candidate;
    }
    best
}

fn fewer_members(mut best: Case, still: &mut impl FnMut(&Case) -> bool) -> Case {
    let mut cut = best.members / 2;
    while cut >= 1 && best.members > 2 {
        let members = (best.members - cut).max(2);
        let mut candidate = Case { members, ..best.clone() };
        candidate.schedule.retain(|t| t.fault.hosts().iter().all(|&h| h < members));
        if members < best.members && still(&candidate) {
            best = candidate;
        } else {
            cut /= 2;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Timed};

    #[test]
    fn a_failure_of_two_faults_shrinks_to_them() {
        let schedule: Schedule = (0..64)
            .map(|i| Timed { at_ms: i * 100, fault: Fault::Crash { host: (i % 30) as usize } })
            .collect();
        let case = Case {
            seed: 1,
            members: 30,
            mode: "push-pull".into(),
            rumor: "adaptive".into(),
            patience_ms: 4_000,
            bytes_per_second: 256_000,
            length_ms: 8_000,
            schedule,
            disks: false,
        };
        let has = |c: &Case, host: usize| {
            c.schedule.iter().any(|t| t.fault == Fault::Crash { host }) && c.members > host
        };
        let small = shrink(&case, |c| has(c, 3) && has(c, 7));
        assert_eq!(small.schedule.len(), 2, "{small:?}");
        assert_eq!(small.members, 8);
        assert!(small.length_ms <= 100, "{small:?}");
    }
}
