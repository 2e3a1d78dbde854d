//! The simulator's commands; without one it prints them.

use std::process::ExitCode;

use hearsay_sim::acceptance::{self, Cell, Scale, SyncScale};
use hearsay_sim::network::Loss;
use hearsay_sim::papers::{self, Effort};
use hearsay_sim::scenario::{self, Outcome, Settings};
use hearsay_sim::svg::Plot;
use hearsay_sim::swarm::{self, Case};
use hearsay_sim::{ablation, baseline, deletes, phi_paper};
use serde::Serialize;

const USAGE: &str = "hearsay-sim <command> [options]
  join | rumor | crash | partition-heal | replay | broadcast | query | restart    one scenario, for --seeds seeds from --seed on
  swarm               --seeds seeds from --seed on; a failure is printed with seed, command and its shrunk schedule
                      [--bound S: whole within S seconds after the last fault instead of 120]
  swarm --case FILE   runs a schedule printed by a failure [--watch HOST prints its datagrams]
  demers-1 | demers-2 | demers-3 | karp | spread | serf-formula    tables of papers and peers beside ours [--small; --svg FILE for
                      the last two]
  acceptance rumors [--small] [--only single|sustained|hot-keys|overload|burst]   the rumor rows of the table
  load                bytes and datagrams per member and second at 10 to --members members, idle and at --rate updates/s
  acceptance detector [--small] [--members N] [--only idle|crash|preset|blow|loss|split|stall]   the detector rows of the table
  acceptance heal join ring [--small] [--members N] [--splits TIMES] [--only NAME]   the heal, join and ring rows, or some of them;
                      NAME: halves, 10/90, three ways, bridge, one way, flapping; mass-64, -300, -580, restart, rolling, one, split,
                      name, sleep; balance, move, heal
  acceptance bulk [--keys N]   a replica of 100,000 keys, or so many, to four newcomers at once, then to one more
  acceptance sync [--small] [--only repair|load|churn|bulk|return|deletes]   the rows of anti-entropy and deletes
  baseline crash | split                            SWIM + Lifeguard in the same network [--crashes N --hours H --no-tcp]
  deletes             --histories N random histories of deletes, splits and absences from --seed on: no value comes back
                      [--without-s7: with the rule switched off, where values must come back] [--rough: more members and faults]
  ablation [--small]  each rule of the detector switched off: what it buys
  traffic             payload by kind of message without faults but loss, over --hours member-hours
  phi-paper           the experiment of the phi paper
  phi-drift           a window of 64 after 10^9 samples beside one that saw the last 64 alone
options: --members N --seed S --seeds COUNT --loss P --duplicate P --reorder P --wan --json --threads N";

struct Arguments {
    command: Vec<String>,
    settings: Settings,
    members: Option<usize>,
    seeds: u64,
    crashes: usize,
    splits: Option<usize>,
    keys: Option<usize>,
    hours: f64,
    threads: usize,
    tcp: bool,
    small: bool,
    json: bool,
    case: Option<String>,
    bound: std::time::Duration,
    watch: Option<usize>,
    only: Option<String>,
    svg: Option<String>,
    rate: f64,
    histories: u64,
    without_s7: bool,
    rough: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut args = std::env::args().skip(1);
    let mut a = Arguments {
        command: Vec::new(),
        settings: Settings::lan(100, 1),
        members: None,
        seeds: 1,
        crashes: 50,
        splits: None,
        keys: None,
        hours: 50.0,
        threads: 2,
        tcp: true,
        small: false,
        json: false,
        case: None,
        bound: swarm::WHOLE_WITHIN,
        watch: None,
        only: None,
        svg: None,
        rate: 0.0,
        histories: 10_000,
        without_s7: false,
        rough: false,
    };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
        let number = |text: String| text.parse::<f64>().map_err(|e| format!("{flag}: {e}"));
        match flag.as_str() {
            "--members" => {
                a.settings.members = number(value()?)? as usize;
                a.members = Some(a.settings.members);
            }
            "--seed" => a.settings.seed = value()?.parse().map_err(|e| format!("{flag}: {e}"))?,
            "--seeds" => a.seeds = number(value()?)? as u64,
            "--loss" => a.settings.loss = number(value()?)?,
            "--duplicate" => a.settings.duplicate = number(value()?)?,
            "--reorder" => a.settings.reorder = number(value()?)?,
            "--crashes" => a.crashes = number(value()?)? as usize,
            "--splits" => a.splits = Some(number(value()?)? as usize),
            "--keys" => a.keys = Some(number(value()?)? as usize),
            "--hours" => a.hours = number(value()?)?,
            "--threads" => a.threads = number(value()?)? as usize,
            "--case" => a.case = Some(value()?),
            "--bound" => a.bound = std::time::Duration::from_secs_f64(number(value()?)?),
            "--only" => a.only = Some(value()?),
            "--watch" => a.watch = Some(number(value()?)? as usize),
            "--svg" => a.svg = Some(value()?),
            "--rate" => a.rate = number(value()?)?,
            "--histories" => a.histories = number(value()?)? as u64,
            "--without-s7" => a.without_s7 = true,
            "--rough" => a.rough = true,
            "--no-tcp" => a.tcp = false,
            "--small" => a.small = true,
            "--wan" => a.settings.wan = true,
            "--json" => a.json = true,
            _ if flag.starts_with('-') => return Err(format!("unknown option {flag}\n{USAGE}")),
            _ => a.command.push(flag),
        }
    }
    Ok(a)
}

fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    if json {
        println!("{}", serde_json::to_string(value).unwrap_or_default());
    } else {
        println!("{}", text());
    }
}

fn report<F: Serialize + std::fmt::Debug>(outcome: &Outcome<F>, json: bool) -> bool {
    print(json, outcome, || {
        let o = outcome;
        let head =
            format!("{} n={} seed={} loss={} steps={}", o.scenario, o.members, o.seed, o.loss, o.steps);
        format!("{head}\n  {:?}", o.figures)
    });
    for failure in &outcome.failures {
        eprintln!("FAILED seed {}: {failure}\n  repeat: {}", outcome.seed, outcome.command);
    }
    outcome.failures.is_empty()
}

fn scenarios(a: &Arguments, name: &str) -> Result<bool, String> {
    let mut ok = true;
    for seed in a.settings.seed..a.settings.seed + a.seeds {
        let settings = Settings { seed, ..a.settings.clone() };
        ok &= match name {
            "join" => report(&scenario::join(&settings), a.json),
            "rumor" => report(&scenario::rumor(&settings), a.json),
            "crash" => report(&scenario::crash(&settings), a.json),
            "partition-heal" => report(&scenario::partition_heal(&settings), a.json),
            "replay" => report(&scenario::replay(&settings), a.json),
            "broadcast" => report(&scenario::broadcast(&settings), a.json),
            "restart" => report(&scenario::restart(&settings), a.json),
            "query" => report(&scenario::query(&settings), a.json),
            other => return Err(format!("no command {other}\n{USAGE}")),
        };
    }
    Ok(ok)
}

fn swarm(a: &Arguments) -> Result<bool, String> {
    if let Some(path) = &a.case {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        let case: Case = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
        if let Some(host) = a.watch {
            case.watch(host);
        }
        let result = case.run_within(a.bound);
        println!("{result:?}");
        return Ok(result.is_ok());
    }
    let (mut failed, mut steps, mut member_hours, mut whole_s, mut slowest) = (0u64, 0u64, 0.0, 0f64, 0);
    for seed in a.settings.seed..a.settings.seed + a.seeds {
        let case = swarm::draw(seed);
        match case.run_within(a.bound) {
            Ok(passed) => {
                if passed.whole_s > whole_s {
                    slowest = seed;
                }
                steps += passed.steps;
                member_hours += passed.member_hours;
                whole_s = whole_s.max(passed.whole_s);
            }
            Err(failure) => {
                failed += 1;
                println!("FAILED seed {seed}: {}\n  repeat: {}", failure.what, swarm::command(seed));
                let kind = failure.kind();
                let small = swarm::shrink(&case, |c| c.run_within(a.bound).is_err_and(|f| f.kind() == kind));
                let text = serde_json::to_string(&small).unwrap_or_default();
                let last = small.run_within(a.bound).err().map_or(String::new(), |f| f.what);
                println!("  shrunk to {} faults: {last}\n  --case: {text}", small.schedule.len());
            }
        }
    }
    println!(
        "{} seeds, {failed} failed; {steps} steps, {member_hours:.1} member-hours, slowest whole after {whole_s:.1} s \
         (seed {slowest})",
        a.seeds
    );
    Ok(failed == 0)
}

/// Prints a table; true if all of it holds.
fn show(a: &Arguments, cells: &[Cell]) -> bool {
    print(a.json, &cells, || acceptance::table(cells));
    cells.iter().all(|c| c.pass)
}

fn papers(a: &Arguments, name: &str) -> Result<bool, String> {
    let seed = a.settings.seed;
    let mut effort = if a.small { Effort::small(seed) } else { Effort::whole(seed) };
    effort.members_max = a.members.unwrap_or(effort.members_max);
    let plot = match name {
        "spread" => Some(papers::spread::plot as fn(&Effort) -> Plot),
        "serf-formula" => Some(papers::serf::plot as fn(&Effort) -> Plot),
        _ => None,
    };
    if let (Some(path), Some(plot)) = (&a.svg, plot) {
        std::fs::write(path, plot(&effort).svg()).map_err(|e| format!("{path}: {e}"))?;
    }
    let cells = match name {
        "demers-1" => papers::demers::cells(1, &effort),
        "demers-2" => papers::demers::cells(2, &effort),
        "demers-3" => papers::demers::cells(3, &effort),
        "karp" => papers::karp::cells(&effort),
        "serf-formula" => papers::serf::cells(&effort),
        _ => {
            let mut cells = papers::spread::rounds_cells(&effort);
            cells.extend(papers::spread::protocol_cells(&effort));
            cells
        }
    };
    Ok(show(a, &cells))
}

fn load(a: &Arguments) -> bool {
    let most = a.members.unwrap_or(10_000);
    let sizes: Vec<usize> = [10, 100, 1_000, 10_000].into_iter().filter(|&n| n <= most).collect();
    let rates = if a.rate > 0.0 { vec![a.rate] } else { vec![0.0, 1.0, 10.0] };
    show(a, &acceptance::load::table_of(&sizes, &rates, 60.0, a.settings.seed, a.threads))
}

fn acceptance_table(a: &Arguments, parts: &[&str]) -> Result<bool, String> {
    let mut scale = if a.small { Scale::small(a.settings.seed) } else { Scale::whole(a.settings.seed) };
    if let Some(members) = a.members {
        scale.sizes = vec![members];
    }
    scale.splits = a.splits.unwrap_or(scale.splits);
    scale.keys = a.keys.unwrap_or(scale.keys);
    let (mut tasks, seed) = (Vec::new(), a.settings.seed);
    for part in parts {
        tasks.extend(match *part {
            "detector" => acceptance::cells(&scale),
            "rumors" => acceptance::rumors::cells(&scale),
            "heal" => acceptance::heal_cells(&scale),
            "join" => acceptance::join_cells(&scale),
            "bulk" => acceptance::bulk_cells(&scale),
            "ring" => acceptance::ring_cells(&scale),
            "sync" => {
                acceptance::sync_cells(if a.small { SyncScale::small(seed) } else { SyncScale::whole(seed) })
            }
            other => return Err(format!("no part {other} of the table\n{USAGE}")),
        });
    }
    tasks.retain(|t| a.only.as_ref().is_none_or(|only| t.name == only));
    let cells = acceptance::run(tasks, a.threads, |c| {
        eprintln!("{} n={}: {} ({})", c.what, c.members, c.measured, if c.pass { "pass" } else { "FAIL" });
    });
    Ok(show(a, &cells))
}

fn run(a: &Arguments) -> Result<bool, String> {
    let words: Vec<&str> = a.command.iter().map(String::as_str).collect();
    let s = &a.settings;
    match words[..] {
        ["swarm"] => swarm(a),
        [name @ ("demers-1" | "demers-2" | "demers-3" | "karp" | "spread" | "serf-formula")] => {
            papers(a, name)
        }
        ["load"] => Ok(load(a)),
        ["acceptance", ref parts @ ..] if !parts.is_empty() => acceptance_table(a, parts),
        ["deletes"] => {
            let style = deletes::Style { absence: !a.without_s7, rough: a.rough };
            let tally = deletes::run(s.seed, a.histories, style, a.threads, |seed, faults| {
                if !a.without_s7 {
                    let rough = if a.rough { " --rough" } else { "" };
                    eprintln!(
                        "FAILED seed {seed}: {}\n  repeat: hearsay-sim deletes --seed {seed} --histories 1{rough}",
                        faults.join("; ")
                    );
                }
            });
            print(a.json, &tally, || {
                format!(
                    "{} histories from seed {}: {} with a value that came back (required {}), {} broken; {} writes, {} of \
                     them deletes; rejoined {} times, {} values dropped thereby",
                    tally.histories,
                    s.seed,
                    tally.resurrections,
                    if a.without_s7 { "> 0, S7 is off" } else { "0" },
                    tally.broken,
                    tally.writes,
                    tally.deletes,
                    tally.rejoined,
                    tally.dropped
                )
            });
            Ok(if a.without_s7 { tally.resurrections > 0 } else { tally.first_failed == 0 })
        }
        ["ablation"] => {
            let scale = if a.small { ablation::Scale::small(s.seed) } else { ablation::Scale::whole(s.seed) };
            let rows = ablation::run(&scale, |row| eprintln!("{row:?}"));
            print(a.json, &rows, || ablation::table(&rows));
            Ok(true)
        }
        ["traffic"] => {
            let time = std::time::Duration::from_secs_f64(a.hours * 3_600.0 / s.members as f64);
            let kinds = acceptance::measure::kinds(s.members, Loss::Independent(s.loss), time, s.seed);
            let sum: f64 = kinds.iter().map(|(_, bytes)| bytes).sum();
            kinds.iter().for_each(|(kind, bytes)| println!("{kind:<12} {bytes:>9.2} B/s"));
            println!("sum          {sum:>9.2} B/s");
            Ok(true)
        }
        ["phi-drift"] => {
            let (seen, fresh) = phi_paper::drift(s.seed, 1_000_000_000);
            println!("mean, variance after 10^9 samples and of the last 64 alone: {seen:?}, {fresh:?}");
            Ok(seen == fresh)
        }
        ["phi-paper"] => {
            let figures = phi_paper::run(&phi_paper::trace(s.seed));
            print(a.json, &figures, || figures.table());
            let misses = figures.misses();
            misses.iter().for_each(|miss| eprintln!("FAILED {miss}"));
            Ok(misses.is_empty())
        }
        ["baseline", "crash"] => {
            let f = baseline::crash(s.seed, s.members, s.loss, s.wan, a.tcp, a.crashes, a.hours);
            print(a.json, &f, || {
                format!(
                    "memberlist-like n={} loss={} tcp={} seed={}: first suspicion {} s, first death {} s, last member {} s \
                     ({} crashes, {} unfinished)\n  without a crash, {} member-hours: false deaths {:.4}, suspicions {:.3} \
                     per member-hour; {:.1} payload B/s, {:.2} datagrams/s, state exchange {:.1} B/s",
                    f.members,
                    f.loss,
                    a.tcp,
                    s.seed,
                    f.first_suspicion_s,
                    f.first_death_s,
                    f.last_member_s,
                    f.crashes,
                    f.unfinished,
                    f.member_hours,
                    f.false_deaths_per_member_hour,
                    f.false_suspicions_per_member_hour,
                    f.payload_bytes_per_second,
                    f.datagrams_per_second,
                    f.exchange_bytes_per_second
                )
            });
            Ok(true)
        }
        ["baseline", "split"] => {
            let (buried, healed) = baseline::split(s.seed, s.members);
            println!(
                "memberlist-like n={}: buried after {buried:?}, healed within 120 s: {healed}",
                s.members
            );
            Ok(true)
        }
        [one] => scenarios(a, one),
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    match arguments().and_then(|a| run(&a)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
