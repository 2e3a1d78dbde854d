//! Seals: what keeps other clusters, outsiders and flipped bits out.
//!
//! ```text
//! datagram, sealed    header 12 | counter u64 | ciphertext | tag 16      24 B over the plain one
//! datagram, unsealed  header 12 | body | checksum u64                    8 B
//! frame, sealed       length u32 | ciphertext of header and body | tag 16
//! frame, unsealed     length u32 | header | body | checksum u64
//! ```
//! Sealed with ChaCha20-Poly1305 (RFC 8439) under a subkey of the cluster key: BLAKE3 in its key derivation mode over
//! (key, sender id), so a counter must only be unique per sender id. The nonce is the counter, the additional data label
//! and header. The checksum is BLAKE3 keyed with the label, cut to 64 bits: it keeps clusters apart and finds damage, it
//! keeps nobody out.

mod stream;
mod window;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use hearsay_proto::wire::HEADER_BYTES;

use crate::error::Error;
use crate::handle::lock;
pub(crate) use stream::{FrameOpener, FrameSealer, PREAMBLE_BYTES, Preamble};
use window::Window;

/// Most cluster keys in a ring: three would do for any rotation.
pub const KEYS_MAX: usize = 8;
/// Bytes a seal adds to a plain datagram.
pub(crate) const SEALED_BYTES: usize = COUNTER_BYTES + TAG_BYTES;
/// Bytes a checksum adds.
pub(crate) const CHECKSUM_BYTES: usize = 8;

const COUNTER_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const LABEL_UNKNOWN: u32 = u32::MAX;

/// Why bytes from the wire were dropped here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// Too short for header and seal.
    Size,
    /// Another cluster's label.
    Label,
    /// No key fits, or the checksum is wrong.
    Unauthentic,
    /// Seen before, or too old to tell.
    Replay,
}

/// Why own bytes could not be sealed: no sender id, or no counter left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unsealable;

/// Seals what leaves and opens what arrives.
pub(crate) struct Sealer {
    label: [u8; 32],
    /// Label hash of the headers this member writes, once it has written one.
    label_hash: AtomicU32,
    ring: Option<Mutex<Ring>>,
}

struct Ring {
    keys: Vec<[u8; 32]>,
    /// Never goes back, whatever the key or the own id: no nonce is used twice.
    counter: u64,
    own: Option<(u64, ChaCha20Poly1305)>,
    peers: Peers,
    salts: stream::Salts,
}

impl Sealer {
    /// `counter` is the first to use: the wall clock in nanoseconds, so that even a sender id met again by chance
    /// repeats none. `peers_max` bounds the replay windows kept.
    pub(crate) fn new(
        label: &str,
        keys: &[[u8; 32]],
        counter: u64,
        peers_max: usize,
    ) -> Result<Sealer, Error> {
        let ring = if keys.is_empty() {
            None
        } else {
            check(keys)?;
            Some(Mutex::new(Ring {
                keys: keys.to_vec(),
                counter,
                own: None,
                peers: Peers::new(peers_max),
                salts: stream::Salts::default(),
            }))
        };
        let label = blake3::derive_key("hearsay v1 cluster label", label.as_bytes());
        Ok(Sealer { label, label_hash: AtomicU32::new(LABEL_UNKNOWN), ring })
    }

    /// Bytes added to each plain datagram.
    pub(crate) fn overhead(&self) -> usize {
        if self.ring.is_some() { SEALED_BYTES } else { CHECKSUM_BYTES }
    }

    /// Replaces the ring; replay windows stay.
    pub(crate) fn set_keys(&self, keys: &[[u8; 32]]) -> Result<(), Error> {
        check(keys)?;
        let Some(ring) = &self.ring else {
            return Err(Error::Keys("the cluster was started without keys"));
        };
        let mut ring = lock(ring);
        ring.keys = keys.to_vec();
        ring.own = None;
        ring.peers.forget_ciphers();
        Ok(())
    }

    /// Replaces `out` by the sealed datagram.
    pub(crate) fn seal(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Unsealable> {
        let (header, body) = plain.split_at_checked(HEADER_BYTES).ok_or(Unsealable)?;
        self.label_hash.store(label_hash(header), Ordering::Relaxed);
        out.clear();
        out.reserve(plain.len() + SEALED_BYTES);
        out.extend_from_slice(header);
        let Some(ring) = &self.ring else {
            out.extend_from_slice(body);
            out.extend_from_slice(&self.checksum(plain));
            return Ok(());
        };
        let id = sender(header);
        if id == 0 {
            return Err(Unsealable);
        }
        let aad = self.aad(header);
        let mut ring = lock(ring);
        let counter = ring.counter;
        ring.counter = counter.checked_add(1).ok_or(Unsealable)?;
        out.extend_from_slice(&counter.to_le_bytes());
        out.extend_from_slice(body);
        let cipher = ring.own_cipher(id).ok_or(Unsealable)?;
        let text = out.get_mut(HEADER_BYTES + COUNTER_BYTES..).ok_or(Unsealable)?;
        let tag =
            cipher.encrypt_inout_detached(&nonce(counter), &aad, text.into()).map_err(|_| Unsealable)?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// The plain datagram inside, decrypted in place.
    pub(crate) fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<&'a [u8], Cause> {
        let length = datagram.len();
        if length < HEADER_BYTES + self.overhead() {
            return Err(Cause::Size);
        }
        let Some(ring) = &self.ring else {
            let (plain, sum) = datagram.split_at_checked(length - CHECKSUM_BYTES).ok_or(Cause::Size)?;
            return if sum == self.checksum(plain) { Ok(plain) } else { Err(self.refuse(plain)) };
        };
        let (front, rest) = datagram.split_at_mut_checked(HEADER_BYTES + COUNTER_BYTES).ok_or(Cause::Size)?;
        let (header, counter_bytes) = front.split_at_mut_checked(HEADER_BYTES).ok_or(Cause::Size)?;
        let (text, tag) = rest.split_at_mut_checked(rest.len() - TAG_BYTES).ok_or(Cause::Size)?;
        let counter = u64::from_le_bytes((&*counter_bytes).try_into().map_err(|_| Cause::Size)?);
        let tag = Tag::try_from(&*tag).map_err(|_| Cause::Size)?;
        let aad = self.aad(header);
        let id = sender(header);
        if id == 0 || !lock(ring).open(id, counter, &aad, text, &tag)? {
            return Err(self.refuse(header));
        }
        // The header moves up against the body: the plain datagram is one piece again.
        datagram.copy_within(..HEADER_BYTES, COUNTER_BYTES);
        datagram.get(COUNTER_BYTES..length - TAG_BYTES).ok_or(Cause::Size)
    }

    fn refuse(&self, header: &[u8]) -> Cause {
        let own = self.label_hash.load(Ordering::Relaxed);
        if own != LABEL_UNKNOWN && own != label_hash(header) { Cause::Label } else { Cause::Unauthentic }
    }

    fn checksum(&self, plain: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut sum = [0; CHECKSUM_BYTES];
        blake3::Hasher::new_keyed(&self.label).update(plain).finalize_xof().fill(&mut sum);
        sum
    }

    fn aad(&self, header: &[u8]) -> [u8; 32 + HEADER_BYTES] {
        let mut aad = [0; 32 + HEADER_BYTES];
        let (label, rest) = aad.split_at_mut(32);
        label.copy_from_slice(&self.label);
        rest.copy_from_slice(header);
        aad
    }
}

impl Ring {
    fn own_cipher(&mut self, id: u64) -> Option<&ChaCha20Poly1305> {
        if self.own.as_ref().is_none_or(|(known, _)| *known != id) {
            let key = self.keys.first()?;
            self.own = Some((id, subkey(key, id)));
        }
        self.own.as_ref().map(|(_, cipher)| cipher)
    }

    /// Decrypts in place and marks the counter as seen; false if no key fits.
    fn open(&mut self, id: u64, counter: u64, aad: &[u8], text: &mut [u8], tag: &Tag) -> Result<bool, Cause> {
        let nonce = nonce(counter);
        if let Some(peer) = self.peers.get(id) {
            if peer.window.has(counter) {
                return Err(Cause::Replay);
            }
            if let Some(cipher) = &peer.cipher
                && cipher.decrypt_inout_detached(&nonce, aad, (&mut *text).into(), tag).is_ok()
            {
                peer.window.mark(counter);
                return Ok(true);
            }
        }
        for key in &self.keys {
            let cipher = subkey(key, id);
            if cipher.decrypt_inout_detached(&nonce, aad, (&mut *text).into(), tag).is_ok() {
                let peer = self.peers.get_or_insert(id);
                peer.cipher = Some(cipher);
                peer.window.mark(counter);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is kept of each sender that proved itself.
#[derive(Default)]
struct Peer {
    cipher: Option<ChaCha20Poly1305>,
    window: Window,
}

/// Senders in two halves: when the young half is full it becomes the old one, and the old one goes. Whoever was heard
/// since the last change stays, as the least recently used would.
struct Peers {
    half_max: usize,
    young: HashMap<u64, Box<Peer>>,
    old: HashMap<u64, Box<Peer>>,
}

impl Peers {
    fn new(peers_max: usize) -> Peers {
        Peers { half_max: peers_max.div_ceil(2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&mut self, id: u64) -> Option<&mut Peer> {
        if !self.young.contains_key(&id) {
            let peer = self.old.remove(&id)?;
            self.admit(id, peer);
        }
        self.young.get_mut(&id).map(|peer| &mut **peer)
    }

    fn get_or_insert(&mut self, id: u64) -> &mut Peer {
        if self.get(id).is_none() {
            self.admit(id, Box::default());
        }
        self.young.entry(id).or_default()
    }

    fn admit(&mut self, id: u64, peer: Box<Peer>) {
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, peer);
    }

    fn forget_ciphers(&mut self) {
        self.young.values_mut().chain(self.old.values_mut()).for_each(|peer| peer.cipher = None);
    }
}

fn check(keys: &[[u8; 32]]) -> Result<(), Error> {
    if keys.is_empty() {
        return Err(Error::Keys("at least one key is needed"));
    }
    if keys.len() > KEYS_MAX {
        return Err(Error::Keys("at most 8 keys"));
    }
    if keys.iter().any(|key| key.iter().all(|byte| *byte == 0)) {
        return Err(Error::Keys("a key of zeros protects nothing"));
    }
    Ok(())
}

fn subkey(key: &[u8; 32], id: u64) -> ChaCha20Poly1305 {
    let mut hasher = blake3::Hasher::new_derive_key("hearsay v1 datagram subkey");
    hasher.update(key).update(&id.to_le_bytes());
    ChaCha20Poly1305::new(hasher.finalize().as_bytes().into())
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    for (to, from) in nonce.iter_mut().zip(counter.to_le_bytes()) {
        *to = from;
    }
    nonce
}

fn sender(header: &[u8]) -> u64 {
    header.get(4..12).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn label_hash(header: &[u8]) -> u32 {
    header
        .get(2..4)
        .and_then(|hash| hash.try_into().ok())
        .map_or(0, |hash| u32::from(u16::from_le_bytes(hash)))
}

#[cfg(test)]
mod tests;
