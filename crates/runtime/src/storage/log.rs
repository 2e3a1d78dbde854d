//! The file: a log of batches, each whole or not there.
//!
//! ```text
//! 0     "hearsay\n" | version u32 | label length u8 | label | zeros to 504 | check u64
//! 512   mark u64 | check u64         1024  the other mark
//! 4096  batch*                       batch  length u32 | check u64 | body
//! ```
//!
//! Numbers are little-endian. A check is the first 8 bytes of BLAKE3 over the place in the file and what it covers, so a batch is
//! valid only where it was written. Before a batch is written, a mark says how far the file is known to be on the disk; the two marks are
//! written in turn, so that a torn one leaves the other. What does not check before the larger mark is damage; behind it, it is
//! a batch that nobody was told of, cut short by a crash.

use std::io::{self, BufReader, Read};

use super::Failure;
use super::files::Bytes;

const MAGIC: &[u8; 8] = b"hearsay\n";
/// Version of the file and its rows.
pub(super) const VERSION: u32 = 1;
/// Where the check of the head stands.
const HEAD: usize = 504;
/// Where the marks stand.
const MARKS: [u64; 2] = [512, 1_024];
/// Where the first batch stands.
const FIRST: u64 = 4_096;
/// Length and check of a batch.
const FRAME: usize = 12;
/// Read at a time.
const BUFFER: usize = 256 << 10;

fn check(at: u64, bytes: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&at.to_le_bytes()).update(bytes);
    let mut out = [0; 8];
    hasher.finalize_xof().fill(&mut out);
    u64::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Reads a file on from a place.
struct From<'a> {
    bytes: &'a mut dyn Bytes,
    at: u64,
}

impl Read for From<'_> {
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
    /// The mark to be written next.
    turn: usize,
}

impl Log {
    /// Begins an empty log. It is on the disk only after [`Log::settle`].
    pub(super) fn create(bytes: Box<dyn Bytes>, label: &str) -> Result<Log, Failure> {
        let mut head = vec![0; FIRST as usize];
        let short = u8::try_from(label.len()).map_err(|_| Failure::new("is of a label over 255 bytes"))?;
        let fields = [&MAGIC[..], &VERSION.to_le_bytes(), &[short], label.as_bytes()].concat();
        head[..fields.len()].copy_from_slice(&fields);
        let sum = check(0, &head[..HEAD]);
        head[HEAD..HEAD + 8].copy_from_slice(&sum.to_le_bytes());
        let mut log = Log { bytes, end: FIRST, turn: 0 };
        log.bytes.write(0, &head)?;
        log.mark()?;
        Ok(log)
    }

    /// Reads a log from its begin to its end. Nothing is written.
    pub(super) fn open(mut bytes: Box<dyn Bytes>, label: &str, each: Each<'_>) -> Result<Log, Failure> {
        let mut head = Vec::new();
        From { bytes: &mut *bytes, at: 0 }.take(FIRST).read_to_end(&mut head)?;
        if head.len() < FIRST as usize || head[..8] != *MAGIC {
            return Err(Failure::damaged("it does not begin like one"));
        }
        let version = u64_at(&head, 8) as u32;
        if version != VERSION {
            let text = format!("was written by another version (format {version}, this one has {VERSION})");
            return Err(Failure(text));
        }
        if u64_at(&head, HEAD) != check(0, &head[..HEAD]) {
            return Err(Failure::damaged("its head"));
        }
        let found = &head[13..13 + usize::from(head[12])];
        if found != label.as_bytes() {
            let found = String::from_utf8_lossy(found);
            return Err(Failure(format!("belongs to cluster '{found}', not '{label}'")));
        }
        let marks = MARKS.map(|at| {
            let mark = u64_at(&head, at as usize);
            let is_whole = u64_at(&head, at as usize + 8) == check(at, &mark.to_le_bytes());
            is_whole.then_some(mark)
        });
        let Some(mark) = marks.into_iter().flatten().max() else {
            return Err(Failure::damaged("both of its marks"));
        };
        let len = bytes.len()?;
        let end = scan(&mut *bytes, len, each)?;
        if end < mark {
            return Err(Failure::damaged(format!("the batch at byte {end}")));
        }
        // Before a mark may cover it.
        if end > mark {
            bytes.sync()?;
        }
        let turn = usize::from(marks[0] == Some(mark));
        Ok(Log { bytes, end, turn })
    }

    /// Bytes of the file, up to the end of its last batch.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// All batches again.
    pub(super) fn read(&mut self, each: Each<'_>) -> Result<(), Failure> {
        let end = scan(&mut *self.bytes, self.end, each)?;
        if end < self.end {
            return Err(Failure::damaged(format!("the batch at byte {end}")));
        }
        Ok(())
    }

    /// Adds a batch. It survives a loss of power when this returns; after an error it is not there, and may be added again.
    pub(super) fn append(&mut self, body: &[u8]) -> io::Result<()> {
        self.mark()?;
        let end = self.put(body)?;
        self.sync()?;
        self.end = end;
        Ok(())
    }

    /// Adds a batch that is not on the disk before [`Log::settle`] returns: for a file that nobody relies on yet.
    pub(super) fn append_lazily(&mut self, body: &[u8]) -> io::Result<()> {
        self.end = self.put(body)?;
        Ok(())
    }

    /// All is on the disk, and marked so.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.mark()?;
        self.sync()
    }

    fn mark(&mut self) -> io::Result<()> {
        let (at, mark) = (MARKS[self.turn], self.end.to_le_bytes());
        self.bytes.write(at, &[mark, check(at, &mark).to_le_bytes()].concat())
    }

    /// The other mark is touched only when this one is on the disk.
    fn sync(&mut self) -> io::Result<()> {
        self.bytes.sync()?;
        self.turn = 1 - self.turn;
        Ok(())
    }

    fn put(&mut self, body: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut frame = Vec::with_capacity(FRAME + body.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&check(self.end, body).to_le_bytes());
        frame.extend_from_slice(body);
        self.bytes.write(self.end, &frame)?;
        Ok(self.end + frame.len() as u64)
    }
}

/// Reads batches up to the first that does not check; where that stands.
fn scan(bytes: &mut dyn Bytes, len: u64, each: Each<'_>) -> Result<u64, Failure> {
    let mut reader = BufReader::with_capacity(BUFFER, From { bytes, at: FIRST });
    let (mut at, mut body) = (FIRST, Vec::new());
    while let Some(rest) = len.checked_sub(at + FRAME as u64) {
        let mut frame = [0; FRAME];
        reader.read_exact(&mut frame)?;
        let length = u64_at(&frame, 0) as u32;
        if u64::from(length) > rest {
            break;
        }
        body.resize(length as usize, 0);
        reader.read_exact(&mut body)?;
        if u64_at(&frame, 4) != check(at, &body) {
            break;
        }
        each(at + FRAME as u64, &body)?;
        at += FRAME as u64 + u64::from(length);
    }
    Ok(at)
}
