//! Broadcasts, queries, mail and confirmations as JavaScript calls them.

use std::sync::Arc;

use hearsay_proto::entry::Version;
use hearsay_proto::wire::AnswerStatus;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use crate::cluster::NativeCluster;
use crate::convert::{self, JsError, millis, refused};

/// A broadcast as its caller sees it.
#[napi(object, object_from_js = false)]
pub struct NativeSent {
    /// Its number.
    pub number: u32,
    /// Its version.
    pub version: String,
    /// Own writes are backlogged.
    pub backlogged: bool,
}

fn version(text: &str) -> Result<Version, JsError> {
    text.parse().map_err(|_| {
        JsError::new("ERR_HEARSAY_ARGUMENT", format!("'{text}' is not a version of a key of this cluster"))
    })
}

#[napi]
impl NativeCluster {
    /// Broadcasts and mail of this topic become events.
    #[napi]
    pub fn subscribe(&self, topic: String) -> Result<(), JsError> {
        self.handle()?.subscribe(&topic).map_err(refused)
    }

    /// And no longer.
    #[napi]
    pub fn unsubscribe(&self, topic: String) -> Result<(), JsError> {
        self.handle()?.unsubscribe(&topic).map_err(refused)
    }

    /// Queries of this topic become events.
    #[napi]
    pub fn respond(&self, topic: String) -> Result<(), JsError> {
        self.handle()?.respond(&topic).map_err(refused)
    }

    /// And no longer.
    #[napi]
    pub fn unrespond(&self, topic: String) -> Result<(), JsError> {
        self.handle()?.unrespond(&topic).map_err(refused)
    }

    /// Broadcasts.
    #[napi]
    pub fn broadcast(&self, topic: String, payload: Uint8Array) -> Result<NativeSent, JsError> {
        let sent = self.handle()?.broadcast(&topic, payload.as_ref()).map_err(refused)?;
        let version = sent.version.to_string();
        Ok(NativeSent { number: sent.number, version, backlogged: sent.backlogged })
    }

    /// Sends to one member; the event `MailEnded` with this number follows.
    #[napi]
    pub fn send(
        &self,
        name: String,
        topic: String,
        payload: Uint8Array,
        timeout_ms: f64,
    ) -> Result<u32, JsError> {
        let payload: Arc<[u8]> = Arc::from(payload.as_ref());
        self.handle()?.send(&name, &topic, payload, millis(timeout_ms)).map_err(refused)
    }

    /// Nobody waits for this mail any more.
    #[napi]
    pub fn cancel_send(&self, number: u32) -> Result<(), JsError> {
        self.handle()?.cancel_send(number).map_err(refused)
    }

    /// Asks; `filter`: key and value in turn. The events `Answer` and `QueryEnded` with this number follow.
    #[napi]
    pub fn query(
        &self,
        topic: String,
        payload: Uint8Array,
        filter: Vec<String>,
        timeout_ms: f64,
    ) -> Result<u32, JsError> {
        let filter = convert::tags(filter);
        self.handle()?.query(&topic, payload.as_ref(), &filter, millis(timeout_ms)).map_err(refused)
    }

    /// Nobody reads the answers to this query any more.
    #[napi]
    pub fn cancel_query(&self, number: u32) -> Result<(), JsError> {
        self.handle()?.cancel_query(number).map_err(refused)
    }

    /// Answers the event `Query`: 0 the answer, 1 nobody responds, 2 the text of an error. False: too late.
    #[napi]
    pub fn answer(&self, query: f64, status: u32, payload: Uint8Array) -> Result<bool, JsError> {
        let status = match status {
            0 => AnswerStatus::Ok,
            1 => AnswerStatus::None,
            _ => AnswerStatus::Error,
        };
        self.handle()?.answer(query as u64, status, Arc::from(payload.as_ref())).map_err(refused)
    }

    /// Waits for others to hold a version of a key; the event `Confirmed` with this number follows.
    #[napi]
    pub fn spread(
        &self,
        key: String,
        known: Option<String>,
        members: u32,
        timeout_ms: f64,
    ) -> Result<f64, JsError> {
        let known = known.as_deref().map(version).transpose()?;
        let waiter = self.handle()?.spread(key.as_bytes(), known, members as usize, millis(timeout_ms));
        Ok(waiter.map_err(refused)? as f64)
    }

    /// Waits for all to hold a broadcast; the event `Confirmed` with this number follows.
    #[napi]
    pub fn reached(&self, number: u32, known: String, timeout_ms: f64) -> Result<f64, JsError> {
        let known = version(&known)?;
        Ok(self.handle()?.reached(number, known, millis(timeout_ms)).map_err(refused)? as f64)
    }

    /// Nobody waits for this confirmation any more.
    #[napi]
    pub fn cancel_confirm(&self, waiter: f64) -> Result<(), JsError> {
        self.handle()?.cancel_confirm(waiter as u64).map_err(refused)
    }
}
