//! Answers to WALK and LIST (`S4`-`S6`). Nothing is kept of a request.
//!
//! A LIST is answered by IHAVE, CLAIMS and WANT, and in the same datagram by a DIFF that says which ranges it settles, so that
//! only what was lost is asked again. Its items: `level` 3, `index` k: range k of the LIST, `bitmap`: how many WANTs follow
//! from it; then, if the datagram settles only part of the range, `level` 1: first, `level` 0: last bucket settled (`bitmap`).

use crate::member::Claim;
use crate::merkle::{LEVEL_MAX, differing, list_level};
use crate::record::{RumorId, Tree};
use crate::replica::{Offer, Replica};
use crate::time::Second;
use crate::wire::{DiffItem, ListRange, ListTag, Message, WalkItem, claim_bytes};

/// Datagrams in answer to one request.
pub(super) const ANSWERS_MAX: usize = 8;
const DIFF_HEAD: usize = 12;
const DIFF_ITEM: usize = 6;
const IDS_HEAD: usize = 4;
const ID: usize = 6;
/// Buckets listed at a time: an answer may be full long before the end of a wide range.
const SLICE_BUCKETS: usize = 1024;
/// Claims in one CLAIMS message, at most.
const CLAIMS_MAX: usize = 255;

pub(super) struct Head {
    pub seq: u32,
    pub tree: Tree,
    pub settled: Second,
}

impl Head {
    fn diff(&self, items: Vec<DiffItem>) -> Message {
        Message::Diff { seq: self.seq, tree: self.tree, settled: self.settled, items }
    }
}

/// Which children of each position differ; digests of their children as far as eight datagrams go.
pub(super) fn walk(
    head: &Head,
    view: &dyn Replica,
    salt: u32,
    items: &[WalkItem],
    room: usize,
) -> Vec<Vec<Message>> {
    let deepest = list_level(view.count()).min(LEVEL_MAX);
    let mut spare = (ANSWERS_MAX * room).saturating_sub(items.len() * (DIFF_ITEM + 80));
    let mut parcels: Vec<Vec<Message>> = Vec::new();
    let mut items_now: Vec<DiffItem> = Vec::new();
    let mut bytes = DIFF_HEAD;
    for item in items {
        let Some(mine) = view.digests(salt, item.level, item.index) else { continue };
        let bitmap = differing(&mine, &item.children);
        let mut children = Vec::new();
        for i in (0..16u16).filter(|i| bitmap >> i & 1 == 1) {
            if item.level + 1 >= deepest || spare < 64 {
                break;
            }
            let Some(digests) = view.digests(salt, item.level + 1, item.index << 4 | i) else { break };
            children.push(digests);
            spare -= 64;
        }
        let more = DIFF_ITEM + 64 * children.len();
        if bytes + more > room && !items_now.is_empty() {
            parcels.push(vec![head.diff(std::mem::take(&mut items_now))]);
            bytes = DIFF_HEAD;
        }
        children.truncate(room.saturating_sub(bytes + DIFF_ITEM) / 64);
        bytes += more;
        items_now.push(DiffItem { level: item.level, index: item.index, bitmap, children });
    }
    if !items_now.is_empty() {
        parcels.push(vec![head.diff(items_now)]);
    }
    parcels.truncate(ANSWERS_MAX);
    parcels
}

/// One datagram of an answer to a LIST.
#[derive(Default)]
struct Parcel {
    have: Vec<RumorId>,
    large: Vec<RumorId>,
    claims: Vec<Claim>,
    wants: Vec<RumorId>,
    acks: Vec<DiffItem>,
}

impl Parcel {
    fn bytes(&self) -> usize {
        let ids = |n: usize| if n > 0 { IDS_HEAD + n * ID } else { 0 };
        let claims: usize = self.claims.iter().map(claim_bytes).sum();
        ids(self.have.len())
            + ids(self.large.len())
            + ids(self.wants.len())
            + if claims > 0 { IDS_HEAD + claims } else { 0 }
            + DIFF_HEAD
            + self.acks.len() * DIFF_ITEM
    }

    fn messages(self, head: &Head, admit: &mut dyn FnMut(&[RumorId]) -> Vec<RumorId>) -> Vec<Message> {
        let mut messages = Vec::new();
        for (large, ids) in [(false, self.have), (true, self.large)] {
            if !ids.is_empty() {
                messages.push(Message::IHave { repair: true, large, ids });
            }
        }
        for claims in self.claims.chunks(CLAIMS_MAX) {
            messages.push(Message::Claims(claims.to_vec()));
        }
        let ids = admit(&self.wants);
        if !ids.is_empty() {
            messages.push(Message::Want { repair: true, large: false, ids });
        }
        messages.push(head.diff(self.acks));
        messages
    }
}

/// What follows from one bucket.
#[derive(Default)]
struct Found {
    offers: Vec<Offer>,
    wants: Vec<RumorId>,
}

impl Found {
    fn bytes(&self) -> usize {
        let offers: usize =
            self.offers.iter().map(|o| ID + o.claim.as_ref().map_or(0, |c| claim_bytes(c) + 1)).sum();
        offers + self.wants.len() * ID
    }
}

/// Compares two lists of one bucket. Records written again since are left to a later session.
fn compare(head: &Head, view: &dyn Replica, mine: &[ListTag], theirs: &[ListTag]) -> Found {
    let mut found = Found::default();
    for tag in mine.iter().filter(|t| theirs.binary_search(t).is_err()) {
        if !view.moved_on(tag.bucket, tag.tag) {
            found.offers.extend(view.offer(tag));
        }
    }
    for tag in theirs.iter().filter(|t| mine.binary_search(t).is_err()) {
        let also_mine = mine.iter().any(|m| m.tag == tag.tag);
        // Of an entry both have, mine goes first: if it is the older one, the asker says so. Members cross.
        if (also_mine && head.tree == Tree::Entries) || view.moved_on(tag.bucket, tag.tag) {
            continue;
        }
        found.wants.push(RumorId { bucket: tag.bucket, tag: tag.version });
    }
    found
}

fn ack(level: u8, index: usize, bitmap: u16) -> DiffItem {
    DiffItem { level, index: index as u16, bitmap, children: Vec::new() }
}

/// Compares a LIST with the view. `admit` says which entries may be asked for in the answer itself and queues the rest.
pub(super) fn list(
    head: &Head,
    view: &dyn Replica,
    ranges: &[ListRange],
    room: usize,
    admit: &mut dyn FnMut(&[RumorId]) -> Vec<RumorId>,
) -> Vec<Vec<Message>> {
    let mut parcels: Vec<Vec<Message>> = Vec::new();
    let mut parcel = Parcel::default();
    for (k, range) in ranges.iter().enumerate() {
        let slices = (u32::from(range.first)..=u32::from(range.last)).step_by(SLICE_BUCKETS).map(|first| {
            let last = first.saturating_add(SLICE_BUCKETS as u32 - 1).min(u32::from(range.last));
            (first as u16, last as u16)
        });
        let differences = slices.flat_map(|(first, last)| {
            let from = range.tags.partition_point(|t| t.bucket < first);
            let to = range.tags.partition_point(|t| t.bucket <= last);
            differences(head, view, &view.list(first, last), range.tags.get(from..to).unwrap_or(&[]))
        });
        // First bucket of this range not settled by an earlier datagram, wants of this range in this one.
        let (mut from, mut wants) = (range.first, 0u16);
        for (bucket, found) in differences {
            if parcel.bytes() + found.bytes() + 3 * DIFF_ITEM + 4 * IDS_HEAD > room
                && (from < bucket || !parcel.acks.is_empty())
            {
                if from < bucket {
                    parcel.acks.extend([ack(3, k, wants), ack(1, 0, from), ack(0, 0, bucket - 1)]);
                }
                parcels.push(std::mem::take(&mut parcel).messages(head, admit));
                if parcels.len() == ANSWERS_MAX {
                    return parcels;
                }
                (from, wants) = (bucket, 0);
            }
            wants = wants.saturating_add(found.wants.len() as u16);
            put(&mut parcel, found, room.saturating_sub(3 * DIFF_ITEM + 4 * IDS_HEAD));
        }
        parcel.acks.push(ack(3, k, wants));
        if from > range.first {
            parcel.acks.extend([ack(1, 0, from), ack(0, 0, range.last)]);
        }
        if parcel.bytes() + 3 * DIFF_ITEM + 4 * IDS_HEAD > room {
            parcels.push(std::mem::take(&mut parcel).messages(head, admit));
            if parcels.len() == ANSWERS_MAX {
                return parcels;
            }
        }
    }
    if !parcel.acks.is_empty() {
        parcels.push(parcel.messages(head, admit));
    }
    parcels
}

/// Puts what follows from a bucket; what does not fit an empty datagram is left to the next session.
fn put(parcel: &mut Parcel, found: Found, room: usize) {
    for offer in found.offers {
        let more = ID + offer.claim.as_ref().map_or(0, |c| claim_bytes(c) + 1);
        if parcel.bytes() + more > room {
            return;
        }
        if offer.large {
            parcel.large.push(offer.id);
        } else {
            parcel.have.push(offer.id);
        }
        parcel.claims.extend(offer.claim);
    }
    for id in found.wants {
        if parcel.bytes() + ID > room {
            return;
        }
        parcel.wants.push(id);
    }
}

/// Buckets with differences, in order.
fn differences(head: &Head, view: &dyn Replica, mine: &[ListTag], theirs: &[ListTag]) -> Vec<(u16, Found)> {
    let (mut mine, mut theirs) = (mine, theirs);
    let mut all = Vec::new();
    while let Some(bucket) = mine.first().into_iter().chain(theirs.first()).map(|t| t.bucket).min() {
        let (a, b) =
            (mine.partition_point(|t| t.bucket <= bucket), theirs.partition_point(|t| t.bucket <= bucket));
        let (here, rest) = mine.split_at(a);
        let (there, others) = theirs.split_at(b);
        (mine, theirs) = (rest, others);
        if here != there {
            let found = compare(head, view, here, there);
            if !found.offers.is_empty() || !found.wants.is_empty() {
                all.push((bucket, found));
            }
        }
    }
    all
}
