//! What leaves on streams, one frame at a time: records and pushed messages as the budget allows, pages at their own rate.

use std::time::Duration;

use super::stream::{Out, Stream};
use super::{Action, Source, Transfer};
use crate::budget::{Budget, Class};
use crate::output::StreamId;
use crate::record::{Record, Tree};
use crate::time::{Mono, Now};
use crate::wire::{Message, Page, message_bytes, record_bytes};

/// Longest PAGE frame, unless one entry is longer.
pub(super) const PAGE_BYTES: usize = 64 * 1024;
/// PULLs over streams: bytes per second of all together, and how much may leave at once.
const PULL_BYTES_PER_SECOND: f64 = 10_000_000.0;
const PULL_DEPTH: f64 = 500_000.0;
/// Longest sleep of a stream that waits for the budget, which others may leave to it sooner.
const TOKEN_WAIT_MAX: Duration = Duration::from_millis(50);
const TOKEN_WAIT_MIN: Duration = Duration::from_millis(1);

/// Tokens of all PULLs served over streams.
pub(super) struct PullRate {
    tokens: f64,
    filled: Mono,
}

impl PullRate {
    pub(super) fn new(now: Mono) -> PullRate {
        PullRate { tokens: PULL_DEPTH, filled: now }
    }

    /// Zero if a page may leave now, else when to ask again.
    fn wait(&mut self, now: Mono) -> Duration {
        let elapsed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + elapsed * PULL_BYTES_PER_SECOND).min(PULL_DEPTH);
        if self.tokens > 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / PULL_BYTES_PER_SECOND) + TOKEN_WAIT_MIN
        }
    }
}

enum Next {
    Frame(Message),
    Wait(Duration),
    Nothing,
}

impl Transfer {
    /// Next action. Records served are charged to `Class::Entries` or `Members` (one may be borrowed), pages to the part's
    /// own 10 MB/s.
    pub fn poll_action(&mut self, now: Now, budget: &mut Budget, source: &mut dyn Source) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        while let Some(stream) = self.ready.pop_first() {
            let Some(mut s) = self.streams.remove(&stream) else { continue };
            let next =
                if s.open && !s.in_flight { self.next(now, &mut s, budget, source) } else { Next::Nothing };
            let action = self.settle(now, stream, &mut s, next);
            self.streams.insert(stream, s);
            if action.is_some() {
                return action;
            }
        }
        None
    }

    fn settle(&mut self, now: Now, stream: StreamId, s: &mut Stream, next: Next) -> Option<Action> {
        match next {
            Next::Frame(message) => {
                s.in_flight = true;
                s.active_at = now.mono;
                Some(Action::SendFrame { stream, message })
            }
            Next::Wait(wait) => {
                let at = now.mono + wait;
                self.wake_at = if self.blocked.is_empty() { at } else { self.wake_at.min(at) };
                self.blocked.insert(stream);
                None
            }
            Next::Nothing => None,
        }
    }

    fn next(&mut self, now: Now, s: &mut Stream, budget: &mut Budget, source: &mut dyn Source) -> Next {
        if let Some(at) = s.out.iter().position(|o| matches!(o, Out::Control(_)))
            && let Some(Out::Control(message)) = s.out.remove(at)
        {
            return Next::Frame(message);
        }
        let mut wait = None;
        if !s.out.is_empty() {
            if budget.available(now.mono, Class::Entries) > 0 {
                match s.out.pop_front() {
                    Some(Out::Record { id, repair }) => {
                        return self.record(now, s, (id, repair), budget, source);
                    }
                    Some(Out::Push { message, .. }) => {
                        budget.spend(now.mono, Class::Entries, message_bytes(&message));
                        return Next::Frame(message);
                    }
                    Some(Out::Control(message)) => return Next::Frame(message),
                    None => {}
                }
            }
            wait = Some(TOKEN_WAIT_MAX);
        }
        let Some((tree, from)) = s.pull_out else { return wait.map_or(Next::Nothing, Next::Wait) };
        let pull_wait = self.pull_rate.wait(now.mono);
        if !pull_wait.is_zero() {
            return Next::Wait(wait.map_or(pull_wait, |w| w.min(pull_wait)));
        }
        Next::Frame(self.page(s, tree, from, source))
    }

    fn record(
        &mut self,
        now: Now,
        s: &mut Stream,
        (id, repair): (crate::record::RumorId, bool),
        budget: &mut Budget,
        source: &mut dyn Source,
    ) -> Next {
        let Some((hop, record)) = source.record(id) else {
            self.metrics.busy_sent += 1;
            return Next::Frame(Message::Busy { tree: None, id: Some(id) });
        };
        let class = if matches!(record, Record::Member(_)) { Class::Members } else { Class::Entries };
        budget.spend(now.mono, class, record_bytes(&record));
        self.metrics.records_sent += 1;
        s.sending_record = true;
        let message = Message::Record { hop, record };
        if repair {
            self.metrics.repair_records_sent += 1;
            self.metrics.repair_bytes_sent += message_bytes(&message) as u64;
        }
        Next::Frame(message)
    }

    fn page(&mut self, s: &mut Stream, tree: Tree, from: u64, source: &mut dyn Source) -> Message {
        let page: Page = source.page(tree, from, self.page_bytes_max);
        s.pull_out = (!page.last && page.next > from).then_some((tree, page.next));
        let message = Message::Page(page);
        self.pull_rate.tokens -= message_bytes(&message) as f64;
        self.metrics.pages_sent += 1;
        message
    }
}
