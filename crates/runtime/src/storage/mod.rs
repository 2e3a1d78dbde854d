//! The optional store on disk: a log in a folder of the member's own, rewritten when half of it no longer holds.
//!
//! The state is in memory anyway; the file is read once, at a start. So rows are only ever added, a batch costs two writes and one
//! sync, and the rows that hold are copied to a new file now and then.
//!
//! - `mod.rs` the store: opening, reading it whole, writing a batch, rewriting the file
//! - `log.rs` the file: batches, each whole or not there
//! - `rows.rs` rows as bytes, and which of them hold
//! - `files.rs` the folder, and what else can stand for it
//! - `writer.rs` the thread that answers `Output::Persist` with `handle_persisted`

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod disk;
mod files;
mod log;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use hearsay_proto::image::{Own, Write};

use crate::error::Error;
use files::{Files, Folder};
use log::Log;
use rows::{Index, Row};

pub(crate) use writer::{Saved, Writer};

/// Name of the file in the folder.
const FILE: &str = "hearsay.log";
/// Name of the file that is to take its place.
const NEXT: &str = "hearsay.next";
/// Rows read at a time.
const CHUNK: usize = 1_024;
/// Bytes of rows copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// A file is rewritten when it has twice the bytes that held when it was read or written last, and these.
const SLACK_BYTES: u64 = 1 << 20;

/// Why the file cannot be used, in words that begin small: the path goes before them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }

    fn damaged(what: impl std::fmt::Display) -> Failure {
        Failure(format!("is damaged, or no store of hearsay: {what}"))
    }

    pub(crate) fn at(self, path: &Path) -> Error {
        Error::Storage { path: path.to_path_buf(), cause: self.0 }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure(format!("cannot be read or written: {error}"))
    }
}

/// The file, open and locked.
pub(crate) struct Store {
    path: PathBuf,
    label: String,
    files: Box<dyn Files>,
    /// `None` after an error from which it has to be opened again.
    log: Option<Log>,
    /// Which rows hold, as long as nothing was written since that was found out.
    index: Option<Index>,
    /// From this size on the file is rewritten.
    rewrite_at: u64,
    /// The name of the file is not known to be on the disk.
    is_name_due: bool,
}

impl Store {
    /// Opens or makes the store of this cluster in a folder, which is made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`]: in use, read-only, full disk, not a store, of another version or cluster, damaged. The file is then as it was.
    pub(crate) fn open(folder: &Path, label: &str) -> Result<Store, Error> {
        let locked = Folder::lock(folder).map_err(|failure| failure.at(folder))?;
        Store::with(folder.join(FILE), label, Box::new(locked))
    }

    fn with(path: PathBuf, label: &str, files: Box<dyn Files>) -> Result<Store, Error> {
        let label = label.to_owned();
        let mut store =
            Store { path, label, files, log: None, index: None, rewrite_at: 0, is_name_due: false };
        let opened = match store.open_file() {
            Ok(None) => store.make(),
            Ok(Some(log)) => Ok(log),
            Err(failure) => Err(failure),
        };
        store.log = Some(opened.map_err(|failure| failure.at(&store.path))?);
        Ok(store)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, if it is there, and finds out which rows hold.
    fn open_file(&mut self) -> Result<Option<Log>, Failure> {
        let Some(bytes) = self.files.open(FILE)? else { return Ok(None) };
        let mut index = Index::default();
        let log = Log::open(bytes, &self.label, &mut |at, body| note(&mut index, at, body))?;
        self.index = Some(index);
        // What a crash left of a rewriting.
        drop(self.files.remove(NEXT));
        self.begin(&log);
        Ok(Some(log))
    }

    /// A new file, without rows.
    fn make(&mut self) -> Result<Log, Failure> {
        let mut log = Log::create(self.files.create(NEXT)?, &self.label)?;
        log.settle()?;
        self.files.rename(NEXT, FILE)?;
        self.begin(&log);
        Ok(log)
    }

    fn begin(&mut self, log: &Log) {
        self.rewrite_at = log.end() * 2 + SLACK_BYTES;
        // Also that of a file found: who gave it may have been killed before the sync.
        self.is_name_due = true;
    }

    /// The log, opened again if it has to be.
    fn log(&mut self) -> Result<&mut Log, Failure> {
        let log = match self.log.take() {
            Some(log) => log,
            None => self.open_file()?.ok_or_else(|| Failure::new("is gone"))?,
        };
        Ok(self.log.insert(log))
    }

    /// Which rows hold: as known, or found out.
    fn take_index(&mut self) -> Result<Index, Failure> {
        self.log()?;
        if let Some(index) = self.index.take() {
            return Ok(index);
        }
        let mut index = Index::default();
        self.log()?.read(&mut |at, body| note(&mut index, at, body))?;
        Ok(index)
    }

    /// The own row, if there is one. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn own(&mut self) -> Result<Option<Own>, Error> {
        let index = self.take_index().map_err(|failure| failure.at(&self.path))?;
        let own = index.single().into_iter().find_map(|row| match row {
            Write::Own(own) => Some(own),
            _ => None,
        });
        self.index = Some(index);
        Ok(own)
    }

    /// All rows, some at a time, the own one first. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn read(&mut self, chunk: impl FnMut(&[Write])) -> Result<(), Error> {
        self.read_chunks(chunk).map_err(|failure| failure.at(&self.path))
    }

    fn read_chunks(&mut self, mut chunk: impl FnMut(&[Write])) -> Result<(), Failure> {
        let index = self.take_index()?;
        chunk(&index.single());
        let (mut rows, mut held_bytes) = (Vec::with_capacity(CHUNK), 0);
        self.read_held(&index, &mut |row| {
            held_bytes += row.bytes.len() as u64;
            match row.parse()? {
                Write::Own(_) | Write::Heard(_) => {}
                row => rows.push(row),
            }
            if rows.len() >= CHUNK {
                chunk(&rows);
                rows.clear();
            }
            Some(())
        })?;
        chunk(&rows);
        self.rewrite_at = held_bytes * 2 + SLACK_BYTES;
        Ok(())
    }

    fn read_held(
        &mut self,
        index: &Index,
        act: &mut dyn FnMut(&Row<'_>) -> Option<()>,
    ) -> Result<(), Failure> {
        self.log()?.read(&mut |at, body| {
            let each = rows::each(at, body, |at, row| if index.has(at, row) { act(row) } else { Some(()) });
            each.ok_or_else(|| damaged_row(at))
        })
    }

    /// Writes these rows, all or none; they survive a loss of power when this returns. After an error they may be written again.
    /// Blocks.
    pub(crate) fn write(&mut self, writes: &[Write]) -> Result<(), Failure> {
        let mut body = Vec::new();
        writes.iter().for_each(|write| rows::put(write, &mut body));
        let end = self.log()?.end();
        if end >= self.rewrite_at {
            let index = self.take_index()?;
            if self.rewrite(&index).is_err() {
                // The old file still does. Perhaps there is room for another one later.
                drop(self.files.remove(NEXT));
                self.log()?;
                self.rewrite_at = end + end / 4;
            }
        }
        if self.is_name_due {
            self.files.sync()?;
            self.is_name_due = false;
        }
        self.index = None;
        self.log()?.append(&body)?;
        Ok(())
    }

    /// As [`Store::write`], at a start.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn write_first(&mut self, writes: &[Write]) -> Result<(), Error> {
        self.write(writes).map_err(|failure| failure.at(&self.path))
    }

    /// Copies the rows that hold to a new file, which takes the place of the old one.
    fn rewrite(&mut self, index: &Index) -> Result<(), Failure> {
        let mut next = Log::create(self.files.create(NEXT)?, &self.label)?;
        let mut body = Vec::new();
        self.read_held(index, &mut |row| {
            body.extend_from_slice(row.bytes);
            if body.len() >= COPY_BYTES {
                next.append_lazily(&body).ok()?;
                body.clear();
            }
            Some(())
        })?;
        next.append_lazily(&body)?;
        next.settle()?;
        // Some systems do not replace a file that is open.
        self.log = None;
        self.files.rename(NEXT, FILE)?;
        self.begin(&next);
        self.log = Some(next);
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(log) = &mut self.log {
            // Whatever comes of it: what was written is on the disk, and only damage at its very end would be found no more.
            drop(log.settle());
        }
    }
}

/// Takes note of the rows of a batch.
fn note(index: &mut Index, at: u64, body: &[u8]) -> Result<(), Failure> {
    rows::each(at, body, |at, row| index.note(at, row)).ok_or_else(|| damaged_row(at))
}

fn damaged_row(at: u64) -> Failure {
    Failure::damaged(format!("a row of the batch at byte {at}"))
}
