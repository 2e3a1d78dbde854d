//! Sizes and strictness of the wire format. Round trips of arbitrary messages are in `crates/fuzz`.

use std::sync::Arc;

use proptest::prelude::*;

use super::bytes::{Reader, Sink};
use super::*;
use crate::entry::{Entry, Version};
use crate::member::{Accuser, Claim, Generation, Incarnation, Liveness, Member, MemberId, Profile, Tags};
use crate::record::{Record, RumorId, Tree};
use crate::time::{Second, Stamp};

const LIMITS: Limits = Limits { value_bytes_max: 4_096 };

fn header() -> Header {
    Header::new(label_hash("test"), MemberId(7))
}

fn datagram(message: &Message) -> Vec<u8> {
    let mut buf = Vec::new();
    begin(&header(), &mut buf);
    assert!(encode_message(message, &mut buf, Framing::Datagram), "{message:?}");
    assert_eq!(buf.len(), HEADER_BYTES + message_bytes(message));
    buf
}

/// Encodes, checks the round trip in both framings and returns the bytes with kind and length.
fn size(message: Message) -> usize {
    let buf = datagram(&message);
    let decoded = decode(&buf, &LIMITS, Framing::Datagram).unwrap();
    assert_eq!(decoded, Decoded { header: header(), messages: vec![message.clone()], skipped: 0 });
    let mut frame = Vec::new();
    begin(&header(), &mut frame);
    assert!(encode_message(&message, &mut frame, Framing::Frame));
    assert_eq!(frame.len(), buf.len() + 2);
    assert_eq!(decode(&frame, &LIMITS, Framing::Frame).unwrap().messages, vec![message]);
    buf.len() - HEADER_BYTES
}

fn error(message: &[u8]) -> Option<&'static str> {
    let mut buf = header().encode().to_vec();
    buf.extend_from_slice(message);
    decode(&buf, &LIMITS, Framing::Datagram).err().map(DecodeError::name)
}

/// A message of this kind with this body in a datagram.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.u16(body.len() as u16);
    bytes.put(body);
    bytes
}

fn member_of(name: &str, tags: &[(&str, &str)]) -> Member {
    let profile = Profile {
        name: name.into(),
        generation: Generation(1_790_000_000_000),
        id: MemberId(0x1122_3344_5566_7788),
        revision: 1,
        address: "10.0.0.9:7946".parse().unwrap(),
        tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(2), liveness: Liveness::Alive }
}

fn member() -> Member {
    member_of("api-1", &[("role", "api"), ("zone", "eu-1a")])
}

fn entry() -> Entry {
    Entry {
        key: (*b"key").into(),
        value: (*b"value").into(),
        version: Version { stamp: Stamp(5 << 16), writer: MemberId(3) },
        tombstone: false,
        ttl_ms: None,
    }
}

fn claim(liveness: Liveness, incarnation: u64, accusers: &[u64]) -> Claim {
    Claim {
        id: MemberId(9),
        incarnation: Incarnation(incarnation),
        liveness,
        accusers: accusers.iter().map(|&id| Accuser { id: MemberId(id), phi64: 600 }).collect(),
    }
}

fn ids(count: u16) -> Vec<RumorId> {
    (0..count).map(|n| RumorId { bucket: n, tag: u32::from(n) << 9 }).collect()
}

fn beat(roots: Option<Roots>) -> Message {
    Message::Beat(Beat { seq: 1, clock: Stamp(2), settle_secs: 3, once: true, deaf: false, roots })
}

#[test]
fn control_messages_have_the_sizes_of_the_protocol() {
    let id = Some(MemberId(5));
    let flags = AckFlags { to_beat: true, watched: true, members: Compared::Far, entries: Compared::Differ };
    assert_eq!(size(beat(Some(Roots { members: 1, entries: 2, living: 3 }))), 27);
    assert_eq!(size(beat(None)), 17);
    assert_eq!(size(Message::Ack { seq: 1, flags, origin: None }), 8);
    assert_eq!(size(Message::Ack { seq: 1, flags, origin: id }), 16);
    assert_eq!(size(Message::Ping { seq: 1, origin: None }), 7);
    assert_eq!(size(Message::Ping { seq: 1, origin: id }), 15);
    assert_eq!(size(Message::PingVia { seq: 1, target: MemberId(5) }), 15);
    assert_eq!(size(Message::Receipt { seq: 1 }), 7);
    assert_eq!(size(Message::Challenge { cookie: 1 }), 11);
    assert_eq!(size(Message::Pull { tree: Tree::Entries, cursor: 1 }), 12);
    assert_eq!(size(Message::Busy { tree: Some(Tree::Members), id: None }), 4);
    assert_eq!(size(Message::Busy { tree: None, id: Some(RumorId { bucket: 1, tag: 0 }) }), 9);
    assert_eq!(size(Message::Done { seq: 1 }), 7);
    assert_eq!(size(Message::Part { last: true, bytes: vec![1; 9].into() }), 4 + 9);
}

#[test]
fn claims_and_ids_have_the_sizes_of_the_protocol() {
    let claims = |c: Vec<Claim>| size(Message::Claims(c));
    assert_eq!(claims(vec![]), 4);
    assert_eq!(claims(vec![claim(Liveness::Alive, 200, &[])]), 4 + 11);
    assert_eq!(claims(vec![claim(Liveness::Left, 200, &[])]), 4 + 11);
    assert_eq!(claims(vec![claim(Liveness::Suspect, 200, &[1])]), 4 + 21);
    assert_eq!(claims(vec![claim(Liveness::Dead, 200, &[1])]), 4 + 21);
    assert_eq!(claims(vec![claim(Liveness::Suspect, 200, &[1, 2])]), 4 + 31);
    assert_eq!(claims(vec![claim(Liveness::Suspect, 127, &[1, 2]); 3]), 4 + 3 * 30);
    assert_eq!(claims(vec![claim(Liveness::Suspect, u64::MAX, &[1, 2])]), 4 + 39);
    assert_eq!(claim_bytes(&claim(Liveness::Suspect, 200, &[1])), 21);
    for n in [0u16, 1, 40] {
        let bytes = 4 + 6 * usize::from(n);
        assert_eq!(size(Message::IHave { repair: true, large: false, ids: ids(n) }), bytes);
        assert_eq!(size(Message::Want { repair: false, large: true, ids: ids(n) }), bytes);
        assert_eq!(size(Message::Poll(ids(n))), bytes);
        assert_eq!(size(Message::Seen(ids(n))), bytes);
        let table = ids(n).iter().map(|i| (MemberId(u64::from(i.bucket) + 1), Second(i.tag))).collect();
        assert_eq!(size(Message::Heard { living: 3, table }), 5 + 12 * usize::from(n));
    }
}

#[test]
fn records_have_the_sizes_of_the_protocol() {
    let member_bytes = (1 + 5) + 6 + 8 + 1 + 7 + (1 + 9 + 11) + 1 + 1;
    assert_eq!(record_bytes(&Record::Member(member())), member_bytes);
    assert_eq!(size(Message::member(0, member())), 5 + member_bytes);
    let mut six = (*member().profile).clone();
    six.address = "[fd00::1]:80".parse().unwrap();
    let six = Member { profile: Arc::new(six), ..member() };
    assert_eq!(size(Message::member(0, six)), 5 + member_bytes + 12);
    let entry_bytes = 4 + 6 + 8 + 8 + 1;
    assert_eq!(size(Message::entry(HOP_COLD, Arc::new(entry()))), 5 + entry_bytes);
    let expiring = Entry { ttl_ms: Some(60_000), ..entry() };
    assert_eq!(size(Message::entry(3, Arc::new(expiring))), 5 + entry_bytes + 3);
    let tombstone = Entry { value: [].into(), tombstone: true, ttl_ms: Some(1), ..entry() };
    assert_eq!(size(Message::entry(3, Arc::new(tombstone))), 5 + entry_bytes - 5 + 1);

    assert_eq!(size(Message::Hello { cookie: 1, spread: true, member: member() }), HELLO_BYTES);
    let long = member_of(&"n".repeat(128), &[]);
    let long_bytes = record_bytes(&Record::Member(long.clone()));
    assert_eq!(size(Message::Hello { cookie: 1, spread: true, member: long }), 3 + 9 + long_bytes);
    let four = (MemberId(4), "10.0.0.1:1".parse().unwrap());
    let six = (MemberId(6), "[::1]:1".parse().unwrap());
    assert_eq!(size(Message::Welcome { member: member(), peers: vec![four; 6] }), 3 + member_bytes + 6 * 15);
    assert_eq!(size(Message::Welcome { member: member(), peers: vec![six; 6] }), 3 + member_bytes + 6 * 27);
    let page = |tree, records, claims| {
        size(Message::Page(Page { tree, from: 1, next: 2, last: true, records, claims }))
    };
    let suspect = claim(Liveness::Suspect, 200, &[1]);
    let members = vec![Record::Member(member()); 2];
    assert_eq!(page(Tree::Members, members, vec![suspect]), 21 + 1 + 2 * member_bytes + 1 + 21);
    let entries = vec![Record::Entry(Arc::new(entry())); 3];
    assert_eq!(page(Tree::Entries, entries, vec![]), 21 + 1 + 3 * entry_bytes);
    let (topic, payload) = (Arc::from("topic"), Arc::from(*b"12"));
    assert_eq!(size(Message::Mail { seq: 1, topic, payload }), 7 + 6 + 2);
    let (status, payload) = (AnswerStatus::Error, Arc::from(*b"12"));
    assert_eq!(size(Message::Answer { query: 1, status, payload }), 8 + 2);
}

#[test]
fn session_messages_have_the_sizes_of_the_protocol() {
    let (seq, tree, settled, salt) = (1, Tree::Entries, Second(9), 4);
    let walk = |n| {
        let items = (0..n).map(|i| WalkItem { level: 2, index: i, children: [u32::from(i); 16] }).collect();
        size(Message::Walk { seq, tree, settled, salt, items })
    };
    assert_eq!(walk(0), 16);
    assert_eq!(walk(1), 16 + 67);
    assert_eq!(walk(19), 16 + 19 * 67);
    let diff = |n: usize| {
        let items = vec![DiffItem { level: 3, index: 4_095, bitmap: 0b1011, children: vec![[7; 16]; n] }];
        size(Message::Diff { seq, tree, settled, items })
    };
    assert_eq!(diff(0), 12 + 6);
    assert_eq!(diff(3), 12 + 6 + 3 * 64);
    let list = |first, last, buckets: &[u16]| {
        let tags = buckets.iter().map(|&bucket| ListTag { bucket, tag: 1, version: 2 }).collect();
        size(Message::List { seq, tree, settled, ranges: vec![ListRange { first, last, tags }; 2] })
    };
    assert_eq!(list(0, u16::MAX, &[]), 12 + 2 * 5);
    assert_eq!(list(5, 5, &[5, 5, 5]), 12 + 2 * (5 + 3 * 6));
    assert_eq!(list(0x50, 0x5f, &[0x50, 0x53, 0x5f]), 12 + 2 * (5 + 3 * 7));
    assert_eq!(list(0, u16::MAX, &[0, 300, 65_535]), 12 + 2 * (5 + 7 + 8 + 9));
}

#[test]
fn lists_of_a_whole_small_tree_take_eight_bytes_a_record() {
    let tags = (0..220u32).map(|n| ListTag { bucket: (n * 297) as u16, tag: n as u16, version: n }).collect();
    let ranges = vec![ListRange { first: 0, last: u16::MAX, tags }];
    let list = Message::List { seq: 1, tree: Tree::Entries, settled: Second(1), ranges };
    assert!(message_bytes(&list) <= 18 + 220 * 8);
}

#[test]
fn every_cause_of_refusal_is_reached() {
    let mut seen = std::collections::BTreeSet::new();
    let mut expect = |cause: DecodeError, message: Vec<u8>| {
        assert_eq!(error(&message), Some(cause.name()), "{message:02x?}");
        seen.insert(cause);
    };
    let of = |message: &Message| datagram(message)[HEADER_BYTES..].to_vec();
    let with = |message: &Message, at: usize, byte: u8| {
        let mut bytes = of(message);
        bytes[at] = byte;
        bytes
    };
    use DecodeError as E;

    expect(E::Truncated, vec![5]);
    expect(E::Truncated, vec![5, 4, 0, 1, 2, 3]);
    expect(E::Truncated, raw(5, &[1, 2, 3]));
    expect(E::Truncated, raw(18, &[]));
    expect(E::Truncated, raw(8, &[0, 1, 2, 3]));
    expect(E::Truncated, raw(6, &[2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0]));
    expect(E::Truncated, raw(14, &[[0; 18].as_slice(), &[0xff, 0xff, 0x03]].concat()));
    expect(E::Trailing, raw(5, &[1, 2, 3, 4, 5]));
    expect(E::Trailing, raw(18, &[0; 7]));
    expect(E::Trailing, raw(2, &[0; 5].into_iter().chain(2u64.to_le_bytes()).chain([0]).collect::<Vec<_>>()));
    expect(E::Messages, [200, 0, 0].repeat(MESSAGES_MAX + 1));
    expect(E::Varint, raw(6, &[1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0]));
    expect(E::Varint, raw(6, &[&[1, 1, 9, 0, 0, 0, 0, 0, 0, 0], [0xff; 10].as_slice()].concat()));
    expect(E::Flags, with(&beat(None), 16, 0b1000));
    expect(E::Flags, raw(2, &[0, 0, 0, 0, 3 << 4]));
    expect(E::Flags, raw(8, &[4]));
    expect(E::Flags, raw(19, &[1]));
    expect(E::Enumeration, raw(13, &[2, 0, 0, 0, 0, 0, 0, 0, 0]));
    expect(E::Enumeration, raw(18, &[2]));
    expect(E::Enumeration, raw(23, &[0, 0, 0, 0, 3]));
    expect(E::Enumeration, raw(7, &[0, 2]));
    expect(E::Enumeration, raw(6, &[1, 5, 9, 0, 0, 0, 0, 0, 0, 0, 0]));
    expect(E::Id, raw(4, &[0; 12]));
    expect(E::Id, raw(2, &[0; 13]));
    expect(E::Id, raw(6, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    expect(E::Id, raw(24, &[0; 14]));

    let record = Message::member(0, member_of("n", &[("a", "x"), ("b", "y")]));
    let family = 5 + 2 + 6 + 8 + 1;
    let tags = family + 7 + 1;
    expect(E::Address, with(&record, family, 5));
    expect(E::Utf8, with(&record, 6, 0xff));
    expect(E::Name, with(&record, 6, 0x07));
    expect(E::Tags, with(&record, tags + 1, b'c'));
    expect(E::Tags, with(&record, tags + 1, b'b'));
    let last = of(&record).len() - 1;
    expect(E::Liveness, with(&record, last, Liveness::Dead as u8));
    expect(E::Enumeration, with(&record, last, 0));

    let record = Message::entry(0, Arc::new(entry()));
    let flags = of(&record).len() - 1;
    expect(E::Value, with(&record, flags, 1));
    expect(E::Flags, with(&record, flags, 4));
    let mut no_key = vec![0, 1, 0];
    no_key.extend([0; 18]);
    no_key[12] = 1;
    expect(E::Key, raw(7, &no_key));
    expect(E::Key, raw(7, &[0, 1, 0x81, 0x04]));
    expect(E::Value, raw(7, &[0, 1, 1, b'k', 0x81, 0x20]));
    expect(E::Value, raw(23, &[0; 5 + 4_097]));
    expect(E::Topic, raw(21, &[0, 0, 0, 0, 0x81, 0x02]));

    let suspect = claim(Liveness::Suspect, 1, &[1, 2]);
    let claims = Message::Claims(vec![suspect]);
    expect(E::Claim, with(&claims, 4, 2 | 3 << 4));
    expect(E::Claim, with(&claims, 4, 1 | 2 << 4));
    expect(E::Claim, with(&claims, 4 + 10 + 10, 1));
    expect(E::Claim, with(&Message::Claims(vec![claim(Liveness::Alive, 1, &[])]), 4, 2));
    expect(E::Claim, with(&Message::Claims(vec![claim(Liveness::Alive, 1, &[])]), 4, 3));

    let welcome = Message::Welcome { member: member(), peers: vec![] };
    let mut body = of(&welcome)[3..].to_vec();
    for n in 1..=7u8 {
        body.extend([n, 0, 0, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1, 1, 0]);
    }
    expect(E::Peers, raw(12, &body));
    let items = vec![WalkItem { level: 1, index: 15, children: [0; 16] }];
    let walk = Message::Walk { seq: 0, tree: Tree::Members, settled: Second(0), salt: 0, items };
    expect(E::Position, with(&walk, 16, 4));
    expect(E::Position, with(&walk, 17, 16));
    let items = vec![DiffItem { level: 0, index: 0, bitmap: 1, children: vec![[0; 16]] }];
    let diff = Message::Diff { seq: 0, tree: Tree::Members, settled: Second(0), items };
    expect(E::Position, with(&diff, 15, 0));
    let tag = ListTag { bucket: 7, tag: 1, version: 1 };
    let tags = vec![tag, ListTag { tag: 2, ..tag }];
    let ranges = vec![ListRange { first: 7, last: 8, tags }];
    let list = Message::List { seq: 0, tree: Tree::Members, settled: Second(0), ranges };
    expect(E::Position, with(&list, 12, 9));
    expect(E::Order, with(&list, 17, 2));
    expect(E::Order, with(&list, 18, 9));
    let hello = Message::Hello { cookie: 0, spread: false, member: member() };
    expect(E::Padding, with(&hello, HELLO_BYTES - 1, 1));
    let mut body = of(&hello)[3..].to_vec();
    body.push(0);
    expect(E::Padding, raw(10, &body));
    body.truncate(body.len() - 2);
    expect(E::Padding, raw(10, &body));
    expect(E::Enumeration, with(&hello, 11, 2));

    assert_eq!(decode(&[1; 11], &LIMITS, Framing::Datagram), Err(E::Header));
    assert_eq!(peek_header(&[]), Err(E::Header));
    let mut other = datagram(&Message::Done { seq: 1 });
    other[0] = WIRE_VERSION + 1;
    assert_eq!(decode(&other, &LIMITS, Framing::Datagram), Err(E::Version));
    seen.extend([E::Header, E::Version]);
    let missing: Vec<_> = E::ALL.iter().filter(|e| !seen.contains(e)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn limits_hold_exactly() {
    let of = |key: &[u8], bytes: usize| {
        let value = vec![1u8; bytes];
        let buf =
            datagram(&Message::entry(0, Arc::new(Entry { key: key.into(), value: value.into(), ..entry() })));
        decode(&buf, &LIMITS, Framing::Datagram).map(|_| ())
    };
    assert_eq!(of(b"k", 4_096), Ok(()));
    assert_eq!(of(b"k", 4_097), Err(DecodeError::Value));
    assert_eq!(of(b"\0b", 4_096 + RESERVED_EXTRA_BYTES), Ok(()));
    assert_eq!(of(b"\0b", 4_097 + RESERVED_EXTRA_BYTES), Err(DecodeError::Value));
    assert_eq!(of(&[1; 512], 1), Ok(()));
    let full: Tags = [("a".into(), "v".repeat(253)), ("b".into(), "v".repeat(253))].into();
    assert!(tags_are_valid(&full));
    assert!(!tags_are_valid(&[("a".into(), "v".repeat(253)), ("b".into(), "v".repeat(254))].into()));
    assert!(!tags_are_valid(&[("a".into(), "v".repeat(256))].into()));
    assert!(name_is_valid(&"ü".repeat(64)) && !name_is_valid(&"ü".repeat(65)));
    assert!(!name_is_valid("") && !name_is_valid("a\u{85}b"));
}

#[test]
fn messages_the_decoder_would_refuse_are_not_written() {
    let mut dead = member();
    dead.liveness = Liveness::Dead;
    let tag = ListTag { bucket: 7, tag: 1, version: 1 };
    let unsorted = ListRange { first: 0, last: 9, tags: vec![tag, ListTag { bucket: 3, ..tag }] };
    let (seq, tree, settled) = (1, Tree::Entries, Second(1));
    let bad = [
        Message::member(0, dead),
        Message::member(0, member_of("", &[])),
        Message::member(0, member_of("n", &[("k", "v".repeat(300).as_str())])),
        Message::entry(0, Arc::new(Entry { tombstone: true, ..entry() })),
        Message::entry(0, Arc::new(Entry { key: [].into(), ..entry() })),
        Message::Claims(vec![claim(Liveness::Suspect, 1, &[])]),
        Message::Claims(vec![claim(Liveness::Alive, 1, &[]); CLAIMS_MAX + 1]),
        Message::Busy { tree: None, id: None },
        Message::PingVia { seq: 1, target: MemberId::NONE },
        Message::List { seq, tree, settled, ranges: vec![unsorted] },
        Message::Poll(ids(11_000)),
        Message::Page(Page {
            tree,
            from: 0,
            next: 0,
            last: true,
            records: vec![Record::Member(member())],
            claims: vec![],
        }),
    ];
    let before = datagram(&Message::Done { seq: 1 });
    for message in bad {
        let mut buf = before.clone();
        assert!(!encode_message(&message, &mut buf, Framing::Datagram), "{message:?}");
        assert_eq!(buf, before);
    }
    let mut frame = header().encode().to_vec();
    assert!(encode_message(&Message::Poll(ids(11_000)), &mut frame, Framing::Frame));
}

#[test]
fn unknown_kinds_are_skipped_and_counted() {
    let mut buf = datagram(&Message::Receipt { seq: 4 });
    buf.extend(raw(0, &[1, 2, 3]));
    buf.extend(raw(250, &[]));
    assert!(encode_message(&Message::Done { seq: 5 }, &mut buf, Framing::Datagram));
    let decoded = decode(&buf, &LIMITS, Framing::Datagram).unwrap();
    assert_eq!(decoded.messages, vec![Message::Receipt { seq: 4 }, Message::Done { seq: 5 }]);
    assert_eq!(decoded.skipped, 2);
    buf.extend([250, 1, 0]);
    assert_eq!(decode(&buf, &LIMITS, Framing::Datagram), Err(DecodeError::Truncated));
}

#[test]
fn headers_of_unknown_flags_and_no_sender_are_read() {
    let header = Header { version: WIRE_VERSION, flags: 0xa5, label: 0x1234, sender: MemberId::NONE };
    assert_eq!(peek_header(&header.encode()), Ok(header));
    assert_eq!(header.encode()[2..4], [0x34, 0x12]);
    assert_ne!(label_hash("a"), label_hash("b"));
    let decoded = decode(&header.encode(), &LIMITS, Framing::Datagram).unwrap();
    assert!(decoded.messages.is_empty());
}

proptest! {
    #[test]
    fn varints_round_trip_and_have_one_form(n: u64, shift in 0u32..64) {
        let n = n >> shift;
        let mut bytes = Vec::new();
        bytes.varint(n);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.varint(), Ok(n));
        prop_assert!(reader.is_empty());
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.push(0);
        prop_assert_eq!(Reader::new(&bytes).varint(), Err(DecodeError::Varint));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(kind in 0u8..26, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = header().encode().to_vec();
        bytes.extend(raw(kind, &body));
        if let Ok(decoded) = decode(&bytes, &LIMITS, Framing::Datagram) {
            let mut again = Vec::new();
            begin(&decoded.header, &mut again);
            for message in &decoded.messages {
                prop_assert!(encode_message(message, &mut again, Framing::Datagram));
            }
            prop_assert!(decoded.skipped == 1 || again == bytes, "the encoding is canonical");
        }
    }
}
