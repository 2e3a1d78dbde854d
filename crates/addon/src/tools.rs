//! The stand-alone tools: phi detector, Merkle map and hash ring.

use hearsay_proto::merkle::MerkleMap;
use hearsay_proto::phi::{PhiAccrualDetector, PhiError, PhiOptions};
use hearsay_proto::ring::{HashRing, RingError, RingMember, RingOptions};
use napi::bindgen_prelude::{Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::convert::{JsError, PhiSettings, model};

fn phi_refused(error: PhiError) -> JsError {
    let code = match error {
        PhiError::Option { .. } => "ERR_HEARSAY_OPTION",
        PhiError::TimeNotFinite { .. } | PhiError::TimeBackwards { .. } => "ERR_HEARSAY_TIME",
    };
    JsError::new(code, error.to_string())
}

/// A phi accrual failure detector.
#[napi]
pub struct NativePhi {
    inner: PhiAccrualDetector,
}

#[napi]
impl NativePhi {
    /// One that has heard nothing.
    #[napi(factory)]
    pub fn create(settings: PhiSettings) -> Result<NativePhi, JsError> {
        let mut options = PhiOptions::default();
        if let Some(name) = settings.model {
            options.model = model(&name)?;
        }
        options.threshold = settings.threshold.unwrap_or(options.threshold);
        options.window_size = settings.window_size.map_or(options.window_size, |n| n as usize);
        options.min_std_dev_ms = settings.min_std_dev_ms.unwrap_or(options.min_std_dev_ms);
        options.acceptable_pause_ms = settings.acceptable_pause_ms.unwrap_or(options.acceptable_pause_ms);
        options.first_heartbeat_estimate_ms = settings.first_heartbeat_estimate_ms;
        Ok(NativePhi { inner: PhiAccrualDetector::new(options).map_err(phi_refused)? })
    }

    /// Records a heartbeat.
    #[napi]
    pub fn heartbeat(&mut self, now_ms: f64) -> Result<(), JsError> {
        self.inner.heartbeat(now_ms).map_err(phi_refused)
    }

    /// Phi now.
    #[napi]
    pub fn phi(&self, now_ms: f64) -> Result<f64, JsError> {
        self.inner.phi(now_ms).map_err(phi_refused)
    }

    /// Is phi below the threshold?
    #[napi]
    pub fn is_available(&self, now_ms: f64) -> Result<bool, JsError> {
        self.inner.is_available(now_ms).map_err(phi_refused)
    }

    /// Mean of the window in ms.
    #[napi(getter)]
    pub fn mean(&self) -> f64 {
        self.inner.mean()
    }

    /// Population standard deviation of the window in ms.
    #[napi(getter)]
    pub fn std_dev(&self) -> f64 {
        self.inner.std_dev()
    }

    /// Intervals in the window.
    #[napi(getter)]
    pub fn samples(&self) -> u32 {
        u32::try_from(self.inner.samples()).unwrap_or(u32::MAX)
    }
}

/// A map with a Merkle root.
#[napi]
pub struct NativeMerkle {
    inner: MerkleMap,
}

#[napi]
impl NativeMerkle {
    /// An empty one.
    #[napi(factory)]
    pub fn create() -> NativeMerkle {
        NativeMerkle { inner: MerkleMap::new() }
    }

    /// Sets a key to the UTF-8 of a string; false if it was so already.
    #[napi]
    pub fn set_text(&mut self, key: String, value: String) -> bool {
        self.inner.set(key.as_bytes(), value.as_bytes())
    }

    /// Sets a key to bytes; false if it was so already.
    #[napi]
    pub fn set_bytes(&mut self, key: String, value: Uint8Array) -> bool {
        self.inner.set(key.as_bytes(), value.as_ref())
    }

    /// Removes a key; false if it was not there.
    #[napi]
    pub fn delete(&mut self, key: String) -> bool {
        self.inner.delete(key.as_bytes())
    }

    /// Is the key there?
    #[napi]
    pub fn has(&self, key: String) -> bool {
        self.inner.contains(key.as_bytes())
    }

    /// Removes everything.
    #[napi]
    pub fn clear(&mut self) {
        self.inner.clear();
    }

    /// Number of keys.
    #[napi(getter)]
    pub fn size(&self) -> f64 {
        self.inner.len() as f64
    }

    /// The root, 64 hex digits.
    #[napi]
    pub fn root(&self) -> String {
        hex(&self.inner.root())
    }

    /// Keys that differ, in key order.
    #[napi]
    pub fn diff(&self, other: &NativeMerkle) -> Vec<String> {
        let keys = self.inner.diff(&other.inner).keys;
        keys.into_iter().map(|key| String::from_utf8_lossy(&key).into_owned()).collect()
    }
}

fn ring_refused(error: RingError) -> JsError {
    let code = match error {
        RingError::VirtualNodes(_) => "ERR_HEARSAY_OPTION",
        RingError::EmptyName | RingError::Weight { .. } | RingError::TooManyPoints => "ERR_HEARSAY_ARGUMENT",
    };
    JsError::new(code, error.to_string())
}

/// One name of a ring.
#[napi(object)]
pub struct RingEntry {
    /// The name.
    pub name: String,
    /// Its share relative to others.
    pub weight: f64,
    /// What fails together with it.
    pub zone: Option<String>,
}

/// A ring as lookups in JavaScript need it.
#[napi(object)]
pub struct RingTable {
    /// Upper halves of the points, in order.
    pub high: Uint32Array,
    /// Lower halves of the points.
    pub low: Uint32Array,
    /// For each point the place of its name.
    pub owners: Uint32Array,
    /// For each value of the top bits of a hash the first point at or above it.
    pub starts: Uint32Array,
    /// Names by place, empty where none is.
    pub names: Vec<String>,
}

/// A consistent-hash ring.
#[napi]
pub struct NativeRing {
    inner: HashRing,
}

#[napi]
impl NativeRing {
    /// An empty one.
    #[napi(factory)]
    pub fn create(virtual_nodes: u32, zone_aware: bool) -> Result<NativeRing, JsError> {
        let inner = HashRing::new(RingOptions { virtual_nodes, zone_aware }).map_err(ring_refused)?;
        Ok(NativeRing { inner })
    }

    /// Adds or changes names and removes others, at once; false if nothing changed.
    #[napi]
    pub fn change(&mut self, added: Vec<RingEntry>, removed: Vec<String>) -> Result<bool, JsError> {
        let added =
            added.into_iter().map(|RingEntry { name, weight, zone }| RingMember { name, weight, zone });
        self.inner.change(added, removed.iter().map(String::as_str)).map_err(ring_refused)
    }

    /// The first distinct names from the key's place on.
    #[napi]
    pub fn owners(&self, key: String, n: u32) -> Vec<&str> {
        self.inner.owners(key.as_bytes(), n as usize)
    }

    /// Equal rings have equal versions, 16 hex digits.
    #[napi]
    pub fn version(&self) -> String {
        format!("{:016x}", self.inner.version())
    }

    /// What lookups need.
    #[napi]
    pub fn table(&self) -> RingTable {
        let points = self.inner.points();
        RingTable {
            high: points.iter().map(|point| (point >> 32) as u32).collect::<Vec<u32>>().into(),
            low: points.iter().map(|point| *point as u32).collect::<Vec<u32>>().into(),
            owners: self.inner.point_owners().to_vec().into(),
            starts: self.inner.starts().to_vec().into(),
            names: self.inner.names().map(|name| name.unwrap_or_default().to_owned()).collect(),
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
