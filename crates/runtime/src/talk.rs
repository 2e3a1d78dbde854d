//! What members say to each other beside the state, on the [`Handle`].

use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::entry::Version;
use hearsay_proto::member::Tags;
use hearsay_proto::output::Sent;
use hearsay_proto::wire::AnswerStatus;

use crate::error::Error;
use crate::handle::Handle;

impl Handle {
    /// Broadcasts and mail of this topic become events from now on.
    ///
    /// # Errors
    /// [`Error::Call`]: topic, too many topics; [`Error::Stopped`].
    pub fn subscribe(&self, topic: &str) -> Result<(), Error> {
        Ok(self.update(|gossip, _| gossip.subscribe(topic))??)
    }

    /// And no longer.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn unsubscribe(&self, topic: &str) -> Result<(), Error> {
        self.update(|gossip, _| gossip.unsubscribe(topic))
    }

    /// Queries of this topic become events from now on; without, they are answered with 'none'.
    ///
    /// # Errors
    /// [`Error::Call`]: topic, too many topics; [`Error::Stopped`].
    pub fn respond(&self, topic: &str) -> Result<(), Error> {
        Ok(self.update(|gossip, _| gossip.respond(topic))??)
    }

    /// And no longer.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn unrespond(&self, topic: &str) -> Result<(), Error> {
        self.update(|gossip, _| gossip.unrespond(topic))
    }

    /// Broadcasts to all members, self included if it subscribes.
    ///
    /// # Errors
    /// [`Error::Call`]: topic, payload, full store, left; [`Error::Stopped`].
    pub fn broadcast(&self, topic: &str, payload: &[u8]) -> Result<Sent, Error> {
        Ok(self.update(|gossip, now| gossip.broadcast(now, topic, payload))??)
    }

    /// Sends to one member; `Event::MailEnded` with the returned number follows.
    ///
    /// # Errors
    /// [`Error::Call`]: topic, payload, unknown member, too many, left; [`Error::Stopped`].
    pub fn send(&self, name: &str, topic: &str, payload: Arc<[u8]>, timeout: Duration) -> Result<u32, Error> {
        Ok(self.update(|gossip, now| gossip.send(now, name, topic, payload, timeout))??)
    }

    /// Nobody waits for this mail any more.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn cancel_send(&self, number: u32) -> Result<(), Error> {
        self.update(|gossip, _| gossip.cancel_send(number))
    }

    /// Asks every living member with these tags; `Event::AnswerReceived` and `Event::QueryEnded` with the returned number
    /// follow.
    ///
    /// # Errors
    /// [`Error::Call`]: topic, payload, tags, full store, too many, left; [`Error::Stopped`].
    pub fn query(&self, topic: &str, payload: &[u8], filter: &Tags, timeout: Duration) -> Result<u32, Error> {
        Ok(self.update(|gossip, now| gossip.query(now, topic, payload, filter, timeout))??)
    }

    /// Nobody reads the answers to this query any more.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn cancel_query(&self, number: u32) -> Result<(), Error> {
        self.update(|gossip, _| gossip.cancel_query(number))
    }

    /// Answers `Event::QueryReceived`; false if the asker waits no longer.
    ///
    /// # Errors
    /// [`Error::Call`]: payload; [`Error::Stopped`].
    pub fn answer(&self, query: u64, status: AnswerStatus, payload: Arc<[u8]>) -> Result<bool, Error> {
        Ok(self.update(|gossip, now| gossip.answer(now, query, status, payload))??)
    }

    /// Waits until `members` others hold this version of a key (none: the newest known) or a newer one; `Event::Confirmed`
    /// with the returned number follows.
    ///
    /// # Errors
    /// [`Error::Call`]: key, unknown key, too many, left; [`Error::Stopped`].
    pub fn spread(
        &self,
        key: &[u8],
        version: Option<Version>,
        members: usize,
        timeout: Duration,
    ) -> Result<u64, Error> {
        Ok(self.update(|gossip, now| gossip.spread(now, key, version, members, timeout))??)
    }

    /// Waits until all members that live now hold this broadcast of mine; `Event::Confirmed` with the returned number follows.
    ///
    /// # Errors
    /// [`Error::Call`]: too many, left; [`Error::Stopped`].
    pub fn reached(&self, number: u32, version: Version, timeout: Duration) -> Result<u64, Error> {
        Ok(self.update(|gossip, now| gossip.reached(now, number, version, timeout))??)
    }

    /// Nobody waits for this confirmation any more.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn cancel_confirm(&self, waiter: u64) -> Result<(), Error> {
        self.update(|gossip, _| gossip.cancel_confirm(waiter))
    }
}
