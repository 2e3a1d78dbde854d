//! Reading and writing of bytes: a reader that cannot run over its end, and a sink that either keeps or counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::DecodeError;
use crate::member::MemberId;

/// Where encoded bytes go. The same code writes a message and counts its bytes, so that the two cannot differ.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, n: u8) {
        self.put(&[n]);
    }
    fn u16(&mut self, n: u16) {
        self.put(&n.to_le_bytes());
    }
    fn u32(&mut self, n: u32) {
        self.put(&n.to_le_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.put(&n.to_le_bytes());
    }
    fn u48(&mut self, n: u64) {
        let [a, b, c, d, e, f, _, _] = n.to_le_bytes();
        self.put(&[a, b, c, d, e, f]);
    }
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.u8(n as u8 | 0x80);
            n >>= 7;
        }
        self.u8(n as u8);
    }
    /// Length u8, bytes. Callers check the length.
    fn short(&mut self, text: &str) {
        self.u8(text.len() as u8);
        self.put(text.as_bytes());
    }
    /// Length varint, bytes.
    fn long(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put(bytes);
    }
    fn address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.put(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.put(&ip.octets());
            }
        }
        self.u16(address.port());
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts only.
#[derive(Default)]
pub(super) struct Count(pub usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Reads from the front; every read is checked against what is left.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }
    pub fn left(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }
    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
    /// Nothing may be left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn u48(&mut self) -> Result<u64, DecodeError> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Enumeration),
        }
    }
    /// LEB128, at most ten bytes, no superfluous last byte.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(DecodeError::Varint);
            }
            n |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(DecodeError::Varint) } else { Ok(n) };
            }
        }
        Err(DecodeError::Varint)
    }
    /// A varint count of elements of at least `bytes_min` each, checked against what is left before anything is allocated.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let n = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if n > self.left() / bytes_min.max(1) {
            return Err(DecodeError::Truncated);
        }
        Ok(n)
    }
    /// A member id; zero is refused.
    pub fn id(&mut self) -> Result<MemberId, DecodeError> {
        match self.u64()? {
            0 => Err(DecodeError::Id),
            n => Ok(MemberId(n)),
        }
    }
    pub fn text(bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
    }
    /// Length u8, UTF-8.
    pub fn short(&mut self) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u8()?);
        Reader::text(self.take(length)?)
    }
    /// Length varint of at most `bytes_max`, bytes; `error` if longer.
    pub fn long(&mut self, bytes_max: usize, error: DecodeError) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| error)?;
        if length > bytes_max {
            return Err(error);
        }
        self.take(length)
    }
    pub fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(DecodeError::Address),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }
}
