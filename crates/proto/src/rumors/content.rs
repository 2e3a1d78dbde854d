//! What one datagram is being filled with.

use crate::member::Claim;
use crate::record::{Record, RumorId};
use crate::wire::{self, CLAIMS_MAX, Message};

/// Kind, length, and flags or count, before the items of IHAVE, WANT, SEEN (3 B) and CLAIMS.
const LIST_HEAD_BYTES: usize = 4;
const ID_BYTES: usize = 6;

/// Bytes of a RECORD message with this record: kind, length, hop, type, record.
pub(super) fn record_bytes(record: &Record) -> usize {
    5 + wire::record_bytes(record)
}

/// Bytes of a message of `count` ids, at least.
pub(super) fn ids_bytes(count: usize) -> usize {
    LIST_HEAD_BYTES + ID_BYTES * count
}

/// Ids that fit a message in `room`.
pub(super) fn ids_that_fit(room: usize) -> usize {
    room.saturating_sub(LIST_HEAD_BYTES) / ID_BYTES
}

/// Records, ids and claims of one datagram, never more than fit.
#[derive(Clone, Debug)]
pub(super) struct Content {
    room: usize,
    bytes: usize,
    records: Vec<(u8, Record)>,
    ids: Vec<RumorId>,
    large: Vec<RumorId>,
    claims: Vec<Claim>,
}

impl Content {
    pub fn new(room: usize) -> Content {
        let (records, ids, large, claims) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Content { room, bytes: 0, records, ids, large, claims }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    pub fn ids(&self) -> usize {
        self.ids.len() + self.large.len()
    }

    pub fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    pub fn fits_record(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.room
    }

    /// `bytes` is the size of its message; refused if it does not fit.
    pub fn add_record(&mut self, hop: u8, record: Record, bytes: usize) -> bool {
        let fits = self.fits_record(bytes);
        if fits {
            self.records.push((hop, record));
            self.bytes += bytes;
        }
        fits
    }

    pub fn add_id(&mut self, id: RumorId, large: bool) -> bool {
        let list = if large { &mut self.large } else { &mut self.ids };
        let bytes = ID_BYTES + if list.is_empty() { LIST_HEAD_BYTES } else { 0 };
        let fits = self.bytes + bytes <= self.room;
        if fits {
            list.push(id);
            self.bytes += bytes;
        }
        fits
    }

    pub fn add_claim(&mut self, claim: &Claim) -> bool {
        let head = if self.claims.is_empty() { LIST_HEAD_BYTES } else { 0 };
        let bytes = head + wire::claim_bytes(claim);
        let fits = self.bytes + bytes <= self.room && self.claims.len() < CLAIMS_MAX;
        if fits {
            self.claims.push(claim.clone());
            self.bytes += bytes;
        }
        fits
    }

    /// In the order of section 3.
    pub fn into_messages(self) -> Vec<Message> {
        let mut messages: Vec<Message> =
            self.records.into_iter().map(|(hop, record)| Message::Record { hop, record }).collect();
        for (large, ids) in [(false, self.ids), (true, self.large)] {
            if !ids.is_empty() {
                messages.push(Message::IHave { repair: false, large, ids });
            }
        }
        if !self.claims.is_empty() {
            messages.push(Message::Claims(self.claims));
        }
        messages
    }
}
