//! Encoding and decoding of typical datagrams.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::member::{Accuser, Claim, Incarnation, Liveness, MemberId};
use hearsay_proto::record::RumorId;
use hearsay_proto::time::Stamp;
use hearsay_proto::wire::{
    Beat, Framing, Header, Limits, Message, Roots, begin, decode, encode_message, message_bytes,
};

fn beat() -> Vec<Message> {
    let roots = Some(Roots { members: 1, entries: 2, living: 100 });
    vec![Message::Beat(Beat {
        seq: 1,
        clock: Stamp(1 << 60),
        settle_secs: 3,
        once: false,
        deaf: false,
        roots,
    })]
}

/// A full datagram of a busy flush: ten entries of about 100 B, a suspicion and 30 ids.
fn busy() -> Vec<Message> {
    let mut messages: Vec<Message> = (0..10u64)
        .map(|n| {
            let version = Version { stamp: Stamp(n << 16), writer: MemberId(n + 1) };
            let key = format!("key-{n:016}").into_bytes().into();
            let value = vec![b'v'; 64].into();
            Message::entry(1, Arc::new(Entry { key, value, version, tombstone: false, ttl_ms: None }))
        })
        .collect();
    let ids = (0..30).map(|n| RumorId { bucket: n, tag: 77 }).collect();
    messages.push(Message::IHave { repair: false, large: false, ids });
    messages.push(Message::Claims(vec![Claim {
        id: MemberId(5),
        incarnation: Incarnation(3),
        liveness: Liveness::Suspect,
        accusers: vec![Accuser::new(MemberId(6), 8.5)],
    }]));
    messages
}

fn encode(messages: &[Message], buf: &mut Vec<u8>) {
    begin(&Header::new(0x5eed, MemberId(9)), buf);
    for message in messages {
        encode_message(message, buf, Framing::Datagram);
    }
}

fn wire(c: &mut Criterion) {
    for (name, messages) in [("beat", beat()), ("busy", busy())] {
        let mut buf = Vec::with_capacity(1_400);
        encode(&messages, &mut buf);
        let bytes = buf.clone();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |b| b.iter(|| encode(black_box(&messages), &mut buf)));
        group.bench_function("message_bytes", |b| {
            b.iter(|| black_box(&messages).iter().map(message_bytes).sum::<usize>())
        });
        let limits = Limits { value_bytes_max: 1 << 20 };
        group.bench_function("decode", |b| b.iter(|| decode(black_box(&bytes), &limits, Framing::Datagram)));
        group.finish();
    }
}

criterion_group!(benches, wire);
criterion_main!(benches);
