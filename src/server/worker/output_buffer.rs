//! What waits to be written to one channel: bytes, and where each message in them ends.
//!
//! Owned by the channel's worker. Because the boundaries are known, a channel leaves without tearing or losing a
//! message: a message whose first byte is in the kernel goes out whole as long as the connection lasts, every other one
//! goes back whole.

use crate::channel::SessionNo;
use crate::ids::{Mid, UserId};
use crate::message::chat::{Body, Chat, Sender};
use crate::message::delivery::DeliveryTracker;
use crate::message::disconnect::PartialWrite;
use crate::protocol::line;
use crate::sync::Arc;
use std::collections::VecDeque;

/// A buffer larger than this is freed instead of kept for the next channel, in bytes.
const KEEP_CAPACITY: usize = 16 * 1024;

/// Buffers that a worker keeps for the next channels.
const POOL_MAX: usize = 64;

/// Written bytes at the start of the buffer past which the rest is moved to the front, in bytes.
const COMPACT_AT: usize = 65_536;

/// What a chat's bytes come from, so that they can be taken back.
#[derive(Debug)]
pub enum Source {
    /// The bytes are the JSON object and its terminator.
    Bytes,
    /// The bytes were made of this.
    Body(Body),
    /// The bytes are the line of a chat to one user.
    Line {
        /// The sender.
        sender: Arc<Sender>,
        /// The receiver.
        to: UserId,
        /// When it was sent, in Unix milliseconds.
        at_ms: i64,
    },
}

impl Source {
    fn body(self, bytes: &[u8]) -> Body {
        let bytes = without_terminator(bytes);
        match self {
            Source::Bytes => Body::Object(bytes.into()),
            Source::Body(body) => body,
            Source::Line { sender, to, at_ms } => {
                let text = bytes.get(line::chat_prefix(&sender.name)..).unwrap_or_default();
                Body::Text { text: String::from_utf8_lossy(text).into(), sender, to, at_ms }
            }
        }
    }
}

/// What a segment of the bytes is.
#[derive(Debug)]
enum SegmentKind {
    /// An answer, an error, a goodbye.
    Plain,
    /// A chat that is nowhere else.
    Live { tracker: Option<Arc<DeliveryTracker>>, source: Source },
    /// So many chats, or a login answer with them, of which there is another copy: in the box up to this number, or
    /// with main until they are confirmed.
    Kept { upto: Option<Mid>, chats: u64 },
    /// A login answer without chats: not charged, for the client cannot make it shorter.
    Greeting,
    /// An event of a friend: not charged, for its channel bounds it, and worth nothing to a later session.
    Presence,
    /// The rest of a segment that was partly written at a cut, and the chats that are whole once it is written.
    Rest { partial: PartialWrite, is_charged: bool },
}

impl SegmentKind {
    /// True exactly when its bytes count against the out-limit.
    fn is_charged(&self) -> bool {
        matches!(
            self,
            SegmentKind::Plain | SegmentKind::Live { .. } | SegmentKind::Rest { is_charged: true, .. }
        )
    }

    /// How many chats have no other copy once a cut has found them partly written: the box gives them up then, and main
    /// keeps those that have to be confirmed.
    fn chats_only_here(&self) -> u64 {
        match self {
            SegmentKind::Live { .. } => 1,
            SegmentKind::Kept { upto: Some(_), chats } => *chats,
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct Segment {
    kind: SegmentKind,
    /// Bytes, the terminator included.
    len: usize,
}

/// What a write has accomplished.
#[derive(Debug, Default)]
pub struct Written {
    /// Chats that went out.
    pub delivered: u64,
    /// The newest message of the box that went out.
    pub taken_over: Option<Mid>,
    /// Tickets of chats that went out.
    pub trackers: Vec<Arc<DeliveryTracker>>,
}

impl Written {
    /// A segment is written, or its rest is about to be.
    fn note(&mut self, kind: &mut SegmentKind) {
        match kind {
            SegmentKind::Plain | SegmentKind::Greeting | SegmentKind::Presence | SegmentKind::Rest { .. } => {
            }
            SegmentKind::Live { tracker, .. } => {
                self.delivered += 1;
                self.trackers.extend(tracker.take());
            }
            SegmentKind::Kept { upto, chats } => {
                self.delivered += *chats;
                self.taken_over = upto.or(self.taken_over);
            }
        }
    }
}

/// Buffers that no channel needs at the moment. A channel with nothing to write has none, and one that writes seldom
/// calls the allocator. Owned by one worker.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a buffer changes hands as it is")]
pub struct BufferPool(Vec<Box<Buffer>>);

/// A channel's unsent output. While it is empty it has no heap: its buffer is in the pool.
#[derive(Debug, Default)]
pub struct OutputBuffer(Option<Box<Buffer>>);

impl OutputBuffer {
    /// True exactly when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.as_deref().is_none_or(Buffer::is_empty)
    }

    /// Unsent bytes.
    pub fn len(&self) -> usize {
        self.0.as_deref().map_or(0, Buffer::len)
    }

    /// True exactly when so much waits that the reader is slow: more than `limit` without the largest object that has
    /// come since there was last nothing. So one object is never too much, whatever its size.
    pub fn is_over(&self, limit: usize) -> bool {
        self.0.as_deref().is_some_and(|buffer| buffer.charged > limit.saturating_add(buffer.largest))
    }

    /// Unsent bytes that count against the out-limit: all but those of which there is another copy, which is bounded
    /// there.
    #[cfg(test)]
    fn charged(&self) -> usize {
        self.0.as_deref().map_or(0, |buffer| buffer.charged)
    }

    /// The unsent bytes.
    pub fn unsent(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |buffer| &buffer.bytes[buffer.head..])
    }

    /// Appends an answer; `write` gets the buffer's end.
    pub fn plain(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.buffer().plain(write);
    }

    /// Appends a chat that is nowhere else.
    pub fn live(
        &mut self,
        tracker: Option<Arc<DeliveryTracker>>,
        source: Source,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let buffer = self.buffer();
        let len = buffer.append(write);
        buffer.charge(len);
        buffer.segments.push_back(Segment { kind: SegmentKind::Live { tracker, source }, len });
    }

    /// Appends so many chats of which there is another copy: in the box, up to and including `upto`, or with main until
    /// they are confirmed.
    pub fn kept(&mut self, upto: Option<Mid>, chats: u64, write: impl FnOnce(&mut Vec<u8>)) {
        self.buffer().uncharged(SegmentKind::Kept { upto, chats }, write);
    }

    /// Appends a login answer without chats.
    pub fn greeting(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.buffer().uncharged(SegmentKind::Greeting, write);
    }

    /// Appends an event of a friend.
    pub fn presence(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.buffer().uncharged(SegmentKind::Presence, write);
    }

    /// Notes that the kernel has taken `count` bytes.
    pub fn advance(&mut self, count: usize, written: &mut Written) {
        if let Some(buffer) = &mut self.0 {
            buffer.advance(count, written);
        }
    }

    /// Takes every message of a session out of which nothing is written, and leaves the rest of a torn one and the
    /// answers. Chats with another copy are dropped, and so are events of friends. A torn message counts as written,
    /// except on a connection that is `broken`: there its rest can never go out, so it goes back too.
    pub fn cut(&mut self, session: SessionNo, broken: bool, written: &mut Written) -> Vec<Chat> {
        self.0.as_deref_mut().map(|buffer| buffer.cut(session, broken, written)).unwrap_or_default()
    }

    /// Drops everything; for a connection that takes nothing any more. Answers which chats are torn for good by that.
    pub fn clear(&mut self) -> Option<PartialWrite> {
        self.0.take()?.partial()
    }

    /// Takes a buffer from the pool, unless there is one.
    pub fn borrow_buffer(&mut self, pool: &mut BufferPool) {
        if self.0.is_none() {
            self.0 = pool.0.pop();
        }
    }

    /// Puts the buffer into the pool, if nothing waits in it.
    pub fn return_buffer(&mut self, pool: &mut BufferPool) {
        if let Some(buffer) = self.0.take_if(|buffer| buffer.is_empty())
            && buffer.fits_the_pool()
            && pool.0.len() < POOL_MAX
        {
            pool.0.push(buffer);
        }
    }

    fn buffer(&mut self) -> &mut Buffer {
        self.0.get_or_insert_default()
    }

    /// Panics when the parts disagree; for tests.
    #[cfg(test)]
    fn check_invariants(&self) {
        if let Some(buffer) = &self.0 {
            buffer.check_invariants();
        }
    }
}

/// Output and its boundaries.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Bytes at the start of `bytes` that are written.
    head: usize,
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are written.
    front: usize,
    /// Unsent bytes that count against the out-limit.
    charged: usize,
    /// The largest object that counts, of those appended since nothing waited, in bytes.
    largest: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    fn plain(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let len = self.append(write);
        self.charge(len);
        if len == 0 {
            return;
        }
        if let Some(Segment { kind: SegmentKind::Plain, len: last }) = self.segments.back_mut() {
            *last += len;
        } else {
            self.segments.push_back(Segment { kind: SegmentKind::Plain, len });
        }
    }

    fn uncharged(&mut self, kind: SegmentKind, write: impl FnOnce(&mut Vec<u8>)) {
        let len = self.append(write);
        self.segments.push_back(Segment { kind, len });
    }

    /// An object of that length counts against the out-limit.
    fn charge(&mut self, len: usize) {
        self.charged += len;
        self.largest = self.largest.max(len);
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.is_empty() {
            self.bytes.clear();
            self.head = 0;
            self.largest = 0;
        }
        // The first segment stays whole: it may have to go back.
        let done = self.head - self.front;
        if done > COMPACT_AT && done > self.bytes.len() / 2 {
            self.bytes.drain(..done);
            self.head -= done;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.bytes.len() - before
    }

    fn advance(&mut self, mut count: usize, written: &mut Written) {
        self.head += count;
        while count > 0 {
            let Some(segment) = self.segments.front_mut() else { break };
            let step = count.min(segment.len - self.front);
            if segment.kind.is_charged() {
                self.charged -= step;
            }
            count -= step;
            self.front += step;
            if self.front == segment.len {
                written.note(&mut segment.kind);
                self.segments.pop_front();
                self.front = 0;
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.head = 0;
        }
    }

    fn cut(&mut self, session: SessionNo, broken: bool, written: &mut Written) -> Vec<Chat> {
        let mut unsent = Vec::new();
        let mut rest = Vec::new();
        let mut segments = VecDeque::new();
        let mut at = self.head;
        let mut partial = self.front;
        self.charged = 0;
        for segment in self.segments.drain(..) {
            let end = at + segment.len - partial;
            let goes_back = partial == 0 || broken;
            match segment.kind {
                SegmentKind::Live { tracker, source } if goes_back => {
                    unsent.push(Chat::accepted(source.body(&self.bytes[end - segment.len..end]), tracker));
                }
                SegmentKind::Kept { .. } | SegmentKind::Presence if goes_back => {}
                mut kind => {
                    written.note(&mut kind);
                    rest.extend_from_slice(&self.bytes[at..end]);
                    let (chats, is_charged) = (kind.chats_only_here(), kind.is_charged());
                    let kind = match kind {
                        SegmentKind::Rest { .. } => kind,
                        _ if chats > 0 => {
                            SegmentKind::Rest { partial: PartialWrite { session, chats }, is_charged }
                        }
                        _ if is_charged => SegmentKind::Plain,
                        _ => SegmentKind::Greeting,
                    };
                    self.charged += if is_charged { end - at } else { 0 };
                    segments.push_back(Segment { kind, len: end - at });
                }
            }
            at = end;
            partial = 0;
        }
        (self.bytes, self.head, self.front, self.segments) = (rest, 0, 0, segments);
        unsent
    }

    /// The chats of which a cut has left the rest.
    fn partial(&self) -> Option<PartialWrite> {
        match self.segments.front()?.kind {
            SegmentKind::Rest { partial, .. } => Some(partial),
            _ => None,
        }
    }

    fn fits_the_pool(&self) -> bool {
        self.bytes.capacity() <= KEEP_CAPACITY
            && self.segments.capacity() <= KEEP_CAPACITY / size_of::<Segment>()
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        let segments: usize = self.segments.iter().map(|p| p.len).sum();
        assert_eq!(segments - self.front, self.len());
        assert!(self.charged <= self.len());
        assert!(self.segments.front().is_none_or(|p| self.front < p.len));
    }
}

fn without_terminator(bytes: &[u8]) -> &[u8] {
    bytes.split_last().map_or(bytes, |(_, body)| body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionNo = SessionNo(7);
    const TORN_ANSWER: Option<PartialWrite> = Some(PartialWrite { session: SESSION, chats: 3 });

    fn filled() -> OutputBuffer {
        let mut out = OutputBuffer::default();
        out.kept(Some(Mid(4)), 1, |b| b.extend(b"login\n"));
        out.live(None, Source::Bytes, |b| b.extend(b"one\n"));
        out.plain(|b| b.extend(b"answer\n"));
        out.live(None, Source::Bytes, |b| b.extend(b"two\n"));
        out.check_invariants();
        out
    }

    fn bodies(unsent: &[Chat]) -> Vec<Vec<u8>> {
        unsent.iter().map(|chat| chat.body.object().to_vec()).collect()
    }

    #[test]
    fn the_last_byte_of_a_message_hands_it_over() {
        let mut out = filled();
        let mut written = Written::default();
        out.advance(5, &mut written);
        assert_eq!((written.delivered, written.taken_over), (0, None));
        out.advance(1, &mut written);
        assert_eq!((written.delivered, written.taken_over), (1, Some(Mid(4))));
        out.advance(3, &mut written);
        assert_eq!(written.delivered, 1, "not all of the next one");
        out.advance(1, &mut written);
        assert_eq!(written.delivered, 2);
        out.check_invariants();
    }

    #[test]
    fn a_cut_hands_over_what_is_torn_while_the_connection_lasts() {
        let mut out = filled();
        let mut written = Written::default();
        out.advance(1, &mut written);
        out.cut(SESSION, false, &mut written);
        assert_eq!((written.delivered, written.taken_over), (1, Some(Mid(4))));
        out.advance(5, &mut written);
        assert_eq!(written.delivered, 1, "counted already");
        out.check_invariants();
    }

    #[test]
    fn a_cut_of_a_broken_connection_gives_back_what_is_torn() {
        let mut out = filled();
        let mut written = Written::default();
        out.advance(1, &mut written);
        assert_eq!(bodies(&out.cut(SESSION, true, &mut written)), [&b"one"[..], b"two"]);
        assert_eq!((written.delivered, written.taken_over), (0, None), "the box still has it");

        let mut out = filled();
        out.advance(7, &mut written);
        assert_eq!(bodies(&out.cut(SESSION, true, &mut written)), [&b"one"[..], b"two"], "whole");
        assert_eq!(written.taken_over, Some(Mid(4)));
        out.check_invariants();
    }

    #[test]
    fn a_torn_message_is_whole_in_the_buffer_however_much_was_written_before_it() {
        let mut out = OutputBuffer::default();
        out.plain(|b| b.resize(2 * COMPACT_AT, b' '));
        out.live(None, Source::Bytes, |b| b.extend(b"torn\n"));
        out.advance(2 * COMPACT_AT + 2, &mut Written::default());
        out.live(None, Source::Bytes, |b| b.extend(b"next\n"));
        out.check_invariants();
        assert_eq!(bodies(&out.cut(SESSION, true, &mut Written::default())), [&b"torn"[..], b"next"]);
    }

    #[test]
    fn a_cut_gives_back_whole_messages_and_keeps_torn_ones_and_answers() {
        let mut out = filled();
        out.advance(7, &mut Written::default());
        let unsent = out.cut(SESSION, false, &mut Written::default());
        assert_eq!(bodies(&unsent), [b"two"]);
        assert_eq!((out.unsent(), out.charged()), (&b"ne\nanswer\n"[..], 10));
        out.check_invariants();
    }

    #[test]
    fn a_cut_between_two_messages_tears_neither() {
        let mut out = filled();
        out.advance(6, &mut Written::default());
        assert_eq!(bodies(&out.cut(SESSION, false, &mut Written::default())), [&b"one"[..], b"two"]);
        assert_eq!(out.unsent(), b"answer\n");
        out.check_invariants();
    }

    #[test]
    fn what_is_lost_with_the_output_are_the_chats_whose_rest_has_not_gone_out() {
        let lost = |begun: usize, gone: usize| {
            let mut out = OutputBuffer::default();
            out.kept(Some(Mid(4)), 3, |b| b.extend(b"login\n"));
            out.live(None, Source::Bytes, |b| b.extend(b"one\n"));
            out.kept(None, 1, |b| b.extend(b"mid\n"));
            out.plain(|b| b.extend(b"answer\n"));
            out.advance(begun, &mut Written::default());
            out.cut(SESSION, false, &mut Written::default());
            // Another session on the same channel ends before the rest is out.
            out.live(None, Source::Bytes, |b| b.extend(b"other\n"));
            assert_eq!(out.cut(SessionNo(8), false, &mut Written::default()).len(), 1);
            out.advance(gone, &mut Written::default());
            out.check_invariants();
            out.clear()
        };
        assert_eq!(lost(0, 0), None, "nothing is begun");
        assert_eq!(lost(2, 0), TORN_ANSWER, "the messages of the login answer");
        assert_eq!(lost(2, 3), TORN_ANSWER);
        assert_eq!(lost(2, 4), None, "all of it is out");
        assert_eq!(lost(6, 0), None, "between two");
        assert_eq!(lost(7, 0), Some(PartialWrite { session: SESSION, chats: 1 }));
        assert_eq!(lost(11, 0), None, "main has it until it is confirmed");
        assert_eq!(lost(15, 0), None, "an answer is no chat");
    }

    #[test]
    fn one_object_is_never_too_much_and_two_are_when_the_other_one_is() {
        const LIMIT: usize = 10;
        let mut out = OutputBuffer::default();
        out.live(None, Source::Bytes, |b| b.extend([b'x'; 5 * LIMIT]));
        assert!(!out.is_over(LIMIT));
        out.plain(|b| b.extend([b'y'; LIMIT]));
        assert!(!out.is_over(LIMIT), "without the large one it is not over");
        out.plain(|b| b.push(b'y'));
        assert!(out.is_over(LIMIT));
        let mut written = Written::default();
        out.advance(1, &mut written);
        assert!(!out.is_over(LIMIT), "what is written does not wait");
        out.advance(out.len(), &mut written);
        (0..3).for_each(|_| out.live(None, Source::Bytes, |b| b.extend([b'z'; LIMIT])));
        assert!(out.is_over(LIMIT), "the large one is gone, and so is its allowance");
    }

    #[test]
    fn what_comes_from_the_box_is_not_charged() {
        let mut out = filled();
        assert_eq!(out.charged(), b"one\nanswer\ntwo\n".len());
        out.advance(out.len(), &mut Written::default());
        assert_eq!((out.charged(), out.len()), (0, 0));
        out.check_invariants();
    }

    #[test]
    fn news_is_not_charged_and_a_cut_drops_all_of_it_but_a_torn_event() {
        let mut out = OutputBuffer::default();
        out.presence(|b| b.extend(b"came\n"));
        out.presence(|b| b.extend(b"went\n"));
        assert_eq!(out.charged(), 0);
        let mut written = Written::default();
        out.advance(1, &mut written);
        assert_eq!(written.delivered, 0);
        assert!(out.cut(SESSION, false, &mut Written::default()).is_empty());
        assert_eq!((out.unsent(), out.charged()), (&b"ame\n"[..], 0));
        out.check_invariants();
    }

    fn written_out(len: usize, pool: &mut BufferPool) -> OutputBuffer {
        let mut out = OutputBuffer::default();
        out.borrow_buffer(pool);
        out.plain(|b| b.resize(len, b'x'));
        out.return_buffer(pool);
        assert_eq!(out.len(), len, "room in use stays");
        out.advance(len, &mut Written::default());
        out.return_buffer(pool);
        assert!(out.0.is_none());
        out
    }

    #[test]
    fn the_room_of_a_channel_without_output_serves_the_next() {
        let mut pool = BufferPool::default();
        let _quiet = written_out(100, &mut pool);
        assert_eq!(pool.0.len(), 1);
        let mut next = OutputBuffer::default();
        next.borrow_buffer(&mut pool);
        assert!(next.buffer().bytes.capacity() >= 100 && next.is_empty() && pool.0.is_empty());
        next.plain(|b| b.extend(b"y"));
        assert_eq!(next.unsent(), b"y");
        next.check_invariants();
    }

    #[test]
    fn large_rooms_and_too_many_rooms_are_freed() {
        let mut pool = BufferPool::default();
        written_out(KEEP_CAPACITY * 2, &mut pool);
        assert!(pool.0.is_empty());
        let full = (0..=POOL_MAX).map(|_| OutputBuffer(Some(Box::default())));
        full.for_each(|mut out| out.return_buffer(&mut pool));
        assert_eq!(pool.0.len(), POOL_MAX);
    }
}
