//! The data directory: who holds it, which format and log it is, and how files in it become durable.
//!
//! ```text
//! DIR/lock           held while open; the holder's process id
//! DIR/format         "gravity-log 1"
//! DIR/log_id         32 hexadecimal digits
//! DIR/catalogue      the sealed segments (JSON, then its BLAKE3)
//! DIR/hot/00000001/  one hot generation
//! DIR/sealed/*.arrow
//! DIR/dedupe/*.run   derived from the log
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gravity_model::LogId;
use parking_lot::Mutex;

use crate::api::LogError;

const FORMAT: &str = "gravity-log 1";
/// Written and synced before a log that could not write is opened again.
const PROBE_BYTES: usize = 1 << 20;

/// Makes an error out of what the operating system said about `path`.
pub(crate) fn io_error(path: &Path, error: &io::Error) -> LogError {
    LogError::Io { path: path.to_owned(), detail: error.to_string() }
}

fn refused(path: &Path, detail: impl Into<String>) -> LogError {
    LogError::Refused { path: path.to_owned(), detail: detail.into() }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates a directory, durably; what exists is left alone.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(path)?;
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Replaces the file at `path` so that a crash leaves the old content or the new.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a directory tree; nothing there is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An opened and locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub root: PathBuf,
    pub log_id: LogId,
    /// The operating system releases it when the process dies.
    lock: Mutex<Option<File>>,
}

impl Directory {
    /// Locks `root` for this process alone, creating it if it is not there.
    pub fn open(root: &Path) -> Result<Directory, LogError> {
        create_directory(root).map_err(|error| io_error(root, &error))?;
        let lock_path = root.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|error| io_error(&lock_path, &error))?;
        take_lock(lock.try_lock(), root, &lock_path)?;
        let note = |lock: &mut File| -> io::Result<()> {
            lock.set_len(0)?;
            lock.write_all(std::process::id().to_string().as_bytes())
        };
        // A full disk must not keep a log from being read; the pid is for people.
        if let Err(error) = note(&mut lock) {
            tracing::warn!(error = %error, "cannot note the process id in the lock file");
        }
        let log_id = match read_format(root)? {
            true => read_log_id(root)?,
            false => initialise(root)?,
        };
        Ok(Directory { root: root.to_owned(), log_id, lock: Mutex::new(Some(lock)) })
    }

    /// Locks `root` against writers. Creates and changes nothing.
    pub fn open_read_only(root: &Path) -> Result<Directory, LogError> {
        let lock_path = root.join("lock");
        let lock = File::open(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => refused(root, "there is no event log here"),
            _ => io_error(&lock_path, &error),
        })?;
        take_lock(lock.try_lock_shared(), root, &lock_path)?;
        if !read_format(root)? {
            return Err(refused(root, "there is no event log here"));
        }
        Ok(Directory { root: root.to_owned(), log_id: read_log_id(root)?, lock: Mutex::new(Some(lock)) })
    }

    /// Gives the directory back to others.
    pub fn release(&self) {
        if let Some(lock) = self.lock.lock().take() {
            // Closing is not enough: a child process that is just being started holds a copy of the descriptor until its
            // `exec`, and the lock with it.
            let _ = lock.unlock();
        }
    }

    /// Marks the frames of this log.
    pub fn salt(&self) -> u32 {
        let id = self.log_id.0;
        u32::from_le_bytes([id[0], id[1], id[2], id[3]])
    }

    pub fn hot(&self) -> PathBuf {
        self.root.join("hot")
    }

    pub fn generation(&self, generation: u32) -> PathBuf {
        self.hot().join(format!("{generation:08}"))
    }

    pub fn sealed(&self) -> PathBuf {
        self.root.join("sealed")
    }

    pub fn dedupe(&self) -> PathBuf {
        self.root.join("dedupe")
    }

    pub fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue")
    }

    /// Numbers of the hot generations that have a directory, ascending.
    pub fn generations(&self) -> Result<Vec<u32>, LogError> {
        let hot = self.hot();
        let entries = fs::read_dir(&hot).map_err(|error| io_error(&hot, &error))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| io_error(&hot, &error))?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                return Err(refused(&entry.path(), "not a hot generation; nothing else belongs here"));
            };
            found.push(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Writes and syncs a file of some size, then removes it: whether the disk takes data again.
    pub fn probe(&self) -> io::Result<()> {
        let path = self.root.join("probe");
        let written = (|| {
            let mut file = File::create(&path)?;
            file.write_all(&vec![0x5a; PROBE_BYTES])?;
            file.sync_all()
        })();
        let removed = fs::remove_file(&path);
        written.and(removed)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.release();
    }
}

fn take_lock(taken: Result<(), TryLockError>, root: &Path, lock_path: &Path) -> Result<(), LogError> {
    match taken {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(lock_path).unwrap_or_default();
            let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
            Err(LogError::Locked { directory: root.to_owned(), pid })
        }
        Err(TryLockError::Error(error)) => Err(io_error(lock_path, &error)),
    }
}

/// Whether the directory holds a log of our format; an error where it holds another.
fn read_format(root: &Path) -> Result<bool, LogError> {
    let path = root.join("format");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| io_error(&path, &error))?,
    };
    if text.trim_end() == FORMAT {
        return Ok(true);
    }
    match text.trim_end().strip_prefix("gravity-log ").and_then(|version| version.parse::<u32>().ok()) {
        Some(version) => Err(refused(
            &path,
            format!("written in log format {version} by a newer gravity; this one reads format 1 and changed nothing"),
        )),
        None => Err(refused(&path, format!("{:?} is not a log format", text.trim_end()))),
    }
}

fn read_log_id(root: &Path) -> Result<LogId, LogError> {
    let path = root.join("log_id");
    let text = fs::read_to_string(&path).map_err(|error| io_error(&path, &error))?;
    text.trim_end().parse().map_err(|error| refused(&path, format!("{error}")))
}

/// A new log. The format file comes last: without it nothing here was ever a log.
fn initialise(root: &Path) -> Result<LogId, LogError> {
    let hot = root.join("hot");
    let begun = |directory: &Path| fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if begun(&hot) || begun(&root.join("sealed")) {
        return Err(refused(&root.join("format"), "missing, but there are events: restore it from a backup"));
    }
    let log_id = LogId(*uuid::Uuid::new_v4().as_bytes());
    let made = (|| {
        for directory in [&hot, &root.join("sealed"), &root.join("dedupe")] {
            create_directory(directory)?;
        }
        replace_file(&root.join("log_id"), format!("{log_id}\n").as_bytes())?;
        replace_file(&root.join("format"), format!("{FORMAT}\n").as_bytes())
    })();
    made.map_err(|error| io_error(root, &error))?;
    Ok(log_id)
}

/// Bytes that a file or directory tree takes on disk.
pub(crate) fn bytes_on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| bytes_on_disk(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::open(place.path()).expect("the directory opens");
        // What a child process has between `fork` and `exec`.
        let copy = directory.lock.lock().as_ref().map(|lock| lock.try_clone().expect("a copy"));
        drop(directory);
        let again = Directory::open(place.path());
        assert!(again.is_ok(), "still locked: {:?}", again.err());
        drop(copy);
    }
}
