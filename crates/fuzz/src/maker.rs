//! Arbitrary valid values of the protocol, from a seed. Edges are likelier than the middle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::member::{
    Accuser, Claim, Generation, Incarnation, Liveness, Member, MemberId, Profile, TAGS_BYTES_MAX, Tags,
};
use hearsay_proto::record::{Record, RumorId, Tree};
use hearsay_proto::rng::Rng;
use hearsay_proto::time::{Second, Stamp};
use hearsay_proto::wire::{
    AckFlags, AnswerStatus, Beat, Compared, DiffItem, Framing, Header, ListRange, ListTag, Message, Page,
    Roots, WalkItem, begin, encode_message,
};

/// Makes arbitrary values; equal seeds make equal values.
#[derive(Clone, Debug)]
pub struct Maker {
    /// Source of all choices.
    pub rng: Rng,
    /// Wall-clock time around which stamps and generations lie, ms.
    pub wall_ms: u64,
}

/// Wall-clock time of all targets' start, ms since the epoch.
pub const WALL_START_MS: u64 = 1_800_000_000_000;

impl Maker {
    /// From a number.
    pub fn new(seed: u64) -> Maker {
        Maker { rng: Rng::from_number(seed), wall_ms: WALL_START_MS }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.rng.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T], fallback: T) -> T {
        of.get(self.rng.below(of.len())).copied().unwrap_or(fallback)
    }

    /// A number of any magnitude.
    pub fn number(&mut self) -> u64 {
        let shift = self.rng.below(64) as u32;
        match self.rng.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => (1u64 << shift).wrapping_sub(1),
            3 => 1u64 << shift,
            _ => self.rng.u64() >> shift,
        }
    }

    /// An id, mostly of a small population, so that messages refer to each other.
    pub fn id(&mut self) -> MemberId {
        if self.one_in(4) { MemberId(self.number().max(1)) } else { MemberId(1 + self.rng.below(8) as u64) }
    }

    fn text(&mut self, bytes_max: usize) -> String {
        let length = if self.one_in(16) { bytes_max } else { self.rng.below(bytes_max.min(20) + 1) };
        let mut text = String::new();
        while text.len() < length {
            let c = self.pick(&['a', 'z', '0', '-', 'ü', '木', '🦀'], 'a');
            if text.len() + c.len_utf8() > length {
                text.push('.');
            } else {
                text.push(c);
            }
        }
        text
    }

    fn bytes(&mut self, bytes_max: usize) -> Arc<[u8]> {
        let length = if self.one_in(16) { bytes_max } else { self.rng.below(bytes_max.min(64) + 1) };
        let mut bytes = vec![0u8; length];
        self.rng.fill(&mut bytes);
        bytes.into()
    }

    fn tree(&mut self) -> Tree {
        self.pick(&[Tree::Members, Tree::Entries], Tree::Members)
    }

    /// An address of either family.
    pub fn address(&mut self) -> SocketAddr {
        let host = self.rng.u32();
        let ip = if self.one_in(3) {
            IpAddr::V6(Ipv6Addr::from(u128::from(host) << 96 | 1))
        } else {
            IpAddr::V4(Ipv4Addr::from(host))
        };
        SocketAddr::new(ip, self.rng.u32() as u16)
    }

    fn tags(&mut self) -> Tags {
        let mut tags = Tags::new();
        let mut left = TAGS_BYTES_MAX;
        for _ in 0..self.rng.below(4) {
            let (key, value) = (self.text(30), self.text(120));
            let bytes = 2 + key.len() + value.len();
            if bytes <= left && tags.insert(key, value).is_none() {
                left -= bytes;
            }
        }
        tags
    }

    /// A stamp near the wall clock, or anywhere.
    pub fn stamp(&mut self) -> Stamp {
        if self.one_in(4) {
            return Stamp(self.number());
        }
        let ms = self.wall_ms.saturating_sub(5_000) + self.rng.below(10_000) as u64;
        Stamp(ms << 16 | u64::from(self.rng.u32() & 0xffff))
    }

    /// A member record; names are few, so that records conflict.
    pub fn member(&mut self) -> Member {
        let name = if self.one_in(4) { self.text(127) + "n" } else { format!("m{}", self.rng.below(8)) };
        let near = self.wall_ms - self.rng.below(4) as u64;
        let generation = if self.one_in(4) { self.number() & Generation::MAX.0 } else { near };
        let profile = Profile {
            name: name.into(),
            generation: Generation(generation),
            id: self.id(),
            revision: self.number(),
            address: self.address(),
            tags: self.tags(),
        };
        Member {
            profile: Arc::new(profile),
            incarnation: self.incarnation(),
            liveness: self.pick(&[Liveness::Alive, Liveness::Suspect, Liveness::Left], Liveness::Alive),
        }
    }

    fn incarnation(&mut self) -> Incarnation {
        Incarnation(if self.one_in(8) { self.number() } else { self.rng.below(4) as u64 })
    }

    /// An entry; keys are few, reserved ones among them.
    pub fn entry(&mut self) -> Entry {
        if self.one_in(6) {
            return self.reserved();
        }
        let mut key = match self.rng.below(8) {
            0 => self.bytes(512).to_vec(),
            1 => vec![0, self.pick(b"bqx", b'b'), 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0],
            _ => format!("k{}", self.rng.below(16)).into_bytes(),
        };
        if key.is_empty() {
            key.push(1);
        }
        let tombstone = self.one_in(4);
        let value = if tombstone { Arc::from([]) } else { self.bytes(900) };
        let version = Version { stamp: self.stamp(), writer: self.id() };
        let ttl_ms = if self.one_in(3) { Some(self.number()) } else { None };
        Entry { key: key.into(), value, version, tombstone, ttl_ms }
    }

    /// A broadcast or query of a member, mostly whole; numbers are few, so that they fill each other's gaps.
    fn reserved(&mut self) -> Entry {
        let version = Version { stamp: self.stamp(), writer: self.id() };
        let (letter, topic) = if self.one_in(2) { (b'b', b't') } else { (b'q', b'q') };
        let number = self.rng.below(8) as u32;
        let mut key = vec![0, letter];
        key.extend_from_slice(&version.writer.0.to_le_bytes());
        key.extend_from_slice(&number.to_le_bytes());
        let mut value = vec![2, b'm', b'1', 1, 0, topic];
        let (first, timeout_ms) = (self.rng.below(3) as u32, self.rng.below(3_000) as u32);
        value.extend_from_slice(&if letter == b'b' { first } else { timeout_ms }.to_le_bytes());
        value.extend_from_slice(&[0, 0, 7, 7]);
        if self.one_in(6) {
            value.truncate(self.rng.below(value.len()));
        }
        Entry { key: key.into(), value: value.into(), version, tombstone: false, ttl_ms: None }
    }

    /// A claim of any state.
    pub fn claim(&mut self) -> Claim {
        let of = [Liveness::Alive, Liveness::Suspect, Liveness::Dead, Liveness::Left];
        let liveness = self.pick(&of, Liveness::Alive);
        let count = match liveness {
            Liveness::Alive => 0,
            Liveness::Suspect => 1 + self.rng.below(2),
            Liveness::Dead => 1,
            Liveness::Left => self.rng.below(2),
        };
        let mut accusers: Vec<Accuser> = Vec::new();
        while accusers.len() < count {
            let id = self.id();
            if accusers.iter().all(|a| a.id != id) {
                accusers.push(Accuser { id, phi64: self.rng.u32() as u16 });
            }
        }
        Claim { id: self.id(), incarnation: self.incarnation(), liveness, accusers }
    }

    fn rumors(&mut self) -> Vec<RumorId> {
        let count = self.count();
        (0..count).map(|_| RumorId { bucket: self.rng.u32() as u16, tag: self.rng.u32() }).collect()
    }

    fn count(&mut self) -> usize {
        if self.one_in(8) { 40 } else { self.rng.below(5) }
    }

    fn record(&mut self, tree: Tree) -> Record {
        match tree {
            Tree::Members => Record::Member(self.member()),
            Tree::Entries => Record::Entry(Arc::new(self.entry())),
        }
    }

    fn page(&mut self) -> Page {
        let tree = self.tree();
        let records = (0..self.rng.below(6)).map(|_| self.record(tree)).collect();
        let claims = if tree == Tree::Members { self.claims() } else { Vec::new() };
        Page { tree, from: self.number(), next: self.number(), last: self.one_in(2), records, claims }
    }

    fn claims(&mut self) -> Vec<Claim> {
        (0..self.count()).map(|_| self.claim()).collect()
    }

    fn position(&mut self) -> (u8, u16) {
        let level = self.rng.below(4) as u8;
        (level, self.rng.below(1 << (4 * level)) as u16)
    }

    fn digests(&mut self) -> [u32; 16] {
        std::array::from_fn(|_| self.rng.u32())
    }

    fn diff_item(&mut self) -> DiffItem {
        let (level, index) = self.position();
        let bitmap = (self.rng.u32() & self.rng.u32()) as u16;
        let count = self.rng.below(bitmap.count_ones() as usize + 1);
        DiffItem { level, index, bitmap, children: (0..count).map(|_| self.digests()).collect() }
    }

    fn range(&mut self) -> ListRange {
        let (a, b) = (self.rng.u32() as u16, self.rng.u32() as u16);
        let (first, last) = match self.rng.below(4) {
            0 => (a, a),
            1 => (0, u16::MAX),
            2 => (a & 0xfff0, a | 0xf),
            _ => (a.min(b), a.max(b)),
        };
        let mut tags: Vec<ListTag> = (0..self.count())
            .map(|_| ListTag {
                bucket: first + self.rng.below(usize::from(last - first) + 1) as u16,
                tag: self.rng.u32() as u16,
                version: self.rng.u32(),
            })
            .collect();
        tags.sort_unstable();
        ListRange { first, last, tags }
    }

    fn ack_flags(&mut self) -> AckFlags {
        let of = [Compared::Not, Compared::Equal, Compared::Differ, Compared::Far];
        AckFlags {
            to_beat: self.one_in(2),
            watched: self.one_in(2),
            members: self.pick(&of, Compared::Not),
            entries: self.pick(&[Compared::Not, Compared::Equal, Compared::Differ], Compared::Not),
        }
    }

    fn beat(&mut self) -> Beat {
        let roots = Roots { members: self.rng.u32(), entries: self.rng.u32(), living: self.number() as u16 };
        Beat {
            seq: self.seq(),
            clock: self.stamp(),
            settle_secs: self.number() as u8,
            once: self.one_in(2),
            deaf: self.one_in(4),
            roots: if self.one_in(4) { None } else { Some(roots) },
        }
    }

    fn seq(&mut self) -> u32 {
        if self.one_in(4) { self.number() as u32 } else { self.rng.below(4) as u32 }
    }

    /// A message of any kind that the wire carries.
    pub fn message(&mut self) -> Message {
        let seq = self.seq();
        let tree = self.tree();
        let settled = Second((self.wall_ms / 1000) as u32 - self.rng.below(8) as u32);
        let origin = if self.one_in(2) { Some(self.id()) } else { None };
        match self.rng.below(25) {
            0 => Message::Beat(self.beat()),
            1 => Message::Ack { seq, flags: self.ack_flags(), origin },
            2 => Message::Ping { seq, origin },
            3 => Message::PingVia { seq, target: self.id() },
            4 => Message::Receipt { seq },
            5 => Message::Claims(self.claims()),
            6 => Message::Record { hop: self.number() as u8, record: self.record(tree) },
            7 => Message::IHave { repair: self.one_in(2), large: self.one_in(4), ids: self.rumors() },
            8 => Message::Want { repair: self.one_in(2), large: self.one_in(4), ids: self.rumors() },
            9 => Message::Hello { cookie: self.number(), spread: self.one_in(2), member: self.member() },
            10 => Message::Challenge { cookie: self.number() },
            11 => {
                let peers = (0..self.rng.below(7)).map(|_| (self.id(), self.address())).collect();
                Message::Welcome { member: self.member(), peers }
            }
            12 => Message::Pull { tree, cursor: self.number() },
            13 => Message::Page(self.page()),
            14 => {
                let items = (0..self.rng.below(4)).map(|_| {
                    let (level, index) = self.position();
                    WalkItem { level, index, children: self.digests() }
                });
                let items = items.collect();
                Message::Walk { seq, tree, settled, salt: self.rng.u32(), items }
            }
            15 => {
                let items = (0..self.rng.below(3)).map(|_| self.diff_item()).collect();
                Message::Diff { seq, tree, settled, items }
            }
            16 => {
                let ranges = (0..self.rng.below(4)).map(|_| self.range()).collect();
                Message::List { seq, tree, settled, ranges }
            }
            17 if self.one_in(2) => Message::Busy { tree: Some(tree), id: None },
            17 => {
                let id = RumorId { bucket: self.rng.u32() as u16, tag: self.rng.u32() };
                Message::Busy { tree: None, id: Some(id) }
            }
            18 => Message::Poll(self.rumors()),
            19 => Message::Seen(self.rumors()),
            20 => Message::Mail { seq, topic: self.text(256).into(), payload: self.bytes(900) },
            21 => Message::Done { seq },
            22 => {
                let of = [AnswerStatus::Ok, AnswerStatus::None, AnswerStatus::Error];
                let status = self.pick(&of, AnswerStatus::Ok);
                Message::Answer { query: seq, status, payload: self.bytes(900) }
            }
            23 => Message::Part { last: self.rng.chance(0.5), bytes: self.bytes(900) },
            _ => {
                let table = (0..self.count()).map(|_| (self.id(), settled)).collect();
                Message::Heard { living: self.number() as u16, table }
            }
        }
    }

    /// A header of this version.
    pub fn header(&mut self) -> Header {
        Header { flags: self.number() as u8, ..Header::new(self.rng.u32() as u16, MemberId(self.number())) }
    }

    /// A valid datagram or frame with up to seven messages.
    pub fn packet(&mut self, header: &Header, framing: Framing) -> Vec<u8> {
        let mut buf = Vec::new();
        begin(header, &mut buf);
        for _ in 0..self.rng.below(8) {
            let message = self.message();
            assert!(
                encode_message(&message, &mut buf, framing),
                "the maker makes valid messages: {message:?}"
            );
        }
        buf
    }

    /// Arbitrary bytes, at most `bytes_max`.
    pub fn noise(&mut self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; self.rng.below(bytes_max + 1)];
        self.rng.fill(&mut bytes);
        bytes
    }
}
