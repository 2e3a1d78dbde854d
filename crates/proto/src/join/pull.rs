//! Client side of a PULL: the cursor is the first gap; pages may come in any order, twice, or not.

use std::net::SocketAddr;
use std::time::Duration;

use crate::member::MemberId;
use crate::record::Tree;
use crate::table::Table;
use crate::time::Mono;
use crate::wire::Page;

/// PAGEs that answer one PULL in datagrams.
pub(super) const PAGES_PER_PULL: usize = 8;
/// Members are pulled over a stream from here on.
const DATAGRAM_LIVING_MAX: f64 = 200.0;
/// Step of the wait before a PULL is repeated.
const RETRY_STEP: Duration = Duration::from_millis(200);
/// Tries with one source.
pub(super) const TRIES_MAX: u32 = 4;
/// Pages kept beyond a gap.
const RANGES_MAX: usize = 64;
/// A stream that brings no page for this long counts as broken even if nobody says so.
const STREAM_STALL: Duration = Duration::from_secs(10);

/// Whom to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) id: MemberId,
    pub(super) address: SocketAddr,
    /// It has welcomed me, so that it serves me.
    pub(super) admitted: bool,
    /// A stream to it failed: datagrams then.
    pub(super) stream_failed: bool,
}

struct Range {
    next: u64,
    last: bool,
    records: usize,
}

/// One list on its way.
pub(super) struct Pull {
    pub(super) tree: Tree,
    pub(super) source: Source,
    /// Sources given up; late pages of theirs are still good.
    pub(super) tried: Vec<MemberId>,
    pub(super) tries: u32,
    /// Tries without any progress, whoever was asked.
    pub(super) tries_total: u32,
    pub(super) streaming: bool,
    /// Sources that join themselves and had no list.
    pub(super) refusals: u32,
    pub(super) retry_at: Mono,
    cursor: u64,
    complete: bool,
    records: usize,
    round: usize,
    ranges: Table<u64, Range>,
}

impl Pull {
    pub(super) fn new(tree: Tree, source: Source) -> Pull {
        Pull {
            tree,
            source,
            tried: Vec::new(),
            tries: 0,
            tries_total: 0,
            streaming: false,
            refusals: 0,
            retry_at: Mono::FAR,
            cursor: 0,
            complete: false,
            records: 0,
            round: 0,
            ranges: Table::new(),
        }
    }

    /// Place of the first gap.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Over a stream? Entries always; members when what is known so far of the evenly spread places means more than 200, or
    /// when datagrams brought nothing: a source that many join by has no budget left for them.
    pub(super) fn wants_stream(&self) -> bool {
        let share = self.cursor as f64 / u64::MAX as f64;
        let many = self.cursor > 0 && self.records as f64 > DATAGRAM_LIVING_MAX * share;
        self.tree == Tree::Entries || !self.source.stream_failed && (many || self.tries > 0)
    }

    /// A PULL leaves now.
    pub(super) fn asked(&mut self, now: Mono, streaming: bool) {
        self.streaming = streaming;
        self.round = 0;
        self.wait(now);
    }

    /// Starts the wait for an answer anew.
    pub(super) fn wait(&mut self, now: Mono) {
        self.retry_at = now + if self.streaming { STREAM_STALL } else { RETRY_STEP * (1 + self.tries) };
    }

    /// Is this page part of the list I asked for?
    pub(super) fn is_mine(&self, from: MemberId, page: &Page) -> bool {
        page.tree == self.tree
            && (from == self.source.id || self.tried.contains(&from))
            && (page.last || page.next > page.from)
    }

    /// Does my source say that it has no list to give? (A page that gets nowhere and is not the last.)
    pub(super) fn is_refused(&self, from: MemberId, page: &Page) -> bool {
        page.tree == self.tree
            && self.streaming
            && from == self.source.id
            && !page.last
            && page.next <= page.from
    }

    /// Takes a page in. True when the next PULL may leave at once: all pages of this one have come.
    pub(super) fn take(&mut self, now: Mono, page: &Page) -> bool {
        let before = self.cursor;
        if self.ranges.len() < RANGES_MAX || page.from <= self.cursor {
            let range = Range { next: page.next, last: page.last, records: page.records.len() };
            self.ranges.insert(page.from, range);
        }
        while self.ranges.first_key_value().is_some_and(|(from, _)| *from <= self.cursor) {
            let Some((_, range)) = self.ranges.pop_first() else { break };
            if range.next > self.cursor {
                self.records += range.records;
            }
            self.cursor = self.cursor.max(range.next);
            self.complete |= range.last;
        }
        self.round += 1;
        self.tries = 0;
        if self.cursor > before {
            self.tries_total = 0;
        }
        self.wait(now);
        !self.streaming && self.round >= PAGES_PER_PULL && self.ranges.is_empty()
    }

    /// Asks another from now on.
    pub(super) fn turn_to(&mut self, source: Source) {
        if !self.tried.contains(&self.source.id) && self.tried.len() < 64 {
            self.tried.push(self.source.id);
        }
        self.source = source;
        self.tries = 0;
        self.streaming = false;
    }
}
