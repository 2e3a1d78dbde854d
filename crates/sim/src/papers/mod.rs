//! Experiments of papers and peers, by name: their tables beside ours.

pub mod demers;
pub mod karp;
pub mod rounds;
pub mod serf;
pub mod spread;

use crate::acceptance::Cell;

/// How much is simulated.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each row; fewer for large n where a row says so.
    pub runs: usize,
    /// Largest number of members.
    pub members_max: usize,
    /// First seed.
    pub seed: u64,
}

impl Effort {
    /// Seconds of work.
    pub fn small(seed: u64) -> Effort {
        Effort { runs: 100, members_max: 1_000, seed }
    }

    /// The whole tables.
    pub fn whole(seed: u64) -> Effort {
        Effort { runs: 1_000, members_max: 1_000_000, seed }
    }

    /// Numbers of members by powers of ten, from a hundred on.
    pub fn sizes(&self) -> Vec<usize> {
        [100, 1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|&n| n <= self.members_max).collect()
    }
}

/// Mean of a sample and its standard error.
pub(crate) fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (square / n).sqrt())
}

pub(crate) fn cell(what: String, members: usize, required: String, measured: String, pass: bool) -> Cell {
    Cell { what, members, required, measured, exposure: String::new(), seed: 0, pass }
}

pub(crate) fn of(cells: Vec<Cell>, exposure: &str, seed: u64) -> Vec<Cell> {
    cells
        .into_iter()
        .map(|c| Cell {
            exposure: if c.exposure.is_empty() { exposure.into() } else { c.exposure },
            seed,
            ..c
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::table;

    fn hold(cells: &[Cell], at_least: usize) {
        assert!(cells.len() >= at_least && cells.iter().all(|c| c.pass), "{}", table(cells));
    }

    #[test]
    fn demers_tables_are_reproduced() {
        for which in 1..=3 {
            hold(&demers::cells(which, &Effort { runs: 150, ..Effort::small(1987) }), 3);
        }
    }

    #[test]
    fn a_false_table_is_noticed() {
        let effort = Effort { runs: 150, ..Effort::small(1987) };
        let shifted = demers::against(1, &effort, 1.1);
        assert!(shifted.iter().any(|c| !c.pass), "{}", table(&shifted));
    }

    #[test]
    fn rounds_of_push_pull_and_push_pull_are_reproduced() {
        hold(&spread::rounds_cells(&Effort::small(1)), 20);
    }

    #[test]
    fn rumors_are_no_slower_than_the_tables() {
        hold(&spread::protocol_cells(&Effort { runs: 5, ..Effort::small(1) }), 10);
    }

    #[test]
    fn median_counters_stop_in_time_and_cost_little() {
        hold(&karp::cells(&Effort { members_max: 10_000, runs: 20, seed: 1 }), 6);
    }

    #[test]
    fn serfs_formula_gives_serfs_table_and_ours_is_faster() {
        hold(&serf::cells(&Effort { runs: 5, ..Effort::small(1) }), 8);
    }
}
