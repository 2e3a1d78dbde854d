//! The optional store on disk: one redb file in a folder of the member's own.
//!
//! - `mod.rs` the file: opening, what it must hold, reading it whole, writing a batch
//! - `rows.rs` rows as bytes
//! - `writer.rs` the thread that answers `Output::Persist` with `handle_persisted`

mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hearsay_proto::image::{Own, Write};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    TableHandle,
};

use crate::error::Error;
use crate::handle::panic_text;

pub(crate) use writer::{Saved, Writer};

/// Name of the file in the folder.
const FILE: &str = "hearsay.redb";
/// Version of tables and rows.
const SCHEMA: u32 = 1;
/// Memory for pages of the file; the system caches the rest.
const CACHE_BYTES: usize = 16 << 20;
/// Rows read at a time.
const CHUNK: usize = 1_024;

/// One type of table keeps the code of redb in the addon small.
type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;
const META: Table = TableDefinition::new("hearsay.meta");
const MEMBERS: Table = TableDefinition::new("hearsay.members");
const ENTRIES: Table = TableDefinition::new("hearsay.entries");

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

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        use redb::Error as E;
        match error.into() {
            E::DatabaseAlreadyOpen | E::LockProtocolMismatch => {
                Failure::new("is in use by another member or process")
            }
            E::UpgradeRequired(version) => {
                Failure(format!("was written by another version (file format {version})"))
            }
            E::Corrupted(what) => Failure::damaged(what),
            E::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Failure::damaged(error),
            E::Io(error) => Failure(format!("cannot be read or written: {error}")),
            other => Failure(format!("cannot be read or written: {other}")),
        }
    }
}

/// What redb does with a file that is not what it was may be a panic.
fn guarded<T>(act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|payload| Err(Failure::damaged(panic_text(payload.as_ref()))))
}

/// Gives the database; `true`: make it if it is not there.
type Opener = Box<dyn Fn(bool) -> Result<Database, DatabaseError> + Send>;

/// The file, open and locked.
pub(crate) struct Store {
    path: PathBuf,
    label: String,
    opener: Opener,
    database: Option<Database>,
}

impl Store {
    /// Opens or makes the store of this cluster in a folder, which is made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`]: in use, read-only, full disk, not a store, of another version or cluster, damaged. The file is then as it was.
    pub(crate) fn open(folder: &Path, label: &str) -> Result<Store, Error> {
        let path = folder.join(FILE);
        let made = fs::create_dir_all(folder);
        made.map_err(|error| Failure(format!("cannot be made: {error}")).at(folder))?;
        let file = path.clone();
        let opener: Opener = Box::new(move |make| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            if make { builder.create(&file) } else { builder.open(&file) }
        });
        Store::with(path, label, opener)
    }

    fn with(path: PathBuf, label: &str, opener: Opener) -> Result<Store, Error> {
        let mut store = Store { path, label: label.to_owned(), opener, database: None };
        store.reopen(true).map_err(|failure| failure.at(&store.path))?;
        Ok(store)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file and opens it again: what redb asks for after an error of the disk. Without `make` it must be there.
    fn reopen(&mut self, make: bool) -> Result<(), Failure> {
        self.close();
        let database = guarded(|| {
            let database = (self.opener)(make)?;
            self.check(&database, make)?;
            Ok(database)
        })?;
        self.database = Some(database);
        Ok(())
    }

    /// Closes the file; another member may open it.
    fn close(&mut self) {
        let database = self.database.take();
        // Whatever closing says: what was committed is on the disk, and nothing else may be.
        drop(catch_unwind(AssertUnwindSafe(|| drop(database))));
    }

    fn database(&self) -> Result<&Database, Failure> {
        self.database.as_ref().ok_or_else(|| Failure::new("is closed"))
    }

    /// Is this a store of this version and cluster? A new one becomes so.
    fn check(&self, database: &Database, make: bool) -> Result<(), Failure> {
        let reading = database.begin_read()?;
        match reading.open_table(META) {
            Ok(meta) => {
                let schema = meta.get(&b"schema"[..])?.and_then(|row| row.value().first_chunk().copied());
                let schema = schema.map(u32::from_le_bytes);
                if schema != Some(SCHEMA) {
                    let found = schema.map_or("none".to_owned(), |found| found.to_string());
                    let text =
                        format!("was written by another version (schema {found}, this one has {SCHEMA})");
                    return Err(Failure(text));
                }
                let label = meta.get(&b"label"[..])?;
                let label = label.as_ref().map_or(&b""[..], |row| row.value());
                if label != self.label.as_bytes() {
                    let found = String::from_utf8_lossy(label);
                    return Err(Failure(format!("belongs to cluster '{found}', not '{}'", self.label)));
                }
                return Ok(());
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(other) = reading.list_tables()?.next() {
            return Err(Failure::damaged(format!("it holds a table '{}'", other.name())));
        }
        if !make {
            return Err(Failure::damaged("it is empty"));
        }
        drop(reading);
        let writing = database.begin_write()?;
        {
            let mut meta = writing.open_table(META)?;
            meta.insert(&b"schema"[..], &SCHEMA.to_le_bytes()[..])?;
            meta.insert(&b"label"[..], self.label.as_bytes())?;
            writing.open_table(MEMBERS)?;
            writing.open_table(ENTRIES)?;
        }
        writing.commit()?;
        Ok(())
    }

    /// The own row, if there is one. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn own(&self) -> Result<Option<Own>, Error> {
        let read = || -> Result<Option<Own>, Failure> {
            let meta = self.database()?.begin_read()?.open_table(META)?;
            let Some(row) = meta.get(&b"own"[..])? else { return Ok(None) };
            rows::own(row.value()).map(Some).ok_or_else(|| Failure::damaged("the own row"))
        };
        guarded(read).map_err(|failure| failure.at(&self.path))
    }

    /// All rows, some at a time. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn read(&self, mut chunk: impl FnMut(&[Write])) -> Result<(), Error> {
        let own = self.own()?;
        chunk(own.map(Write::Own).as_slice());
        let mut read = || -> Result<(), Failure> {
            let reading = self.database()?.begin_read()?;
            if let Some(row) = reading.open_table(META)?.get(&b"heard"[..])? {
                chunk(&[rows::heard(row.value()).ok_or_else(|| Failure::damaged("what was heard"))?]);
            }
            self.read_table(&reading, MEMBERS, rows::member, &mut chunk)?;
            self.read_table(&reading, ENTRIES, rows::entry, &mut chunk)
        };
        guarded(&mut read).map_err(|failure| failure.at(&self.path))
    }

    fn read_table(
        &self,
        reading: &redb::ReadTransaction,
        table: Table,
        parse: fn(&[u8], &[u8]) -> Option<Write>,
        chunk: &mut dyn FnMut(&[Write]),
    ) -> Result<(), Failure> {
        let mut rows = Vec::with_capacity(CHUNK);
        for row in reading.open_table(table)?.iter()? {
            let (key, value) = row?;
            let row = parse(key.value(), value.value());
            rows.push(row.ok_or_else(|| Failure::damaged(format!("a row of {}", table.name())))?);
            if rows.len() >= CHUNK {
                chunk(&rows);
                rows.clear();
            }
        }
        chunk(&rows);
        Ok(())
    }

    /// Writes these rows, all or none; they survive a loss of power when this returns. Blocks.
    pub(crate) fn write(&self, writes: &[Write]) -> Result<(), Failure> {
        guarded(|| {
            let writing = self.database()?.begin_write()?;
            {
                let mut meta = writing.open_table(META)?;
                let mut members = writing.open_table(MEMBERS)?;
                let mut entries = writing.open_table(ENTRIES)?;
                let mut row = Vec::new();
                for write in writes {
                    row.clear();
                    match write {
                        Write::Own(own) => {
                            rows::put_own(own, &mut row);
                            meta.insert(&b"own"[..], &row[..])?;
                        }
                        Write::Heard(table) => {
                            rows::put_heard(table, &mut row);
                            meta.insert(&b"heard"[..], &row[..])?;
                        }
                        Write::Member(member) => {
                            rows::put_member(member, &mut row);
                            members.insert(member.name.as_bytes(), &row[..])?;
                        }
                        Write::NoMember(name) => drop(members.remove(name.as_bytes())?),
                        Write::Entry { place, entry } => {
                            rows::put_entry(entry, &mut row);
                            entries.insert(&place.to_be_bytes()[..], &row[..])?;
                        }
                        Write::NoEntry { place } => drop(entries.remove(&place.to_be_bytes()[..])?),
                    }
                }
            }
            writing.commit()?;
            Ok(())
        })
    }

    /// As [`Store::write`], at a start.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn write_first(&self, writes: &[Write]) -> Result<(), Error> {
        self.write(writes).map_err(|failure| failure.at(&self.path))
    }
}
