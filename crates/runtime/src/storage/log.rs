//! The file: a log of batches, each whole or not there.
//!
//! ```text
//! 0      "hearsay\n" | version u32 | nonce u64 | label length u8 | label | zeros
//! 4096   mark u64 | check u64         8192  the other mark
//! 12288  batch*                       batch length u32 | check u64 | body
//! ```
//!
//! Numbers are little-endian. A check is the first 8 bytes of BLAKE3 over another check and what it covers: the other one is that of
//! the batch before; for the first batch and the marks it is that of the head, which is not written down. So a batch is valid only in
//! its place in its file. Before a batch is written, a mark says how far the file is known to be on the disk; the two marks are written
//! in turn, so that a torn one leaves the other. What does not check before the larger mark is damage; behind it, it is a batch that
//! nobody was told of, cut short by a crash.

use std::io::{self, BufReader, Read};

use super::Failure;
use super::files::Bytes;

const MAGIC: &[u8; 8] = b"hearsay\n";
/// Version of the file and its rows.
const VERSION: u32 = 1;
/// Bytes of the head that its check covers.
const HEAD: usize = 512;
/// Where the marks stand.
const MARKS: [u64; 2] = [4_096, 8_192];
/// Where the first batch stands.
pub(super) const FIRST: u64 = 12_288;
/// Length and check of a batch.
const FRAME: usize = 12;
/// Read at a time.
const BUFFER: usize = 256 << 10;

fn check(before: u64, bytes: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.to_le_bytes()).update(bytes);
    u64_at(hasher.finalize().as_bytes(), 0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Reads a file on from a place.
struct ReadFrom<'a> {
    bytes: &'a mut dyn Bytes,
    at: u64,
}

impl Read for ReadFrom<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(self.at, out)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What is done with a batch: the place of its body, and the body.
pub(super) type Each<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), Failure>;

/// The log, open.
pub(super) struct Log {
    bytes: Box<dyn Bytes>,
    /// Where the next batch goes, over whatever a crash or an error left there. All before it is on the disk.
    end: u64,
    /// Check of the batch before it.
    last: u64,
    /// Check of the head.
    head: u64,
    /// The mark to be written next.
    turn: usize,
}

impl Log {
    /// Begins an empty log. It is on the disk only after [`Log::settle`].
    pub(super) fn create(mut bytes: Box<dyn Bytes>, label: &str) -> Result<Log, Failure> {
        let nonce = getrandom::u64().map_err(io::Error::other)?;
        let short = u8::try_from(label.len()).map_err(|_| Failure::new("is of a label over 255 bytes"))?;
        let (version, nonce) = (VERSION.to_le_bytes(), nonce.to_le_bytes());
        let mut head = [&MAGIC[..], &version, &nonce, &[short], label.as_bytes()].concat();
        head.resize(HEAD, 0);
        let sum = check(0, &head);
        head.resize(FIRST as usize, 0);
        bytes.write(0, &head)?;
        Ok(Log { bytes, end: FIRST, last: sum, head: sum, turn: 0 })
    }

    /// Reads a log from its begin to its end. If nothing is wrong, all of it is on the disk when this returns; else nothing was
    /// written.
    pub(super) fn open(mut bytes: Box<dyn Bytes>, label: &str, each: Each<'_>) -> Result<Log, Failure> {
        let mut start = Vec::new();
        ReadFrom { bytes: &mut *bytes, at: 0 }.take(FIRST).read_to_end(&mut start)?;
        if start.len() < FIRST as usize || start[..8] != *MAGIC {
            return Err(Failure::damaged("it does not begin like one"));
        }
        let version = u64_at(&start, 8) as u32;
        if version != VERSION {
            let text = format!("was written by another version (format {version}, this one has {VERSION})");
            return Err(Failure(text));
        }
        let head = check(0, &start[..HEAD]);
        let found = &start[21..21 + usize::from(start[20])];
        if found != label.as_bytes() {
            let found = String::from_utf8_lossy(found);
            return Err(Failure(format!("belongs to cluster '{found}', not '{label}'")));
        }
        let marks = MARKS.map(|at| {
            let mark = u64_at(&start, at as usize);
            (u64_at(&start, at as usize + 8) == check(head, &mark.to_le_bytes())).then_some(mark)
        });
        let Some(mark) = marks.into_iter().flatten().max() else {
            return Err(Failure::damaged("its head, or both of its marks"));
        };
        let len = bytes.len()?;
        let (end, last) = scan(&mut *bytes, head, len, each)?;
        if end < mark {
            return Err(damaged_batch(end));
        }
        // What a sync failed to bring to the disk may still be read here, and later syncs say nothing of it. So what no mark covers
        // is written again, and so is the mark, before another covers the one or the other mark is touched.
        let mut tail = Vec::new();
        ReadFrom { bytes: &mut *bytes, at: mark }.take(end - mark).read_to_end(&mut tail)?;
        bytes.write(mark, &tail)?;
        let mut log = Log { bytes, end: mark, last, head, turn: usize::from(marks[1] == Some(mark)) };
        log.settle()?;
        log.end = end;
        Ok(log)
    }

    /// Bytes of the file, up to the end of its last batch.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// All batches again.
    pub(super) fn read(&mut self, each: Each<'_>) -> Result<(), Failure> {
        let (end, _) = scan(&mut *self.bytes, self.head, self.end, each)?;
        if end < self.end { Err(damaged_batch(end)) } else { Ok(()) }
    }

    /// Adds a batch. It survives a loss of power when this returns; after an error it is not there, and may be added again.
    pub(super) fn append(&mut self, body: &[u8]) -> io::Result<()> {
        self.mark()?;
        let (end, last) = self.put(body)?;
        self.sync()?;
        (self.end, self.last) = (end, last);
        Ok(())
    }

    /// Adds a batch that is not on the disk before [`Log::settle`] returns: for a file that nobody relies on yet.
    pub(super) fn append_lazily(&mut self, body: &[u8]) -> io::Result<()> {
        (self.end, self.last) = self.put(body)?;
        Ok(())
    }

    /// All is on the disk, and marked so.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.mark()?;
        self.sync()
    }

    fn mark(&mut self) -> io::Result<()> {
        let mark = self.end.to_le_bytes();
        self.bytes.write(MARKS[self.turn], &[mark, check(self.head, &mark).to_le_bytes()].concat())
    }

    /// The other mark is touched only when this one is on the disk.
    fn sync(&mut self) -> io::Result<()> {
        self.bytes.sync()?;
        self.turn = 1 - self.turn;
        Ok(())
    }

    /// Writes a batch at the end; the end behind it, and its check.
    fn put(&mut self, body: &[u8]) -> io::Result<(u64, u64)> {
        let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let sum = check(self.last, body);
        let frame = [&length.to_le_bytes(), &sum.to_le_bytes()[..], body].concat();
        self.bytes.write(self.end, &frame)?;
        Ok((self.end + frame.len() as u64, sum))
    }
}

fn damaged_batch(at: u64) -> Failure {
    Failure::damaged(format!("the batch at byte {at}"))
}

/// Reads batches up to the first that does not check; where that stands, and the check of the last that does.
fn scan(bytes: &mut dyn Bytes, head: u64, len: u64, each: Each<'_>) -> Result<(u64, u64), Failure> {
    let mut reader = BufReader::with_capacity(BUFFER, ReadFrom { bytes, at: FIRST });
    let (mut at, mut last, mut body) = (FIRST, head, Vec::new());
    while let Some(rest) = len.checked_sub(at + FRAME as u64) {
        let mut frame = [0; FRAME];
        reader.read_exact(&mut frame)?;
        let (length, sum) = (u64_at(&frame, 0) as u32, u64_at(&frame, 4));
        if u64::from(length) > rest {
            break;
        }
        body.resize(length as usize, 0);
        reader.read_exact(&mut body)?;
        if sum != check(last, &body) {
            break;
        }
        each(at + FRAME as u64, &body)?;
        at += FRAME as u64 + u64::from(length);
        last = sum;
    }
    Ok((at, last))
}
