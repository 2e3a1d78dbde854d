//! JavaScript's shapes to the runtime's and back; all units end here.

use std::time::Duration;

use hearsay_proto::config::{Config, Interest, Loss, Mode};
use hearsay_proto::entry::Entry;
use hearsay_proto::member::{Member, Tags};
use hearsay_proto::output::{Change, Healed};
use hearsay_proto::phi::Model;
use hearsay_runtime::{Error, Metrics, Options};
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

/// What a call throws: `code` is one of the table in `ts/errors.ts`.
pub type JsError = napi::Error<&'static str>;

/// The runtime's refusal as JavaScript sees it.
pub fn refused(error: Error) -> JsError {
    JsError::new(error.code(), error.to_string())
}

/// Options of a start, checked by `ts/options.ts`; what is missing keeps the profile's preset. Durations in ms.
#[napi(object, object_to_js = false)]
pub struct StartOptions {
    /// Name of the member.
    pub name: String,
    /// Label.
    pub cluster: String,
    /// `host:port`.
    pub bind: String,
    /// `host:port` others use.
    pub advertise: Option<String>,
    /// `host:port` each.
    pub seeds: Vec<String>,
    /// Key and value in turn.
    pub tags: Vec<String>,
    /// 32 bytes each.
    pub keys: Vec<Uint8Array>,
    /// `local`, `lan`, `wan`.
    pub profile: String,
    /// `gossip.intervalMs`.
    pub gossip_interval_ms: Option<f64>,
    /// `gossip.fanout`.
    pub fanout: Option<u32>,
    /// `gossip.mode`: `push-pull`, `push`, `pull`.
    pub mode: Option<String>,
    /// `gossip.rumor.feedback`; without `rumor_loss` interest is lost adaptively.
    pub rumor_feedback: Option<bool>,
    /// `gossip.rumor.loss`: `coin`, `counter`.
    pub rumor_loss: Option<String>,
    /// `gossip.rumor.k`.
    pub rumor_k: Option<u32>,
    /// `normal`, `exponential`, `pekko`.
    pub model: Option<String>,
    /// `failureDetector.threshold`.
    pub threshold: Option<f64>,
    /// `failureDetector.windowSize`.
    pub window_size: Option<u32>,
    /// `failureDetector.heartbeatIntervalMs`.
    pub heartbeat_interval_ms: Option<f64>,
    /// `failureDetector.partners`.
    pub partners: Option<u32>,
    /// `failureDetector.minStdDevMs`.
    pub min_std_dev_ms: Option<f64>,
    /// `failureDetector.probeRounds`.
    pub probe_rounds: Option<u32>,
    /// `failureDetector.patienceMs`.
    pub patience_ms: Option<f64>,
    /// `failureDetector.observeAllUpTo`.
    pub observe_all_up_to: Option<u32>,
    /// `antiEntropy.settleMs`, whole seconds.
    pub settle_ms: Option<f64>,
    /// `antiEntropy.confirmMs`.
    pub confirm_ms: Option<f64>,
    /// `bandwidth.bytesPerSecondMax`.
    pub bytes_per_second_max: Option<f64>,
    /// `forgetDeadAfterMs`.
    pub forget_dead_after_ms: Option<f64>,
    /// `broadcastRetentionMs`.
    pub broadcast_retention_ms: Option<f64>,
    /// `joinTimeoutMs`.
    pub join_timeout_ms: Option<f64>,
    /// `storage.path`, whole.
    pub storage_path: Option<String>,
    /// `limits.membersMax`.
    pub members_max: Option<f64>,
    /// `limits.keyBytesMax`.
    pub key_bytes_max: Option<f64>,
    /// `limits.valueBytesMax`.
    pub value_bytes_max: Option<f64>,
    /// `limits.entriesMax`.
    pub entries_max: Option<f64>,
    /// `limits.storeBytesMax`.
    pub store_bytes_max: Option<f64>,
    /// `limits.datagramBytesMax`.
    pub datagram_bytes_max: Option<f64>,
}

/// Options of a phi detector, checked by `ts/options.ts`. Durations in ms.
#[napi(object, object_to_js = false)]
pub struct PhiSettings {
    /// `normal`, `exponential`, `pekko`.
    pub model: Option<String>,
    /// `threshold`.
    pub threshold: Option<f64>,
    /// `windowSize`.
    pub window_size: Option<u32>,
    /// `minStdDevMs`.
    pub min_std_dev_ms: Option<f64>,
    /// `acceptablePauseMs`.
    pub acceptable_pause_ms: Option<f64>,
    /// `firstHeartbeatEstimateMs`.
    pub first_heartbeat_estimate_ms: Option<f64>,
}

/// The model of this name; an unknown one is refused.
pub fn model(name: &str) -> Result<Model, JsError> {
    match name {
        "normal" => Ok(Model::Normal),
        "exponential" => Ok(Model::Exponential),
        "pekko" => Ok(Model::Pekko),
        _ => Err(JsError::new("ERR_HEARSAY_OPTION", format!("no model is named {name}"))),
    }
}

fn mode(name: &str) -> Result<Mode, JsError> {
    match name {
        "push-pull" => Ok(Mode::PushPull),
        "push" => Ok(Mode::Push),
        "pull" => Ok(Mode::Pull),
        _ => Err(JsError::new("ERR_HEARSAY_OPTION", format!("no mode is named {name}"))),
    }
}

fn loss(name: &str) -> Result<Loss, JsError> {
    match name {
        "coin" => Ok(Loss::Coin),
        "counter" => Ok(Loss::Counter),
        _ => Err(JsError::new("ERR_HEARSAY_OPTION", format!("no loss of interest is named {name}"))),
    }
}

/// Tags from keys and values in turn.
pub fn tags(flat: Vec<String>) -> Tags {
    let mut flat = flat.into_iter();
    let mut tags = Tags::new();
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        tags.insert(key, value);
    }
    tags
}

/// Milliseconds as JavaScript counts them; what is no duration counts as zero.
pub fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

fn put<T, U>(field: &mut T, given: Option<U>, convert: impl FnOnce(U) -> T) {
    if let Some(given) = given {
        *field = convert(given);
    }
}

fn count(given: f64) -> usize {
    given as usize
}

impl StartOptions {
    /// The runtime's options.
    ///
    /// # Errors
    /// A model, mode, loss or profile of no known name, a key that has not 32 bytes.
    pub fn into_options(self) -> Result<Options, JsError> {
        let mut config = match self.profile.as_str() {
            "local" => Config::local(),
            "wan" => Config::wan(),
            "lan" => Config::lan(),
            other => return Err(JsError::new("ERR_HEARSAY_OPTION", format!("no profile is named {other}"))),
        };
        config.label = self.cluster;
        put(&mut config.gossip.interval, self.gossip_interval_ms, millis);
        put(&mut config.gossip.fanout, self.fanout, |n| n as usize);
        if let Some(name) = self.mode {
            config.gossip.mode = mode(&name)?;
        }
        if let Some(name) = self.rumor_loss {
            config.gossip.interest = Interest::Demers {
                feedback: self.rumor_feedback.unwrap_or(true),
                loss: loss(&name)?,
                k: self.rumor_k.map_or(1, |k| u8::try_from(k).unwrap_or(u8::MAX)),
            };
        }
        let d = &mut config.detector;
        if let Some(name) = self.model {
            d.model = model(&name)?;
        }
        put(&mut d.threshold, self.threshold, |x| x);
        put(&mut d.window_size, self.window_size, |n| n as usize);
        put(&mut d.beat_period, self.heartbeat_interval_ms, millis);
        put(&mut d.partners, self.partners, |n| n as usize);
        put(&mut d.min_std_dev, self.min_std_dev_ms, millis);
        put(&mut d.probe_rounds, self.probe_rounds, |n| n);
        put(&mut d.patience, self.patience_ms, millis);
        put(&mut d.observe_all_up_to, self.observe_all_up_to, |n| n as usize);
        put(&mut config.anti_entropy.settle_secs, self.settle_ms, |ms| (ms / 1e3) as u8);
        put(&mut config.anti_entropy.confirm, self.confirm_ms, millis);
        put(&mut config.bytes_per_second_max, self.bytes_per_second_max, |n| n as u64);
        put(&mut config.forget_dead_after, self.forget_dead_after_ms, millis);
        put(&mut config.broadcast_retention, self.broadcast_retention_ms, millis);
        put(&mut config.join_timeout, self.join_timeout_ms, millis);
        let l = &mut config.limits;
        put(&mut l.members_max, self.members_max, count);
        put(&mut l.key_bytes_max, self.key_bytes_max, count);
        put(&mut l.value_bytes_max, self.value_bytes_max, count);
        put(&mut l.entries_max, self.entries_max, count);
        put(&mut l.store_bytes_max, self.store_bytes_max, count);
        put(&mut l.datagram_bytes_max, self.datagram_bytes_max, count);
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let key: [u8; 32] = key
                .as_ref()
                .try_into()
                .map_err(|_| JsError::new("ERR_HEARSAY_OPTION", "a key must have 32 bytes".to_owned()))?;
            keys.push(key);
        }
        Ok(Options {
            config,
            name: self.name,
            generation_stored: None,
            bind: self.bind,
            advertise: self.advertise,
            tags: tags(self.tags),
            keys,
            seeds: self.seeds,
            storage: self.storage_path.map(std::path::PathBuf::from),
        })
    }
}

/// Writes packed records: little endian, strings and byte strings with a u32 length before them, numbers as f64.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// One record: its length in four bytes, its kind, its body.
    pub fn record(&mut self, kind: u8, body: impl FnOnce(&mut Writer<'_>)) {
        let at = self.out.len();
        self.out.extend_from_slice(&[0, 0, 0, 0, kind]);
        body(self);
        let length = (self.out.len() - at - 4) as u32;
        if let Some(head) = self.out.get_mut(at..at + 4) {
            head.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self, flag: bool) {
        self.out.push(u8::from(flag));
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// A message of another member: its name, the topic, the payload.
    pub fn message(&mut self, from: &str, topic: &str, payload: &[u8]) {
        self.text(from);
        self.text(topic);
        self.bytes(payload);
    }

    /// Names with their count before them.
    pub fn names(&mut self, names: &[std::sync::Arc<str>]) {
        self.out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        for name in names {
            self.text(name);
        }
    }

    /// A number.
    pub fn number(&mut self, number: f64) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.out.extend_from_slice(bytes);
    }

    /// A string.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A member.
    pub fn member(&mut self, member: &Member) {
        let profile = &member.profile;
        self.text(&format!("{:?}", profile.id));
        self.text(&profile.name);
        self.number(profile.generation.0 as f64);
        self.number(member.incarnation.0 as f64);
        self.text(&profile.address.to_string());
        self.out.push(member.liveness as u8);
        self.out.extend_from_slice(&(profile.tags.len() as u32).to_le_bytes());
        for (key, value) in &profile.tags {
            self.text(key);
            self.text(value);
        }
    }

    /// An entry: key, value, version.
    pub fn entry(&mut self, entry: &Entry) {
        self.bytes(&entry.key);
        self.bytes(&entry.value);
        self.text(&entry.version.to_string());
    }

    /// A change of the replica.
    pub fn change(&mut self, change: &Change) {
        self.out.push(change.kind as u8);
        self.entry(&change.entry);
        self.flag(change.origin.is_some());
        self.text(change.origin.as_deref().unwrap_or_default());
    }

    /// A heal.
    pub fn healed(&mut self, healed: &Healed) {
        self.number(healed.keys_received as f64);
        self.number(healed.keys_sent as f64);
        self.number(healed.bytes as f64);
        self.number(healed.duration_ms as f64);
        self.names(&healed.members);
    }
}

/// `snake_case` to `camelCase`.
fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        if c == '_' {
            raise = true;
        } else {
            camel.push(if std::mem::take(&mut raise) { c.to_ascii_uppercase() } else { c });
        }
    }
    camel
}

/// Groups of counters as a JSON object of objects.
#[derive(Default)]
struct Groups(Vec<(&'static str, Vec<(String, f64)>)>);

impl Groups {
    fn put(&mut self, group: &'static str, name: &str, value: f64) {
        let name = camel(name);
        match self.0.iter_mut().find(|(known, _)| *known == group) {
            None => self.0.push((group, vec![(name, value)])),
            Some((_, fields)) => match fields.iter_mut().find(|(known, _)| *known == name) {
                None => fields.push((name, value)),
                Some((_, sum)) => *sum += value,
            },
        }
    }

    /// Finite numbers and letters only, so nothing needs escaping.
    fn json(&self) -> String {
        let mut groups = Vec::new();
        for (group, fields) in &self.0 {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            groups.push(format!("\"{group}\":{{{}}}", fields.join(",")));
        }
        format!("{{{}}}", groups.join(","))
    }
}

/// Counters as the JSON text of `Metrics` in `ts/types.ts`, without what JavaScript itself knows. What both floors count
/// under `dropped` is added up.
pub fn metrics(metrics: &Metrics) -> String {
    let mut groups = Groups::default();
    let gauges = &metrics.protocol.gauges;
    for (name, value) in [
        ("alive", gauges.members_alive),
        ("suspect", gauges.members_suspect),
        ("dead", gauges.members_dead),
        ("left", gauges.members_left),
    ] {
        groups.put("members", name, value as f64);
    }
    for name in [
        "datagrams_sent",
        "bytes_sent",
        "datagrams_received",
        "bytes_received",
        "frames_sent",
        "frame_bytes_sent",
        "frames_received",
        "frame_bytes_received",
    ] {
        groups.put("traffic", name, 0.0);
    }
    metrics.protocol.traffic.each(|name, value| match name.strip_prefix("dropped_") {
        Some(cause) => groups.put("dropped", cause, value as f64),
        None if name == "records_refused" => groups.put("dropped", name, value as f64),
        None => groups.put("traffic", name, value as f64),
    });
    metrics.host.each(|name, value| match name.strip_prefix("dropped_") {
        Some(cause) => groups.put("dropped", cause, value as f64),
        None if name == "kernel_drops" => groups.put("dropped", "kernel", value as f64),
        None => match name.strip_prefix("storage_") {
            Some(name) => groups.put("storage", name, value as f64),
            None => groups.put("socket", name, value as f64),
        },
    });
    metrics.protocol.detector.each(|name, value| groups.put("detector", name, value as f64));
    metrics.protocol.rumors.each(|name, value| groups.put("rumors", name, value as f64));
    groups.put("rumors", "hot", gauges.rumors_hot as f64);
    groups.put("rumors", "backlog_age_ms", gauges.backlog_age_ms as f64);
    metrics.protocol.sync.each(|name, value| groups.put("antiEntropy", name, value as f64));
    metrics.protocol.talk.each(|name, value| groups.put("talk", name, value as f64));
    groups.put("store", "keys", gauges.store_keys as f64);
    groups.put("store", "bytes", gauges.store_bytes as f64);
    groups.put("store", "tombstones", gauges.store_tombstones as f64);
    groups.put("store", "full", gauges.store_full as f64);
    groups.put("clock", "off_ms", gauges.clock_off_ms as f64);
    groups.json()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_floors_meet_under_one_name() {
        let mut m = Metrics::default();
        m.protocol.traffic.dropped_label = 2;
        m.host.dropped_label = 3;
        m.host.kernel_drops = 4;
        m.protocol.gauges.clock_off_ms = -7;
        let json = metrics(&m);
        assert!(json.contains("\"label\":5"), "{json}");
        assert!(json.contains("\"kernel\":4"), "{json}");
        assert!(json.contains("\"clock\":{\"offMs\":-7}"), "{json}");
        assert!(json.contains("\"datagramsSent\":0"), "{json}");
    }

    #[test]
    fn millis_takes_what_javascript_may_give() {
        assert_eq!(millis(1.5), Duration::from_micros(1500));
        assert_eq!(millis(-1.0), Duration::ZERO);
        assert_eq!(millis(f64::NAN), Duration::ZERO);
    }
}
