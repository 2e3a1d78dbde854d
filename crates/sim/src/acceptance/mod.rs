//! Rows of the acceptance table (`combined-protocol.md`, section 8): ours beside the required value.

mod bulk;
mod detector;
mod heal;
mod join;
pub mod load;
pub mod measure;
mod ring;
pub mod rumors;
mod sync;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

pub use bulk::cells as bulk_cells;
pub use detector::cells;
pub use heal::cells as heal_cells;
pub use join::cells as join_cells;
pub use ring::cells as ring_cells;
pub use sync::{SyncScale, sync_cells};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Numbers of members.
    pub sizes: Vec<usize>,
    /// Crashes per cell; a fifth of it for 1,000 members, one for more.
    pub crashes: usize,
    /// Deaf, mute and other blows per cell; likewise.
    pub blows: usize,
    /// Member-hours of cells about false deaths and suspicions.
    pub member_hours: f64,
    /// Rounds of stalls, of 4.3 member-hours each.
    pub stall_rounds: usize,
    /// Splits per cell.
    pub splits: usize,
    /// Keys of a replica that newcomers get.
    pub keys: usize,
    /// Leave out what differs from another cell by degree alone.
    pub few: bool,
    /// First seed.
    pub seed: u64,
}

impl Scale {
    /// Seconds of work: 10 and 100 members, small samples.
    pub fn small(seed: u64) -> Scale {
        Scale {
            sizes: vec![10, 100],
            crashes: 100,
            blows: 5,
            member_hours: 10.0,
            stall_rounds: 1,
            splits: 1,
            keys: 10_000,
            few: true,
            seed,
        }
    }

    /// The whole table.
    pub fn whole(seed: u64) -> Scale {
        Scale {
            sizes: vec![10, 100, 1_000, 10_000],
            crashes: 200,
            blows: 100,
            member_hours: 200.0,
            stall_rounds: 12,
            splits: 3,
            keys: 100_000,
            few: false,
            seed,
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What.
    pub what: String,
    /// Members.
    pub members: usize,
    /// As section 8 has it.
    pub required: String,
    /// Ours.
    pub measured: String,
    /// What it was measured on.
    pub exposure: String,
    /// First seed.
    pub seed: u64,
    /// Does it hold?
    pub pass: bool,
}

/// A piece of work that yields cells.
pub struct Task {
    /// What it measures, in a word: idle, crash, blow, loss, split, stall.
    pub name: &'static str,
    /// Rough cost, to start the dearest first.
    pub cost: f64,
    /// The work.
    pub run: Box<dyn Fn() -> Vec<Cell> + Send + Sync>,
}

/// Does all tasks on `threads` threads; the cells in the order of the tasks.
pub fn run(tasks: Vec<Task>, threads: usize, progress: impl Fn(&Cell) + Sync) -> Vec<Cell> {
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by(|&a, &b| tasks[b].cost.total_cmp(&tasks[a].cost));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<Cell>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(&task) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cells = (tasks[task].run)();
                    cells.iter().for_each(&progress);
                    if let Ok(mut done) = done.lock() {
                        done.push((task, cells));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|&(task, _)| task);
    done.into_iter().flat_map(|(_, cells)| cells).collect()
}

/// The table as text.
pub fn table(cells: &[Cell]) -> String {
    let mut text = format!(
        "{:<52} {:>6}  {:<22} {:<28} {:<26} {:>5}\n",
        "what", "N", "required", "measured", "exposure", "seed"
    );
    for c in cells {
        text += &format!(
            "{:<52} {:>6}  {:<22} {:<28} {:<26} {:>5}  {}\n",
            c.what,
            c.members,
            c.required,
            c.measured,
            c.exposure,
            c.seed,
            if c.pass { "pass" } else { "FAIL" }
        );
    }
    let failed = cells.iter().filter(|c| !c.pass).count();
    text + &format!("{} cells, {failed} failed\n", cells.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detector_holds_what_small_samples_show() {
        let scale = Scale::small(1);
        let cells = run(cells(&scale), 2, |_| {});
        assert!(cells.iter().all(|c| c.pass), "{}", table(&cells));
        assert!(cells.len() >= 30, "{}", table(&cells));
    }

    fn holds(tasks: Vec<Task>, least: usize) {
        let cells = run(tasks, 2, |_| {});
        assert!(cells.iter().all(|c| c.pass) && cells.len() >= least, "{}", table(&cells));
    }

    #[test]
    fn heals_hold_what_small_samples_show() {
        holds(heal_cells(&Scale { sizes: vec![10], ..Scale::small(1) }), 9);
    }

    #[test]
    fn joins_hold_what_small_samples_show() {
        holds(join_cells(&Scale { sizes: vec![10], ..Scale::small(1) }), 8);
    }

    #[test]
    fn rings_hold_what_small_samples_show() {
        holds(ring_cells(&Scale { sizes: vec![10], ..Scale::small(1) }), 3);
    }

    #[test]
    fn a_replica_comes_whole_and_stops_nobodys_heartbeat() {
        holds(bulk_cells(&Scale::small(1)), 2);
    }

    #[test]
    fn many_join_at_once_with_records_of_any_size() {
        let mut tasks = join_cells(&Scale { sizes: vec![100], ..Scale::small(2) });
        tasks.retain(|t| t.name.starts_with("mass"));
        holds(tasks, 3);
    }
}
