//! cutfs as the kernel sees it: translates FUSE requests to [`State`].

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::names::Ino;
use super::state::State;

/// Nobody but the kernel changes anything here, and a cut unmounts: its caches can never be stale.
const TTL: Duration = Duration::from_secs(3600);
/// Requests of up to 1 MiB: one block of the log in one or two.
const MAX_WRITE: u32 = 1 << 20;
/// What a good disk needs for a sync. Without it nothing would ever be unsynced when the kill comes.
const SYNC_TIME: Duration = Duration::from_millis(1);

pub struct CutFilesystem {
    state: Arc<Mutex<State>>,
}

impl CutFilesystem {
    pub fn new(state: Arc<Mutex<State>>) -> CutFilesystem {
        CutFilesystem { state }
    }
}

fn attributes(state: &State, ino: Ino) -> io::Result<FileAttr> {
    let attributes = state.attributes(ino)?;
    let size = state.size(ino);
    let (kind, nlink) = if attributes.directory { (FileType::Directory, 2) } else { (FileType::RegularFile, 1) };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: attributes.modified,
        mtime: attributes.modified,
        ctime: attributes.modified,
        crtime: attributes.modified,
        kind,
        perm: attributes.mode,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn reply_empty(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn reply_entry(reply: ReplyEntry, result: io::Result<FileAttr>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(Errno::from(error)),
    }
}

impl Filesystem for CutFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // No write-back cache: each write reaches us before write(2) returns, so a killed writer leaves nothing in the kernel.
        let wanted = InitFlags::FUSE_BIG_WRITES | InitFlags::FUSE_MAX_PAGES | InitFlags::FUSE_ASYNC_READ;
        // What the kernel lacks only makes requests smaller.
        let _ = config.add_capabilities(wanted);
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state.lock();
        reply_entry(reply, state.lookup(parent.0, name).and_then(|ino| attributes(&state, ino)));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.state.lock(), ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state.lock();
        let mut change = || -> io::Result<FileAttr> {
            if let Some(mode) = mode {
                state.set_mode(ino.0, (mode & 0o7777) as u16)?;
            }
            if let Some(size) = size {
                state.set_size(ino.0, size)?;
            }
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => state.set_modified(ino.0, time)?,
                Some(TimeOrNow::Now) => state.set_modified(ino.0, SystemTime::now())?,
                None => {}
            }
            attributes(&state, ino.0)
        };
        match change() {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let made = state.create_directory(parent.0, name, (mode & !umask & 0o7777) as u16);
        reply_entry(reply, made.and_then(|ino| attributes(&state, ino)));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.state.lock().unlink(parent.0, name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.state.lock().remove_directory(parent.0, name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        reply_empty(reply, self.state.lock().rename(parent.0, name, new_parent.0, new_name, replace));
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let linked = state.link(ino.0, parent.0, name);
        reply_entry(reply, linked.and_then(|()| attributes(&state, ino.0)));
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.state.lock().open(ino.0) {
            Ok(()) => reply.opened(FileHandle(ino.0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.state.lock();
        let mut create = || -> io::Result<FileAttr> {
            let ino = state.create_file(parent.0, name, (mode & !umask & 0o7777) as u16)?;
            state.open(ino)?;
            attributes(&state, ino)
        };
        match create() {
            Ok(attr) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                reply.created(&TTL, &attr, Generation(0), FileHandle(attr.ino.0), flags);
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.state.lock().read(ino.0, offset, &mut bytes) {
            Ok(n) => reply.data(&bytes[..n]),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state.lock();
        let mut written = state.write(ino.0, offset, data);
        if written.is_ok() && flags.0 & libc::O_DSYNC != 0 {
            written = state.sync_file(ino.0);
        }
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // close(2) promises nothing.
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.state.lock().release(ino.0);
        reply.ok();
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        // Before the sync, and without the lock: whoever is killed meanwhile has nothing on disk yet.
        std::thread::sleep(SYNC_TIME);
        reply_empty(reply, self.state.lock().sync_file(ino.0));
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        std::thread::sleep(SYNC_TIME);
        reply_empty(reply, self.state.lock().sync_directory(ino.0));
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state.lock();
        let entries = match state.list(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(Errno::from(error)),
        };
        // A name removed between two calls may hide another one, as POSIX allows for names that change meanwhile; programs
        // that remove while they list (remove_dir_all) list again until nothing is left.
        let dots = [(".".into(), ino.0), ("..".into(), ino.0)];
        for (index, (name, child)) in dots.into_iter().chain(entries).enumerate().skip(offset as usize) {
            let directory = state.attributes(child).is_ok_and(|attributes| attributes.directory);
            let kind = if directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(child), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        // A terabyte, half of it free: nothing here may think that the disk is full.
        let blocks = 1 << 28;
        reply.statfs(blocks, blocks / 2, blocks / 2, 1 << 20, 1 << 19, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::super::{CutMode, Cutfs, available};
    use crate::torture::random::Random;

    fn mounted(test: impl FnOnce(&mut Cutfs, &Path)) {
        if let Err(why) = available() {
            eprintln!("skipped: {why}");
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (backing, mountpoint) = (directory.path().join("backing"), directory.path().join("mount"));
        fs::create_dir(&backing).expect("create");
        fs::create_dir(&mountpoint).expect("create");
        let mut cutfs = Cutfs::mount(&backing, &mountpoint).expect("mounting needs root");
        test(&mut cutfs, &mountpoint);
    }

    fn sync_directory(path: &Path) {
        File::open(path).expect("open").sync_all().expect("sync");
    }

    #[test]
    fn the_kernel_sees_what_survived_and_not_what_it_had_cached() {
        mounted(|cutfs, path| {
            let mut file = File::create(path.join("a")).expect("create");
            file.write_all(&[1; 100_000]).expect("write");
            file.sync_data().expect("sync");
            sync_directory(path);
            file.write_all(&[2; 3_000_000]).expect("write");
            file.write_at(&[3; 10], 5).expect("write");
            assert_eq!(fs::read(path.join("a")).expect("read").len(), 3_100_000);
            drop(file);
            let report = cutfs.cut(CutMode::Everything, &mut Random::new(1)).expect("cut");
            assert!(report.pages_lost > 700, "{report:?}");
            assert_eq!(fs::read(path.join("a")).expect("read"), vec![1; 100_000]);
        });
    }

    #[test]
    fn l6_a_file_synced_without_its_directory_is_gone() {
        mounted(|cutfs, path| {
            fs::create_dir(path.join("d")).expect("create");
            sync_directory(path);
            let mut file = File::create(path.join("d/a")).expect("create");
            file.write_all(b"synced").expect("write");
            file.sync_all().expect("sync");
            drop(file);
            cutfs.cut(CutMode::Everything, &mut Random::new(1)).expect("cut");
            assert!(path.join("d").is_dir() && !path.join("d/a").exists());

            fs::write(path.join("d/tmp"), b"new").expect("write");
            File::open(path.join("d/tmp")).expect("open").sync_all().expect("sync");
            fs::rename(path.join("d/tmp"), path.join("d/final")).expect("rename");
            sync_directory(&path.join("d"));
            cutfs.cut(CutMode::Everything, &mut Random::new(1)).expect("cut");
            assert_eq!(fs::read(path.join("d/final")).expect("read"), b"new");
            assert!(!path.join("d/tmp").exists());
        });
    }

    #[test]
    fn ordinary_programs_work_on_it() {
        mounted(|cutfs, path| {
            fs::create_dir_all(path.join("x/y")).expect("create");
            for index in 0..300 {
                fs::write(path.join(format!("x/y/{index}")), index.to_string()).expect("write");
            }
            assert_eq!(fs::read_dir(path.join("x/y")).expect("list").count(), 300);
            fs::copy(path.join("x/y/7"), path.join("copy")).expect("copy");
            fs::hard_link(path.join("copy"), path.join("link")).expect("link");
            let file = File::options().write(true).open(path.join("link")).expect("open");
            file.set_len(0).expect("truncate");
            file.lock().expect("flock");
            assert_eq!(fs::metadata(path.join("copy")).expect("stat").len(), 0);
            drop(file);
            fs::remove_dir_all(path.join("x")).expect("remove");
            assert_eq!(fs::read_dir(path).expect("list").count(), 2);
            cutfs.cut(CutMode::Names, &mut Random::new(1)).expect("cut");
            assert_eq!(fs::read_dir(path).expect("list").count(), 0);
        });
    }
}
