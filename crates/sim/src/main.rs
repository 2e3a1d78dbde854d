//! `hearsay-sim <scenario> [--members N] [--seed S] [--seeds COUNT] [--loss P] [--duplicate P] [--reorder P] [--wan] [--json]`

use std::process::ExitCode;

use hearsay_sim::scenario::{self, Outcome, Settings};
use serde::Serialize;

const SCENARIOS: &str = "join, rumor, crash, partition-heal, replay";

struct Arguments {
    scenario: String,
    settings: Settings,
    seeds: u64,
    json: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut args = std::env::args().skip(1);
    let scenario = args.next().ok_or_else(|| format!("which scenario? {SCENARIOS}"))?;
    let mut a = Arguments { scenario, settings: Settings::lan(100, 1), seeds: 1, json: false };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
        let number = |text: String| text.parse::<f64>().map_err(|e| format!("{flag}: {e}"));
        match flag.as_str() {
            "--members" => a.settings.members = number(value()?)? as usize,
            "--seed" => a.settings.seed = value()?.parse().map_err(|e| format!("{flag}: {e}"))?,
            "--seeds" => a.seeds = number(value()?)? as u64,
            "--loss" => a.settings.loss = number(value()?)?,
            "--duplicate" => a.settings.duplicate = number(value()?)?,
            "--reorder" => a.settings.reorder = number(value()?)?,
            "--wan" => a.settings.wan = true,
            "--json" => a.json = true,
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    Ok(a)
}

fn report<F: Serialize + std::fmt::Debug>(outcome: &Outcome<F>, json: bool) -> bool {
    if json {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
    } else {
        println!(
            "{} n={} seed={} loss={} steps={}\n  {:?}",
            outcome.scenario, outcome.members, outcome.seed, outcome.loss, outcome.steps, outcome.figures
        );
    }
    for failure in &outcome.failures {
        eprintln!("FAILED seed {}: {failure}\n  repeat: {}", outcome.seed, outcome.command);
    }
    outcome.failures.is_empty()
}

fn run(a: &Arguments, settings: &Settings) -> Result<bool, String> {
    Ok(match a.scenario.as_str() {
        "join" => report(&scenario::join(settings), a.json),
        "rumor" => report(&scenario::rumor(settings), a.json),
        "crash" => report(&scenario::crash(settings), a.json),
        "partition-heal" => report(&scenario::partition_heal(settings), a.json),
        "replay" => report(&scenario::replay(settings), a.json),
        other => return Err(format!("no scenario {other}; there are {SCENARIOS}")),
    })
}

fn main() -> ExitCode {
    let result = arguments().and_then(|a| {
        let mut ok = true;
        for seed in a.settings.seed..a.settings.seed + a.seeds {
            ok &= run(&a, &Settings { seed, ..a.settings.clone() })?;
        }
        Ok(ok)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
