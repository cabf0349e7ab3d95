//! cutfs: a file system that forgets, on command, whatever was not synced; power cuts without a machine to unplug.
//!
//! Strict on purpose: only `fsync`/`fdatasync` of a file make its bytes and size durable, only `fsync` of a directory makes
//! the names in it durable. What some file systems give beyond that, a program must not count on.

mod file;
mod fuse;
mod names;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use self::state::State;
use crate::torture::random::Random;

/// What a power cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutMode {
    /// Nothing: neither bytes nor sizes nor names.
    Everything,
    /// Names and sizes, but no bytes: a file that was renamed into place holds zeros.
    DataOnly,
    /// All bytes, but none of the creates, renames and unlinks.
    Names,
    /// Any subset of 4 KiB pages, any size in between, names up to a random moment.
    Pages,
    /// As `Pages`, but pages may be torn at 512 bytes.
    Sectors,
}

impl CutMode {
    pub const ALL: [CutMode; 5] =
        [CutMode::Everything, CutMode::DataOnly, CutMode::Names, CutMode::Pages, CutMode::Sectors];
}

/// What one cut took away and what it left, counted over unsynced changes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CutReport {
    pub pages_kept: u64,
    pub pages_lost: u64,
    pub pages_torn: u64,
    pub names_kept: u64,
    pub names_lost: u64,
}

impl CutReport {
    fn count_page(&mut self, kept_sectors: u8) {
        match kept_sectors {
            0 => self.pages_lost += 1,
            0xff => self.pages_kept += 1,
            _ => self.pages_torn += 1,
        }
    }

    pub fn add(&mut self, other: CutReport) {
        self.pages_kept += other.pages_kept;
        self.pages_lost += other.pages_lost;
        self.pages_torn += other.pages_torn;
        self.names_kept += other.names_kept;
        self.names_lost += other.names_lost;
    }
}

/// A mounted cutfs, empty at first. Needs root and `/dev/fuse`. Unmounts when dropped; `backing` is the caller's to remove.
pub struct Cutfs {
    mountpoint: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<fuser::BackgroundSession>,
}

impl Cutfs {
    /// Both directories must exist; `backing` must be empty and lie outside of `mountpoint`.
    pub fn mount(backing: &Path, mountpoint: &Path) -> io::Result<Cutfs> {
        let state = Arc::new(Mutex::new(State::new(backing)?));
        let mut cutfs = Cutfs { mountpoint: mountpoint.to_owned(), state, session: None };
        cutfs.attach()?;
        Ok(cutfs)
    }

    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Cuts the power: unmounts (which also drops the kernel's caches), loses what `mode` says, mounts what is left. Every
    /// process that has files open there must have ended, as it would have without power.
    pub fn cut(&mut self, mode: CutMode, random: &mut Random) -> io::Result<CutReport> {
        self.detach()?;
        let report = self.state.lock().cut(mode, random)?;
        self.attach()?;
        Ok(report)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = fuser::Config::default();
        // Several, so that one sync does not hold up what goes on beside it.
        config.n_threads = Some(3);
        config.mount_options = vec![fuser::MountOption::FSName("cutfs".to_owned())];
        let filesystem = fuse::CutFilesystem::new(self.state.clone());
        self.session = Some(fuser::spawn_mount(filesystem, &self.mountpoint, &config)?);
        Ok(())
    }

    fn detach(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        // A process that was just killed may take a moment to let go of its files.
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let output = Command::new("umount").arg("-i").arg(&self.mountpoint).output()?;
            if output.status.success() {
                break;
            }
            if Instant::now() > patience {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                self.session = Some(session);
                return Err(io::Error::other(format!("unmounting {}: {text}", self.mountpoint.display())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        session.join()
    }
}

impl Drop for Cutfs {
    fn drop(&mut self) {
        if self.detach().is_err() {
            // Better a detached mount than one that outlives the run.
            let _ = Command::new("umount").args(["-i", "-l"]).arg(&self.mountpoint).output();
        }
    }
}

/// Whether this machine lets us mount; the reason where it does not.
pub fn available() -> Result<(), String> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(|_| ())
        .map_err(|error| format!("/dev/fuse cannot be opened: {error}"))
}
