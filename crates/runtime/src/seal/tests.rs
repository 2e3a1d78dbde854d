use super::*;

const KEY: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

/// A plain datagram of the cluster `x`.
fn plain(sender: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&wire::label_hash("x").to_le_bytes());
    bytes.extend_from_slice(&sender.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn sealer(label: &str, keys: &[[u8; 32]]) -> Sealer {
    Sealer::new(label, keys, 5, 100).unwrap()
}

fn sealed(by: &Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    by.seal(plain, &mut out).unwrap();
    out
}

fn opened(by: &Sealer, sealed: &[u8]) -> Result<Vec<u8>, Cause> {
    by.open(&mut sealed.to_vec()).map(<[u8]>::to_vec)
}

#[test]
fn datagrams_survive_with_the_overhead_stated() {
    for keys in [&[][..], &[KEY], &[KEY, OTHER]] {
        for body in [0, 1, 63, 64, 1_376] {
            let message = plain(9, &vec![0x5a; body]);
            let (a, b) = (sealer("x", keys), sealer("x", keys));
            let wire = sealed(&a, &message);
            assert_eq!(wire.len(), message.len() + a.overhead());
            assert_eq!(a.overhead(), if keys.is_empty() { 8 } else { 24 });
            assert_eq!(opened(&b, &wire), Ok(message.clone()));
            assert_eq!(&wire[..HEADER_BYTES], &message[..HEADER_BYTES]);
            if !keys.is_empty() && body > 16 {
                assert!(!wire.windows(16).any(|w| w == [0x5a; 16]), "the body is not readable");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for keys in [&[][..], &[KEY]] {
        let (a, b) = (sealer("x", keys), sealer("x", keys));
        let wire = sealed(&a, &plain(9, b"body"));
        for bit in 0..wire.len() * 8 {
            let mut bad = wire.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let cause = if (16..32).contains(&bit) { Cause::Label } else { Cause::Unauthentic };
            assert_eq!(opened(&b, &bad), Err(cause), "bit {bit}");
        }
        assert!(opened(&b, &wire).is_ok());
    }
}

#[test]
fn every_truncation_and_extension_is_found() {
    for keys in [&[][..], &[KEY]] {
        let (a, b) = (sealer("x", keys), sealer("x", keys));
        let wire = sealed(&a, &plain(9, b"a longer body"));
        for length in 0..wire.len() {
            let cause = if length < HEADER_BYTES + a.overhead() { Cause::Size } else { Cause::Unauthentic };
            assert_eq!(opened(&b, &wire[..length]), Err(cause), "{length} bytes");
        }
        let longer = [&wire[..], &[0]].concat();
        assert_eq!(opened(&b, &longer), Err(Cause::Unauthentic));
    }
}

#[test]
fn another_key_another_label_and_no_key_stay_out() {
    let message = plain(9, &[5; 64]);
    let wire = sealed(&sealer("x", &[KEY]), &message);
    assert_eq!(opened(&sealer("x", &[OTHER]), &wire), Err(Cause::Unauthentic));
    assert_eq!(opened(&sealer("y", &[KEY]), &wire), Err(Cause::Label));
    assert_eq!(opened(&sealer("x", &[]), &wire), Err(Cause::Unauthentic));
    let open_wire = sealed(&sealer("x", &[]), &message);
    assert_eq!(opened(&sealer("x", &[KEY]), &open_wire), Err(Cause::Unauthentic));
    assert_eq!(opened(&sealer("y", &[]), &open_wire), Err(Cause::Label));
}

#[test]
fn the_whole_label_counts_where_its_hash_in_the_header_is_the_same() {
    for keys in [&[][..], &[KEY]] {
        let mut wire = sealed(&sealer("y", keys), &plain(9, b"body"));
        wire[2..4].copy_from_slice(&wire::label_hash("x").to_le_bytes());
        assert_eq!(opened(&sealer("x", keys), &wire), Err(Cause::Unauthentic));
    }
}

#[test]
fn a_replay_is_dropped_and_disorder_within_the_window_is_not() {
    let (a, b) = (sealer("x", &[KEY]), sealer("x", &[KEY]));
    let wires: Vec<_> = (0..1_100u32).map(|i| sealed(&a, &plain(9, &i.to_le_bytes()))).collect();
    assert!(opened(&b, &wires[1_099]).is_ok());
    assert!(opened(&b, &wires[76]).is_ok(), "1,023 behind the largest");
    assert_eq!(opened(&b, &wires[75]), Err(Cause::Replay), "1,024 behind it");
    for i in [1_099, 76] {
        assert_eq!(opened(&b, &wires[i]), Err(Cause::Replay));
    }
    assert!(opened(&b, &wires[500]).is_ok());
    let mut forged = wires[600].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(opened(&b, &forged), Err(Cause::Unauthentic));
    assert!(opened(&b, &wires[600]).is_ok(), "a forgery does not use up the counter");
}

#[test]
fn windows_are_per_sender_and_survive_new_keys() {
    let (a, b) = (sealer("x", &[KEY]), sealer("x", &[KEY]));
    let first = sealed(&a, &plain(1, b""));
    assert!(opened(&b, &first).is_ok());
    let mut other = Sealer::new("x", &[KEY], 5, 100).unwrap();
    assert!(opened(&b, &sealed(&other, &plain(2, b""))).is_ok(), "same counter, other sender");
    b.set_keys(&[OTHER, KEY]).unwrap();
    assert_eq!(opened(&b, &first), Err(Cause::Replay));
    other = Sealer::new("x", &[KEY], 6, 100).unwrap();
    assert!(opened(&b, &sealed(&other, &plain(1, b""))).is_ok());
}

#[test]
fn no_counter_is_used_twice_whatever_the_key_and_id() {
    let a = sealer("x", &[KEY]);
    let mut seen = std::collections::BTreeSet::new();
    for id in [1, 2, 1, 1, 3] {
        for keys in [[KEY], [OTHER], [KEY]] {
            a.set_keys(&keys).unwrap();
            let wire = sealed(&a, &plain(id, b""));
            assert!(seen.insert(u64::from_le_bytes(wire[12..20].try_into().unwrap())));
        }
    }
    let worn_out = Sealer::new("x", &[KEY], u64::MAX, 100).unwrap();
    assert_eq!(worn_out.seal(&plain(1, b""), &mut Vec::new()), Err(Unsealable));
}

#[test]
fn a_sender_without_id_can_not_seal_nor_be_heard() {
    let a = sealer("x", &[KEY]);
    assert_eq!(a.seal(&plain(0, b""), &mut Vec::new()), Err(Unsealable));
    let mut wire = sealed(&a, &plain(1, b""));
    wire[4] = 0;
    assert_eq!(opened(&a, &wire), Err(Cause::Unauthentic));
    assert_eq!(a.seal(b"short", &mut Vec::new()), Err(Unsealable));
}

#[test]
fn keys_rotate_in_three_rounds_and_nothing_is_lost_between_neighbours() {
    let rounds = [&[KEY][..], &[KEY, OTHER], &[OTHER, KEY], &[OTHER]];
    let (a, b) = (sealer("x", rounds[0]), sealer("x", rounds[0]));
    let both = || {
        for (from, to, id) in [(&a, &b, 1), (&b, &a, 2)] {
            assert!(opened(to, &sealed(from, &plain(id, b"m"))).is_ok());
        }
    };
    for round in rounds {
        a.set_keys(round).unwrap();
        both();
        b.set_keys(round).unwrap();
        both();
    }
    assert!(opened(&b, &sealed(&sealer("x", &[KEY]), &plain(3, b""))).is_err(), "the old key is gone");
}

#[test]
fn rings_that_make_no_sense_are_refused() {
    let refused = |keys: &[[u8; 32]]| Sealer::new("x", keys, 0, 1).err().map(|e| e.code());
    assert_eq!(refused(&[[0; 32]]), Some("ERR_HEARSAY_KEYS"));
    assert_eq!(refused(&[KEY; 9]), Some("ERR_HEARSAY_KEYS"));
    assert!(sealer("x", &[]).set_keys(&[KEY]).is_err());
    assert!(sealer("x", &[KEY]).set_keys(&[]).is_err());
}

#[test]
fn the_table_of_senders_is_bounded_and_keeps_those_heard() {
    let b = Sealer::new("x", &[KEY], 0, 10).unwrap();
    let a = sealer("x", &[KEY]);
    let first = sealed(&a, &plain(1, b""));
    assert!(opened(&b, &first).is_ok());
    for id in 2..1_000 {
        assert!(opened(&b, &sealed(&a, &plain(id, b""))).is_ok());
        assert!(opened(&b, &sealed(&a, &plain(1, b""))).is_ok());
        let peers = &lock(b.ring.as_ref().unwrap()).peers;
        assert!(peers.young.len() + peers.old.len() <= 10);
    }
    assert_eq!(opened(&b, &first), Err(Cause::Replay), "its window was kept");
    let outsider = sealer("x", &[OTHER]);
    for id in 5_000..6_000 {
        assert!(opened(&b, &sealed(&outsider, &plain(id, b""))).is_err());
    }
    assert_eq!(opened(&b, &first), Err(Cause::Replay), "outsiders push nobody out");
}

struct Ends {
    opener: Sealer,
    acceptor: Sealer,
}

fn ends(a: &[[u8; 32]], b: &[[u8; 32]]) -> Ends {
    Ends { opener: sealer("x", a), acceptor: sealer("x", b) }
}

/// A frame without its length.
fn frame(by: &Sealer, with: &mut FrameSealer, plain: &[u8]) -> Vec<u8> {
    let bytes = by.seal_frame(with, plain).unwrap();
    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(length, bytes.len() - 4);
    assert_eq!(length, plain.len() + by.frame_overhead());
    bytes[4..].to_vec()
}

#[test]
fn frames_go_both_ways() {
    for (a, b) in [(&[][..], &[][..]), (&[KEY], &[OTHER, KEY])] {
        let ends = ends(a, b);
        let mut out = ends.opener.frame_sealer(&plain(1, b""), 7, [1; 16], None).unwrap();
        let there = Preamble::decode(&out.preamble().encode()).unwrap();
        assert_eq!((there, there.port), (out.preamble(), 7));
        let mut into = ends.acceptor.frame_opener(there, None).unwrap();
        let mut answer =
            ends.acceptor.frame_sealer(&plain(2, b""), 8, [2; 16], Some(into.opener_salt())).unwrap();
        // The acceptor seals with its own first key, which the opener of the second case does not have yet.
        let back = ends.opener.set_keys(b);
        assert_eq!(back.is_ok(), !a.is_empty());
        let mut from = ends.opener.frame_opener(answer.preamble(), Some(out.opener_salt())).unwrap();
        for size in [0, 1, 70_000] {
            let text = plain(1, &vec![3; size]);
            let mut wire = frame(&ends.opener, &mut out, &text);
            ends.acceptor.open_frame(&mut into, &mut wire).unwrap();
            assert_eq!(wire, text);
            let text = plain(2, &vec![4; size]);
            let mut wire = frame(&ends.acceptor, &mut answer, &text);
            ends.opener.open_frame(&mut from, &mut wire).unwrap();
            assert_eq!(wire, text);
        }
    }
}

#[test]
fn frames_repeated_left_out_swapped_or_damaged_are_refused() {
    let ends = ends(&[KEY], &[KEY]);
    let mut out = ends.opener.frame_sealer(&plain(1, b""), 7, [1; 16], None).unwrap();
    let wires: Vec<_> = (0..3u8).map(|i| frame(&ends.opener, &mut out, &plain(1, &[i]))).collect();
    let mut into = ends.acceptor.frame_opener(out.preamble(), None).unwrap();
    assert_eq!(ends.acceptor.open_frame(&mut into, &mut wires[1].clone()), Err(Cause::Unauthentic));
    ends.acceptor.open_frame(&mut into, &mut wires[0].clone()).unwrap();
    for bad in [&wires[0], &wires[2]] {
        assert_eq!(ends.acceptor.open_frame(&mut into, &mut bad.clone()), Err(Cause::Unauthentic));
    }
    for byte in 0..wires[1].len() {
        let mut bad = wires[1].clone();
        bad[byte] ^= 0x80;
        assert_eq!(ends.acceptor.open_frame(&mut into, &mut bad), Err(Cause::Unauthentic));
    }
    assert_eq!(ends.acceptor.open_frame(&mut into, &mut wires[1][..27].to_vec()), Err(Cause::Size));
    ends.acceptor.open_frame(&mut into, &mut wires[1].clone()).unwrap();
}

#[test]
fn a_recorded_stream_is_taken_once_and_its_answers_by_nobody_else() {
    let ends = ends(&[KEY], &[KEY]);
    let mut out = ends.opener.frame_sealer(&plain(1, b""), 7, [1; 16], None).unwrap();
    let wire = frame(&ends.opener, &mut out, &plain(1, b"hi"));
    let take = || {
        let mut into = ends.acceptor.frame_opener(out.preamble(), None).unwrap();
        ends.acceptor.open_frame(&mut into, &mut wire.clone())
    };
    assert_eq!(take(), Ok(()));
    assert_eq!(take(), Err(Cause::Replay));

    let mut answer = ends.acceptor.frame_sealer(&plain(2, b""), 8, [2; 16], Some([1; 16])).unwrap();
    let wire = frame(&ends.acceptor, &mut answer, &plain(2, b"yes"));
    let mut other = ends.opener.frame_opener(answer.preamble(), Some([9; 16])).unwrap();
    assert_eq!(ends.opener.open_frame(&mut other, &mut wire.clone()), Err(Cause::Unauthentic));
    let mut reflected = ends.acceptor.frame_opener(answer.preamble(), None).unwrap();
    assert_eq!(ends.acceptor.open_frame(&mut reflected, &mut wire.clone()), Err(Cause::Unauthentic));
}

#[test]
fn streams_of_outsiders_and_other_ids_are_refused() {
    let ends = ends(&[KEY], &[OTHER]);
    let mut out = ends.opener.frame_sealer(&plain(1, b""), 7, [1; 16], None).unwrap();
    let mut wire = frame(&ends.opener, &mut out, &plain(1, b"hi"));
    let mut into = ends.acceptor.frame_opener(out.preamble(), None).unwrap();
    assert_eq!(ends.acceptor.open_frame(&mut into, &mut wire), Err(Cause::Unauthentic));
    assert!(sealer("x", &[]).frame_opener(out.preamble(), None).is_err());
    assert!(ends.opener.seal_frame(&mut out, &plain(2, b"")).is_err(), "one stream, one sender");
    assert!(ends.opener.frame_sealer(&plain(0, b""), 7, [1; 16], None).is_err());
    let mut bytes = out.preamble().encode();
    bytes[0] = 9;
    assert_eq!(Preamble::decode(&bytes), None);
}
