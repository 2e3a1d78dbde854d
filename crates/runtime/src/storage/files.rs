//! What a store asks of the disk, and the folder that gives it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::Failure;

/// Whoever holds it may use the folder. It is empty, and stays.
const LOCK: &str = "hearsay.lock";

/// One open file.
pub(super) trait Bytes: Send {
    fn len(&self) -> io::Result<u64>;
    /// Reads what is there from this place on, not more than fits; 0 at the end.
    fn read(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Writes all; after an error any part of it may be there.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written so far survives a loss of power.
    fn sync(&mut self) -> io::Result<()>;
}

/// One folder.
pub(super) trait Files: Send {
    /// `None`: it is not there.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Bytes>>>;
    /// An empty file, whatever was there.
    fn create(&self, name: &str) -> io::Result<Box<dyn Bytes>>;
    /// The file `to` is the file `from` from now on, or still its old self.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names given so far survive a loss of power.
    fn sync(&self) -> io::Result<()>;
}

impl Bytes for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(at))?;
        io::Read::read(self, out)
    }
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(at))?;
        self.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A folder, locked as long as this lives: the system takes the lock back from whoever dies.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it if it is not there, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Folder, Failure> {
        fs::create_dir_all(path).map_err(|error| Failure(format!("cannot be made: {error}")))?;
        // Folders just made have names too. One that may not be read cannot be synced.
        if cfg!(unix) {
            for folder in fs::canonicalize(path)?.ancestors().skip(1) {
                drop(File::open(folder).and_then(|folder| folder.sync_all()));
            }
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::new("is in use by another member or process")),
            Err(TryLockError::Error(error)) => Err(Failure(format!("cannot be locked: {error}"))),
        }
    }

    fn open_with(&self, name: &str, options: &mut OpenOptions) -> io::Result<Box<dyn Bytes>> {
        Ok(Box::new(options.read(true).write(true).open(self.path.join(name))?))
    }
}

impl Files for Folder {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Bytes>>> {
        match self.open_with(name, &mut OpenOptions::new()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn Bytes>> {
        self.open_with(name, OpenOptions::new().create(true).truncate(true))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
    fn sync(&self) -> io::Result<()> {
        // Windows opens no folder as a file, and keeps names in a journal of its own.
        if !cfg!(unix) {
            return Ok(());
        }
        match File::open(&self.path)?.sync_all() {
            // Some file systems sync no folders.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }
}
