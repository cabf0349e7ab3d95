//! The file system without FUSE: files, names, and what a power cut makes of them. Errors carry the errno that the caller gets.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::CutFile;
use super::names::{Directory, Ino, NameStep, Names, ROOT};
use super::{CutMode, CutReport};
use crate::torture::random::Random;

pub struct State {
    backing: PathBuf,
    names: Names,
    files: HashMap<Ino, OpenCount>,
    attributes: HashMap<Ino, Attributes>,
    next: Ino,
}

struct OpenCount {
    file: CutFile,
    open: u32,
}

/// What `stat` shows beyond the size; not subject to cuts.
#[derive(Clone, Copy)]
pub struct Attributes {
    pub directory: bool,
    /// Permission bits.
    pub mode: u16,
    pub modified: SystemTime,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl State {
    pub fn new(backing: &Path) -> io::Result<State> {
        if std::fs::read_dir(backing)?.next().is_some() {
            return Err(io::Error::other(format!("{} is not empty", backing.display())));
        }
        let root = Attributes { directory: true, mode: 0o755, modified: SystemTime::now() };
        Ok(State {
            backing: backing.to_owned(),
            names: Names::new(),
            files: HashMap::new(),
            attributes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
        })
    }

    pub fn attributes(&self, ino: Ino) -> io::Result<Attributes> {
        self.attributes.get(&ino).copied().ok_or_else(|| errno(libc::ENOENT))
    }

    /// 0 for a directory.
    pub fn size(&self, ino: Ino) -> u64 {
        self.files.get(&ino).map_or(0, |entry| entry.file.size())
    }

    pub fn set_mode(&mut self, ino: Ino, mode: u16) -> io::Result<()> {
        self.attributes.get_mut(&ino).ok_or_else(|| errno(libc::ENOENT))?.mode = mode;
        Ok(())
    }

    pub fn set_modified(&mut self, ino: Ino, modified: SystemTime) -> io::Result<()> {
        self.attributes.get_mut(&ino).ok_or_else(|| errno(libc::ENOENT))?.modified = modified;
        Ok(())
    }

    pub fn set_size(&mut self, ino: Ino, size: u64) -> io::Result<()> {
        self.file(ino)?.set_size(size)?;
        self.set_modified(ino, SystemTime::now())
    }

    pub fn lookup(&self, directory: Ino, name: &OsStr) -> io::Result<Ino> {
        self.directory(directory)?.current.get(name).copied().ok_or_else(|| errno(libc::ENOENT))
    }

    /// Names with their numbers, in byte order.
    pub fn list(&self, directory: Ino) -> io::Result<Vec<(OsString, Ino)>> {
        Ok(self.directory(directory)?.current.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    pub fn create_file(&mut self, directory: Ino, name: &OsStr, mode: u16) -> io::Result<Ino> {
        self.free_name(directory, name)?;
        let ino = self.next;
        let backing = OpenOptions::new().read(true).write(true).create_new(true).open(self.backing_path(ino))?;
        self.files.insert(ino, OpenCount { file: CutFile::new(backing), open: 0 });
        self.add(directory, name, ino, Attributes { directory: false, mode, modified: SystemTime::now() });
        Ok(ino)
    }

    pub fn create_directory(&mut self, directory: Ino, name: &OsStr, mode: u16) -> io::Result<Ino> {
        self.free_name(directory, name)?;
        let ino = self.next;
        self.names.directories.insert(ino, Directory::default());
        self.add(directory, name, ino, Attributes { directory: true, mode, modified: SystemTime::now() });
        Ok(ino)
    }

    pub fn link(&mut self, ino: Ino, directory: Ino, name: &OsStr) -> io::Result<()> {
        self.free_name(directory, name)?;
        if self.attributes(ino)?.directory {
            return Err(errno(libc::EPERM));
        }
        self.names.take(NameStep::Link { directory, name: name.to_owned(), ino });
        Ok(())
    }

    pub fn unlink(&mut self, directory: Ino, name: &OsStr) -> io::Result<()> {
        let ino = self.lookup(directory, name)?;
        if self.attributes(ino)?.directory {
            return Err(errno(libc::EISDIR));
        }
        self.names.take(NameStep::Unlink { directory, name: name.to_owned() });
        Ok(())
    }

    pub fn remove_directory(&mut self, directory: Ino, name: &OsStr) -> io::Result<()> {
        let ino = self.lookup(directory, name)?;
        if !self.attributes(ino)?.directory {
            return Err(errno(libc::ENOTDIR));
        }
        if !self.directory(ino)?.current.is_empty() {
            return Err(errno(libc::ENOTEMPTY));
        }
        self.names.take(NameStep::Unlink { directory, name: name.to_owned() });
        Ok(())
    }

    /// With `replace` an existing target goes, as rename(2) says; without it EEXIST.
    pub fn rename(&mut self, from: Ino, name: &OsStr, to: Ino, new_name: &OsStr, replace: bool) -> io::Result<()> {
        let ino = self.lookup(from, name)?;
        match self.lookup(to, new_name) {
            Ok(target) if target == ino => return Ok(()),
            Ok(_) if !replace => return Err(errno(libc::EEXIST)),
            Ok(target) => match (self.attributes(ino)?.directory, self.attributes(target)?.directory) {
                (false, true) => return Err(errno(libc::EISDIR)),
                (true, false) => return Err(errno(libc::ENOTDIR)),
                (true, true) if !self.directory(target)?.current.is_empty() => return Err(errno(libc::ENOTEMPTY)),
                _ => {}
            },
            Err(_) => drop(self.directory(to)?),
        }
        self.names.take(NameStep::Rename { from, name: name.to_owned(), to, new_name: new_name.to_owned(), ino });
        Ok(())
    }

    pub fn open(&mut self, ino: Ino) -> io::Result<()> {
        self.files.get_mut(&ino).ok_or_else(|| errno(libc::ENOENT))?.open += 1;
        Ok(())
    }

    pub fn release(&mut self, ino: Ino) {
        if let Some(entry) = self.files.get_mut(&ino) {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    pub fn read(&mut self, ino: Ino, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file(ino)?.read(offset, into)
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file(ino)?.write(offset, data)?;
        self.set_modified(ino, SystemTime::now())
    }

    pub fn sync_file(&mut self, ino: Ino) -> io::Result<()> {
        self.file(ino)?.sync();
        Ok(())
    }

    pub fn sync_directory(&mut self, ino: Ino) -> io::Result<()> {
        self.directory(ino)?;
        self.names.sync(ino);
        self.collect()
    }

    /// The power is gone. Nothing may be open.
    pub fn cut(&mut self, mode: CutMode, random: &mut Random) -> io::Result<CutReport> {
        let mut report = CutReport::default();
        let pending = self.names.pending();
        let kept = match mode {
            CutMode::Everything | CutMode::Names => 0,
            CutMode::DataOnly => pending,
            CutMode::Pages | CutMode::Sectors => random.within(0, pending as u64) as usize,
        };
        report.names_kept = kept as u64;
        report.names_lost = self.names.cut(kept) as u64;
        let mut inos: Vec<Ino> = self.files.keys().copied().collect();
        // By number, so that the same seed makes the same choices.
        inos.sort_unstable();
        for ino in inos {
            let entry = self.files.get_mut(&ino).ok_or_else(|| errno(libc::ENOENT))?;
            entry.open = 0;
            entry.file.cut(mode, random, &mut report)?;
        }
        self.collect()?;
        Ok(report)
    }

    fn add(&mut self, directory: Ino, name: &OsStr, ino: Ino, attributes: Attributes) {
        self.next += 1;
        self.attributes.insert(ino, attributes);
        self.names.take(NameStep::Link { directory, name: name.to_owned(), ino });
    }

    /// Frees what no name, now or on disk, leads to and nobody has open.
    fn collect(&mut self) -> io::Result<()> {
        let reachable = self.names.reachable();
        self.names.directories.retain(|ino, _| reachable.contains(ino));
        let gone: Vec<Ino> = self
            .files
            .iter()
            .filter(|(ino, entry)| entry.open == 0 && !reachable.contains(ino))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in gone {
            self.files.remove(&ino);
            std::fs::remove_file(self.backing_path(ino))?;
        }
        let (files, directories) = (&self.files, &self.names.directories);
        self.attributes.retain(|ino, _| files.contains_key(ino) || directories.contains_key(ino));
        Ok(())
    }

    fn backing_path(&self, ino: Ino) -> PathBuf {
        self.backing.join(ino.to_string())
    }

    fn file(&mut self, ino: Ino) -> io::Result<&mut CutFile> {
        match self.files.get_mut(&ino) {
            Some(entry) => Ok(&mut entry.file),
            None if self.names.directories.contains_key(&ino) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn directory(&self, ino: Ino) -> io::Result<&Directory> {
        match self.names.directories.get(&ino) {
            Some(directory) => Ok(directory),
            None if self.files.contains_key(&ino) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn free_name(&self, directory: Ino, name: &OsStr) -> io::Result<()> {
        if self.directory(directory)?.current.contains_key(name) {
            return Err(errno(libc::EEXIST));
        }
        Ok(())
    }

    /// How many backing files there are: what is really freed, for tests.
    #[cfg(test)]
    fn backing_files(&self) -> usize {
        std::fs::read_dir(&self.backing).expect("the backing directory").count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let backing = tempfile::tempdir().expect("a temporary directory");
        let state = State::new(backing.path()).expect("empty");
        (backing, state)
    }

    fn cut(state: &mut State, mode: CutMode) -> CutReport {
        state.cut(mode, &mut Random::new(7)).expect("cut")
    }

    fn code<T>(result: io::Result<T>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_synced_file_without_its_name_is_lost_and_freed() {
        let (_backing, mut state) = state();
        let ino = state.create_file(ROOT, OsStr::new("a"), 0o644).expect("create");
        state.write(ino, 0, b"bytes").expect("write");
        state.sync_file(ino).expect("sync");
        assert_eq!(cut(&mut state, CutMode::Everything).names_lost, 1);
        assert_eq!(code(state.lookup(ROOT, OsStr::new("a"))), Some(libc::ENOENT));
        assert_eq!(state.backing_files(), 0);
    }

    #[test]
    fn a_name_without_synced_bytes_is_an_empty_file() {
        let (_backing, mut state) = state();
        let ino = state.create_file(ROOT, OsStr::new("a"), 0o644).expect("create");
        state.write(ino, 0, b"bytes").expect("write");
        state.sync_directory(ROOT).expect("sync");
        cut(&mut state, CutMode::Everything);
        assert_eq!(state.lookup(ROOT, OsStr::new("a")).ok(), Some(ino));
        assert_eq!(state.size(ino), 0);
    }

    #[test]
    fn an_unlinked_file_lives_while_open_and_while_its_name_is_on_disk() {
        let (_backing, mut state) = state();
        let ino = state.create_file(ROOT, OsStr::new("a"), 0o644).expect("create");
        state.sync_directory(ROOT).expect("sync");
        state.open(ino).expect("open");
        state.unlink(ROOT, OsStr::new("a")).expect("unlink");
        state.sync_directory(ROOT).expect("sync");
        assert_eq!(state.backing_files(), 1, "still open");
        state.release(ino);
        state.sync_directory(ROOT).expect("sync");
        assert_eq!(state.backing_files(), 0);

        let ino = state.create_file(ROOT, OsStr::new("b"), 0o644).expect("create");
        state.write(ino, 0, b"bytes").expect("write");
        state.sync_file(ino).expect("sync");
        state.sync_directory(ROOT).expect("sync");
        state.unlink(ROOT, OsStr::new("b")).expect("unlink");
        cut(&mut state, CutMode::Everything);
        assert_eq!(state.size(state.lookup(ROOT, OsStr::new("b")).expect("the unlink was lost")), 5);
    }

    #[test]
    fn a_removed_tree_is_freed_once_its_parent_is_synced() {
        let (_backing, mut state) = state();
        let directory = state.create_directory(ROOT, OsStr::new("d"), 0o755).expect("create");
        let ino = state.create_file(directory, OsStr::new("a"), 0o644).expect("create");
        state.sync_directory(ROOT).expect("sync");
        state.sync_directory(directory).expect("sync");
        assert_eq!(code(state.remove_directory(ROOT, OsStr::new("d"))), Some(libc::ENOTEMPTY));
        state.unlink(directory, OsStr::new("a")).expect("unlink");
        state.remove_directory(ROOT, OsStr::new("d")).expect("remove");
        assert_eq!(state.backing_files(), 1, "on disk the tree is still there");
        state.sync_directory(ROOT).expect("sync");
        assert_eq!(state.backing_files(), 0);
        assert_eq!(code(state.attributes(ino)), Some(libc::ENOENT));
        assert_eq!(code(state.attributes(directory)), Some(libc::ENOENT));
    }

    #[test]
    fn renames_answer_as_rename_2_does() {
        let (_backing, mut state) = state();
        let a = state.create_file(ROOT, OsStr::new("a"), 0o644).expect("create");
        state.create_file(ROOT, OsStr::new("b"), 0o644).expect("create");
        let directory = state.create_directory(ROOT, OsStr::new("d"), 0o755).expect("create");
        let mut rename = |name: &str, to: Ino, new_name: &str, replace: bool| {
            code(state.rename(ROOT, OsStr::new(name), to, OsStr::new(new_name), replace))
        };
        assert_eq!(rename("a", ROOT, "b", false), Some(libc::EEXIST));
        assert_eq!(rename("a", ROOT, "d", true), Some(libc::EISDIR));
        assert_eq!(rename("d", ROOT, "a", true), Some(libc::ENOTDIR));
        assert_eq!(rename("nothing", ROOT, "c", true), Some(libc::ENOENT));
        assert_eq!(rename("a", ROOT, "b", true), None);
        assert_eq!(rename("b", directory, "c", true), None);
        assert_eq!(state.lookup(directory, OsStr::new("c")).ok(), Some(a));
        assert_eq!(state.list(ROOT).expect("list").len(), 1);
    }
}
