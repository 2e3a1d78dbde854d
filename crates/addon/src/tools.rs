//! The stand-alone tools: phi detector and Merkle map.

use hearsay_proto::merkle::MerkleMap;
use hearsay_proto::phi::{PhiAccrualDetector, PhiError, PhiOptions};
use napi::bindgen_prelude::Uint8Array;
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

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
