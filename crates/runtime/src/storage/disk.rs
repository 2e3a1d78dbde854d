//! A disk in memory whose errors and losses of power a test decides.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{Bytes, Files};

/// Bytes for a place, not on the disk yet.
#[derive(Clone, Debug)]
struct Change(usize, Vec<u8>);

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let Change(at, part) = self;
        bytes.resize(bytes.len().max(at + part.len()), 0);
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    synced: Vec<u8>,
    waiting: Vec<Change>,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.waiting.push(change);
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: Vec<BTreeMap<String, usize>>,
    is_full: bool,
    /// Changes until one fails; after it all do, if `is_cut`.
    left: Option<u64>,
    is_cut: bool,
}

impl State {
    fn try_change(&mut self) -> io::Result<()> {
        let fails = match &mut self.left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if fails && !self.is_cut {
            self.left = None;
        }
        if fails || self.is_full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

struct Open {
    disk: Disk,
    inode: usize,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Every change fails while it is full.
    pub(super) fn fill(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// After so many changes one fails, or all from then on.
    pub(super) fn fail_after(&self, changes: u64, is_cut: bool) {
        let mut state = self.state();
        (state.left, state.is_cut) = (Some(changes), is_cut);
    }

    /// The process was killed: what it wrote is there, synced or not.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        (state.left, state.is_cut) = (None, false);
    }

    /// The power went: of what was not synced any part is there, by these dice (each from 0 to below its argument).
    pub(super) fn lose_power(&self, mut dice: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        (state.left, state.is_cut, state.is_full) = (None, false, false);
        let names = state.names.clone();
        state.synced_names.push(names);
        let kept = dice(state.synced_names.len());
        state.names = state.synced_names.swap_remove(kept);
        state.synced_names = vec![state.names.clone()];
        for inode in &mut state.inodes {
            let mut bytes = std::mem::take(&mut inode.synced);
            for change in inode.waiting.drain(..) {
                match (dice(3), change) {
                    (0, _) => {}
                    (1, Change(at, part)) => {
                        let (from, to) = (dice(part.len() + 1), dice(part.len() + 1));
                        let (from, to) = (from.min(to), from.max(to));
                        Change(at + from, part[from..to].to_vec()).apply(&mut bytes);
                    }
                    (_, change) => change.apply(&mut bytes),
                }
            }
            (inode.seen, inode.synced) = (bytes.clone(), bytes);
        }
    }

    /// How long a file is.
    pub(super) fn len(&self, name: &str) -> Option<usize> {
        let state = self.state();
        state.names.get(name).map(|&inode| state.inodes[inode].seen.len())
    }

    /// Cuts a file short.
    pub(super) fn cut(&self, name: &str, len: usize) {
        let mut state = self.state();
        let inode = state.names[name];
        let inode = &mut state.inodes[inode];
        inode.seen.truncate(len);
        inode.synced.truncate(len);
    }
}

impl Open {
    fn act<T>(&self, act: impl FnOnce(&mut Inode) -> T) -> T {
        act(&mut self.disk.state().inodes[self.inode])
    }

    /// Is there power, and room? And is it the power?
    fn try_change(&self) -> (io::Result<()>, bool) {
        let mut state = self.disk.state();
        (state.try_change(), state.is_cut)
    }
}

impl Bytes for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(self.act(|inode| inode.seen.len() as u64))
    }
    fn read(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.act(|inode| {
            let rest = inode.seen.get(at as usize..).unwrap_or_default();
            let bytes = rest.len().min(out.len());
            out[..bytes].copy_from_slice(&rest[..bytes]);
            Ok(bytes)
        })
    }
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (tried, _) = self.try_change();
        // Half of it, if it fails.
        let part = if tried.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.act(|inode| inode.change(Change(at as usize, part.to_vec())));
        tried
    }
    fn sync(&mut self) -> io::Result<()> {
        let (tried, is_cut) = self.try_change();
        self.act(|inode| match (&tried, is_cut) {
            (Ok(()), _) => {
                let waiting = std::mem::take(&mut inode.waiting);
                waiting.iter().for_each(|change| change.apply(&mut inode.synced));
            }
            (Err(_), true) => {}
            // As Linux does: what could not be written counts as written from then on.
            (Err(_), false) => inode.waiting.clear(),
        });
        tried
    }
}

impl Files for Disk {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Bytes>>> {
        let inode = self.state().names.get(name).copied();
        Ok(inode.map(|inode| Box::new(Open { disk: self.clone(), inode }) as Box<dyn Bytes>))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn Bytes>> {
        let mut state = self.state();
        state.try_change()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change_names(|names| {
            names.insert(name.to_owned(), inode);
        });
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.try_change()?;
        state.change_names(|names| {
            let inode = names.remove(from).unwrap();
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.try_change()?;
        state.change_names(|names| {
            names.remove(name);
        });
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.try_change()?;
        state.synced_names = vec![state.names.clone()];
        Ok(())
    }
}

impl State {
    /// Any state since the last sync may be the one found after a loss of power.
    fn change_names(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        if self.synced_names.is_empty() {
            self.synced_names.push(BTreeMap::new());
        }
        change(&mut self.names);
        let names = self.names.clone();
        self.synced_names.push(names);
    }
}
