//! Seals of streams: each direction of each stream has its own key, from (cluster key, label, role, sender id, port, salt
//! of the opener, own salt), and its own consecutive counter. So frames cannot be replayed, reordered, reflected, cut out
//! or moved to another stream.

use std::collections::{HashSet, VecDeque};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use hearsay_proto::wire::HEADER_BYTES;

use super::{CHECKSUM_BYTES, Cause, Sealer, TAG_BYTES, Unsealable, label_hash, nonce, sender};
use crate::handle::lock;

/// Salts of openers remembered, so that a recorded stream is not taken twice.
const SALTS_MAX: usize = 4_096;
const VERSION: u8 = 1;

/// Bytes each side writes before its first frame.
pub(crate) const PREAMBLE_BYTES: usize = 30;

/// Which end of the stream writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The end that connected.
    Opener,
    /// The end that accepted.
    Acceptor,
}

/// What a side says of itself before its first frame:
/// `version u8 | sealed u8 | label hash u16 | port u16 | id u64 | salt 16 B`. The port is that of the writer's own
/// sockets: TCP shows a passing one, and faults and addresses go by the lasting one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Preamble {
    sealed: bool,
    label: u16,
    pub(crate) port: u16,
    id: u64,
    salt: [u8; 16],
}

impl Preamble {
    pub(crate) fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        let fields = [VERSION, u8::from(self.sealed)]
            .into_iter()
            .chain(self.label.to_le_bytes())
            .chain(self.port.to_le_bytes())
            .chain(self.id.to_le_bytes())
            .chain(self.salt);
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    /// None for another version.
    pub(crate) fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Option<Preamble> {
        let [version, sealed, l0, l1, p0, p1, rest @ ..] = bytes;
        let (id, salt) = rest.split_at_checked(8)?;
        (*version == VERSION && *sealed <= 1).then_some(Preamble {
            sealed: *sealed == 1,
            label: u16::from_le_bytes([*l0, *l1]),
            port: u16::from_le_bytes([*p0, *p1]),
            id: u64::from_le_bytes(id.try_into().ok()?),
            salt: salt.try_into().ok()?,
        })
    }
}

/// Seals the frames of one direction.
pub(crate) struct FrameSealer {
    preamble: Preamble,
    opener_salt: [u8; 16],
    cipher: Option<ChaCha20Poly1305>,
    counter: u64,
}

/// Opens the frames of one direction.
pub(crate) struct FrameOpener {
    role: Role,
    preamble: Preamble,
    opener_salt: [u8; 16],
    cipher: Option<ChaCha20Poly1305>,
    counter: u64,
}

impl FrameSealer {
    pub(crate) fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// Salt of the stream's opener, to which answers are bound.
    pub(crate) fn opener_salt(&self) -> [u8; 16] {
        self.opener_salt
    }
}

impl FrameOpener {
    /// Salt of the stream's opener, to which answers are bound.
    pub(crate) fn opener_salt(&self) -> [u8; 16] {
        self.opener_salt
    }
}

impl Sealer {
    /// Seals what this member writes on a stream. `first` is its first plain frame, whose header names the sender;
    /// `salt` is random; `answers` is the salt of the opener if the other end opened.
    pub(crate) fn frame_sealer(
        &self,
        first: &[u8],
        port: u16,
        salt: [u8; 16],
        answers: Option<[u8; 16]>,
    ) -> Result<FrameSealer, Unsealable> {
        let header = first.get(..HEADER_BYTES).ok_or(Unsealable)?;
        let id = sender(header);
        let preamble = Preamble {
            sealed: self.ring.is_some(),
            label: u16::try_from(label_hash(header)).map_err(|_| Unsealable)?,
            port,
            id,
            salt,
        };
        let role = if answers.is_some() { Role::Acceptor } else { Role::Opener };
        let opener_salt = answers.unwrap_or(salt);
        let cipher = match &self.ring {
            None => None,
            Some(_) if id == 0 => return Err(Unsealable),
            Some(ring) => {
                let ring = lock(ring);
                Some(self.stream_key(ring.keys.first().ok_or(Unsealable)?, role, &preamble, &opener_salt))
            }
        };
        Ok(FrameSealer { preamble, opener_salt, cipher, counter: 0 })
    }

    /// The bytes of one frame as they go on the stream, length first.
    pub(crate) fn seal_frame(&self, by: &mut FrameSealer, plain: &[u8]) -> Result<Vec<u8>, Unsealable> {
        if sender(plain) != by.preamble.id {
            return Err(Unsealable);
        }
        let overhead = if by.cipher.is_some() { TAG_BYTES } else { CHECKSUM_BYTES };
        let length = u32::try_from(plain.len() + overhead).map_err(|_| Unsealable)?;
        let mut out = Vec::with_capacity(4 + plain.len() + overhead);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(plain);
        match &by.cipher {
            None => out.extend_from_slice(&self.checksum(plain)),
            Some(cipher) => {
                let text = out.get_mut(4..).ok_or(Unsealable)?;
                let tag = cipher
                    .encrypt_inout_detached(&nonce(by.counter), &[], text.into())
                    .map_err(|_| Unsealable)?;
                out.extend_from_slice(&tag);
            }
        }
        by.counter = by.counter.checked_add(1).ok_or(Unsealable)?;
        Ok(out)
    }

    /// Bytes a frame has beside its plain ones, the length not counted.
    pub(crate) fn frame_overhead(&self) -> usize {
        if self.ring.is_some() { TAG_BYTES } else { CHECKSUM_BYTES }
    }

    /// Opens what the other end writes. `answers` is the own salt if this end opened the stream.
    pub(crate) fn frame_opener(
        &self,
        preamble: Preamble,
        answers: Option<[u8; 16]>,
    ) -> Result<FrameOpener, Cause> {
        let role = if answers.is_some() { Role::Acceptor } else { Role::Opener };
        if preamble.sealed != self.ring.is_some() || (preamble.sealed && preamble.id == 0) {
            return Err(Cause::Unauthentic);
        }
        let opener_salt = answers.unwrap_or(preamble.salt);
        Ok(FrameOpener { role, preamble, opener_salt, cipher: None, counter: 0 })
    }

    /// Opens one frame in place, without its length.
    pub(crate) fn open_frame(&self, by: &mut FrameOpener, frame: &mut Vec<u8>) -> Result<(), Cause> {
        let text_bytes = frame.len().checked_sub(self.frame_overhead()).ok_or(Cause::Size)?;
        if text_bytes < HEADER_BYTES {
            return Err(Cause::Size);
        }
        let (text, tag) = frame.split_at_mut_checked(text_bytes).ok_or(Cause::Size)?;
        let refuse = || self.refuse(&by.preamble.label_header());
        match &self.ring {
            None if *tag != self.checksum(text) => return Err(refuse()),
            None => {}
            Some(ring) => {
                let tag = Tag::try_from(&*tag).map_err(|_| Cause::Size)?;
                let nonce = nonce(by.counter);
                if let Some(cipher) = &by.cipher {
                    cipher
                        .decrypt_inout_detached(&nonce, &[], text.into(), &tag)
                        .map_err(|_| Cause::Unauthentic)?;
                } else {
                    let mut ring = lock(ring);
                    by.cipher = ring
                        .keys
                        .iter()
                        .map(|key| self.stream_key(key, by.role, &by.preamble, &by.opener_salt))
                        .find(|c| c.decrypt_inout_detached(&nonce, &[], (&mut *text).into(), &tag).is_ok());
                    if by.cipher.is_none() {
                        return Err(refuse());
                    }
                    if by.role == Role::Opener && !ring.salts.insert(by.opener_salt) {
                        return Err(Cause::Replay);
                    }
                }
            }
        }
        if sender(text) != by.preamble.id {
            return Err(Cause::Unauthentic);
        }
        by.counter = by.counter.checked_add(1).ok_or(Cause::Unauthentic)?;
        frame.truncate(text_bytes);
        Ok(())
    }

    fn stream_key(
        &self,
        key: &[u8; 32],
        role: Role,
        preamble: &Preamble,
        opener_salt: &[u8; 16],
    ) -> ChaCha20Poly1305 {
        let mut hasher = blake3::Hasher::new_derive_key("hearsay v1 stream key");
        hasher.update(key).update(&self.label).update(&[role as u8]);
        hasher.update(&preamble.encode()).update(opener_salt);
        ChaCha20Poly1305::new(hasher.finalize().as_bytes().into())
    }
}

impl Preamble {
    /// As much of a header as names the label.
    fn label_header(&self) -> [u8; 4] {
        let [low, high] = self.label.to_le_bytes();
        [0, 0, low, high]
    }
}

/// The last salts of openers that proved themselves.
#[derive(Default)]
pub(super) struct Salts {
    known: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Salts {
    /// False if it was used before.
    fn insert(&mut self, salt: [u8; 16]) -> bool {
        if !self.known.insert(salt) {
            return false;
        }
        if self.order.len() >= SALTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(salt);
        true
    }
}
