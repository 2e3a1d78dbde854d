//! Faults as data: a schedule can be recorded, replayed and shrunk.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::{BRIDGE, Loss};
use crate::world::{SOCKET_BYTES, Stall, World};

/// One thing that happens to a world. Hosts that do not exist are passed over, so that a schedule may be cut down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
#[expect(missing_docs, reason = "the text of a variant names its fields")]
pub enum Fault {
    /// The process ends.
    Crash { host: usize },
    /// The process starts, again under its name; the seeds are hosts 0, 1 and 2.
    Start { host: usize },
    /// The member leaves by its own will; its process ends 3 s later or at [`World::calm`].
    Leave { host: usize },
    /// The process stands still.
    Stall { host: usize, kind: Stall },
    /// It continues.
    Resume { host: usize },
    /// These hosts are cut off from all others, together.
    Partition { hosts: Vec<usize> },
    /// The same, but host `bridge` reaches both sides.
    Bridge { hosts: Vec<usize>, bridge: usize },
    /// What these hosts send arrives nowhere but among themselves; they receive.
    OneWay { hosts: Vec<usize> },
    /// Partitions, cuts, deafness and muteness end.
    Heal,
    /// One direction of a link is cut.
    Cut { from: usize, to: usize },
    /// It works again.
    Restore { from: usize, to: usize },
    /// Receives nothing.
    Deafen { host: usize },
    /// Nothing it sends arrives.
    Mute { host: usize },
    /// Hears and is heard again.
    Unplug { host: usize },
    /// Datagram loss from now on.
    Loss { model: Loss },
    /// Share of datagrams that arrive twice.
    Duplicate { share: f64 },
    /// Share of datagrams held back by up to 50 ms.
    Reorder { share: f64 },
    /// The computer sleeps: nothing runs or arrives, and its monotonic clock stands.
    Sleep { host: usize },
    /// It wakes.
    Wake { host: usize },
    /// The wall clock is set this far off the true time.
    Clock { host: usize, offset_ms: i64 },
    /// The host sends at most this many bytes per second; zero is no limit.
    Uplink { host: usize, bytes_per_second: u32 },
    /// The host's socket keeps this many bytes.
    Socket { host: usize, bytes: usize },
    /// The host needs this long for each datagram.
    Slow { host: usize, micros: u64 },
    /// Two hosts change addresses.
    Swap { a: usize, b: usize },
    /// The host gets an address that nobody had.
    Move { host: usize },
    /// A member writes a key.
    Write { host: usize, key: u32, value: u32, bytes: usize },
    /// A member deletes a key.
    Delete { host: usize, key: u32 },
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds after the start of the schedule.
    pub at_ms: u64,
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Faults in the order of their times.
pub type Schedule = Vec<Timed>;

impl Fault {
    /// Every host it names.
    pub fn hosts(&self) -> Vec<usize> {
        match self {
            Fault::Crash { host }
            | Fault::Start { host }
            | Fault::Leave { host }
            | Fault::Stall { host, .. }
            | Fault::Resume { host }
            | Fault::Sleep { host }
            | Fault::Wake { host }
            | Fault::Deafen { host }
            | Fault::Mute { host }
            | Fault::Unplug { host }
            | Fault::Clock { host, .. }
            | Fault::Uplink { host, .. }
            | Fault::Socket { host, .. }
            | Fault::Slow { host, .. }
            | Fault::Move { host }
            | Fault::Write { host, .. }
            | Fault::Delete { host, .. } => vec![*host],
            Fault::Cut { from, to } | Fault::Restore { from, to } => vec![*from, *to],
            Fault::Swap { a, b } => vec![*a, *b],
            Fault::Partition { hosts } | Fault::OneWay { hosts } => hosts.clone(),
            Fault::Bridge { hosts, bridge } => hosts.iter().chain([bridge]).copied().collect(),
            Fault::Heal | Fault::Loss { .. } | Fault::Duplicate { .. } | Fault::Reorder { .. } => Vec::new(),
        }
    }
}

/// Key number as the store sees it.
pub fn key_name(key: u32) -> String {
    format!("k/{key}")
}

/// A value that names its writer: whoever holds another one holds what nobody wrote.
pub fn value_bytes(host: usize, key: u32, value: u32, bytes: usize) -> Arc<[u8]> {
    let mut text = format!("{host}.{key}.{value}.{bytes}.").into_bytes();
    let from = text.len();
    text.extend((from..bytes).map(|i| (i as u32 ^ value) as u8));
    Arc::from(text)
}

/// Was this value written by a [`Fault::Write`] for this key?
pub fn is_a_value(key: u32, value: &[u8]) -> bool {
    let mut parts = value.split(|&b| b == b'.').map(|p| std::str::from_utf8(p).ok()?.parse::<usize>().ok());
    let (Some(Some(host)), Some(Some(k)), Some(Some(number)), Some(Some(bytes))) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    k == key as usize && *value_bytes(host, key, number as u32, bytes) == *value
}

impl World {
    /// Seeds of every start in a schedule: hosts 0, 1 and 2 but itself.
    pub fn usual_seeds(&self, host: usize) -> Vec<usize> {
        (0..3.min(self.hosts.len())).filter(|&s| s != host).collect()
    }

    /// Lets one fault happen.
    pub fn apply(&mut self, fault: &Fault) {
        if fault.hosts().iter().any(|&h| h >= self.hosts.len()) {
            return;
        }
        match *fault {
            Fault::Crash { host } => self.crash(host),
            Fault::Start { host } => {
                if !self.is_up(host) {
                    let seeds = self.usual_seeds(host);
                    self.start(host, &seeds);
                }
            }
            Fault::Leave { host } => {
                self.command(host, |g, now| g.leave(now));
            }
            Fault::Stall { host, kind } => self.stall(host, kind),
            Fault::Resume { host } => self.resume(host),
            Fault::Partition { ref hosts } => self.network.partition(|h| u32::from(hosts.contains(&h))),
            Fault::Bridge { ref hosts, bridge } => self.network.partition(|h| match h {
                _ if h == bridge => BRIDGE,
                _ => u32::from(hosts.contains(&h)),
            }),
            // A higher group's datagrams do not reach a lower one.
            Fault::OneWay { ref hosts } => {
                self.network.partition_one_way(|h| u32::from(hosts.contains(&h)));
            }
            Fault::Sleep { host } => self.sleep(host),
            Fault::Wake { host } => self.wake(host),
            Fault::Heal => self.network.heal(),
            Fault::Cut { from, to } => self.network.cut(from, to),
            Fault::Restore { from, to } => self.network.restore(from, to),
            Fault::Deafen { host } => self.network.deafen(host),
            Fault::Mute { host } => self.network.mute(host),
            Fault::Unplug { host } => self.network.open_ears_and_mouth(host),
            Fault::Loss { model } => self.network.loss = model,
            Fault::Duplicate { share } => self.network.duplicate = share,
            Fault::Reorder { share } => self.network.reorder = share,
            Fault::Clock { host, offset_ms } => self.hosts[host].clock_offset_ms = offset_ms,
            Fault::Uplink { host, bytes_per_second } => {
                self.network.limit_uplink(host, f64::from(bytes_per_second));
            }
            Fault::Socket { host, bytes } => self.hosts[host].socket_bytes_max = bytes,
            Fault::Slow { host, micros } => self.hosts[host].slowness = Duration::from_micros(micros),
            Fault::Swap { a, b } => {
                if a != b {
                    self.swap_addresses(a, b);
                }
            }
            Fault::Move { host } => self.move_address(host),
            Fault::Write { host, key, value, bytes } => {
                let value = value_bytes(host, key, value, bytes);
                self.command(host, |g, now| g.set(now, key_name(key).as_bytes(), value, None).is_ok());
            }
            Fault::Delete { host, key } => {
                self.command(host, |g, now| g.delete(now, key_name(key).as_bytes()).is_ok());
            }
        }
    }

    /// Plays a schedule from now on, and runs to `length` after now.
    pub fn play(&mut self, schedule: &[Timed], length: Duration) {
        let start = self.now;
        for timed in schedule {
            let at = start + Duration::from_millis(timed.at_ms).min(length);
            self.run(at.since(self.now));
            self.apply(&timed.fault);
        }
        self.run((start + length).since(self.now));
    }

    /// Ends every fault but crashes: the network is whole and clean, every process runs.
    pub fn calm(&mut self) {
        self.network.heal();
        self.network.loss = Loss::Independent(0.0);
        self.network.duplicate = 0.0;
        self.network.reorder = 0.0;
        for host in 0..self.hosts.len() {
            self.network.limit_uplink(host, 0.0);
            self.hosts[host].socket_bytes_max = SOCKET_BYTES;
            self.hosts[host].slowness = Duration::ZERO;
            self.wake(host);
            self.resume(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_survive_json() {
        let schedule: Schedule = vec![
            Timed { at_ms: 5, fault: Fault::Stall { host: 1, kind: Stall::Io } },
            Timed { at_ms: 7, fault: Fault::Partition { hosts: vec![1, 2] } },
            Timed { at_ms: 9, fault: Fault::Loss { model: Loss::HostBursts { share: 0.2, length: 10.0 } } },
            Timed { at_ms: 9, fault: Fault::Heal },
        ];
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }

    #[test]
    fn values_name_their_writer() {
        let value = value_bytes(3, 7, 9, 100);
        assert_eq!(value.len(), 100);
        assert!(is_a_value(7, &value) && !is_a_value(8, &value));
        let mut other = value.to_vec();
        other[60] ^= 1;
        assert!(!is_a_value(7, &other) && !is_a_value(7, b"") && !is_a_value(7, b"3.7.9"));
        assert!(is_a_value(7, &value_bytes(3, 7, 9, 0)));
    }
}
