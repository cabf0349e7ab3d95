//! The loop behind `log-kill` and `power-cut`: write, kill, perhaps cut the power, perhaps kill recovery too, check, go on.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::check::{Acknowledged, Findings};
use super::process::{self, Checker};
use super::{LogTarget, Store};
use crate::torture::cutfs::{CutMode, CutReport, Cutfs};
use crate::torture::random::Random;
use crate::torture::workspace;

/// A directory is given up for a new one at about this many events, so that everything can be read after every kill.
const VOLUME_EVENTS: u64 = 60_000;
/// A red gate need not go on for an hour.
const MAX_FAILURES: usize = 5;
/// Events per second of a writer that leaves the disk time to breathe; every fourth one takes all it can.
const CALM_RATE: u64 = 6_000;

/// What to do.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub gate: &'static str,
    pub store: Store,
    pub seed: u64,
    /// Kills, and with `cutting` power cuts.
    pub kills: u64,
    pub cutting: bool,
    /// The one mode to cut in; all in turn where `None`.
    pub mode: Option<CutMode>,
    pub generation_bytes: u64,
    /// For the writers only, as in `GRAVITY_FAILPOINTS`.
    pub failpoints: Option<String>,
    /// Milliseconds from a writer's start to its end.
    pub life_ms: (u64, u64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub kills: u64,
    /// Of these while a log was being opened for recovery.
    pub kills_in_recovery: u64,
    pub acked: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub damaged: u64,
    pub failed_opens: u64,
    /// Segments that existed when their directory was given up.
    pub segments: u64,
    pub checks: u64,
    pub slowest_open_ms: u64,
    pub cut: CutReport,
    pub failures: Vec<String>,
}

/// Where one log lives: a plain directory or a cutfs.
struct Volume {
    target: LogTarget,
    seed: u64,
    acknowledged: Acknowledged,
    segments: u32,
    cutfs: Option<Cutfs>,
    /// Dropped last: the mount goes before its directory.
    _directory: TempDir,
}

impl Campaign {
    pub fn run(&self) -> Result<Tally, String> {
        let mut random = Random::new(self.seed);
        let mut tally = Tally::default();
        while tally.kills < self.kills && tally.failures.len() < MAX_FAILURES {
            let mut volume = self.volume(&mut random)?;
            while self.round(&mut volume, &mut random, &mut tally)? {}
            tally.acked += volume.acknowledged.events;
            tally.segments += u64::from(volume.segments);
        }
        Ok(tally)
    }

    fn volume(&self, random: &mut Random) -> Result<Volume, String> {
        let directory = workspace::directory(self.gate)?;
        let make = |name: &str| -> Result<PathBuf, String> {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(path)
        };
        let ground = make("ground")?;
        let cutfs = if self.cutting {
            let mounted = Cutfs::mount(&make("backing")?, &ground);
            Some(mounted.map_err(|error| format!("mounting cutfs: {error}"))?)
        } else {
            None
        };
        let target =
            LogTarget { directory: ground.join("log"), store: self.store, generation_bytes: self.generation_bytes };
        let seed = random.word();
        Ok(Volume { target, seed, acknowledged: Acknowledged::default(), segments: 0, cutfs, _directory: directory })
    }

    /// One life and death. True where the volume goes on.
    fn round(&self, volume: &mut Volume, random: &mut Random, tally: &mut Tally) -> Result<bool, String> {
        let life = Duration::from_millis(random.within(self.life_ms.0, self.life_ms.1));
        let rate = if random.one_in(4) || self.cutting { 0 } else { CALM_RATE };
        let life = process::write_until_killed(&volume.target, volume.seed, rate, life, self.failpoints.as_deref())?;
        tally.kills += 1;
        if let Some(acknowledged) = life.acknowledged {
            volume.acknowledged = acknowledged;
        }
        if let Some(why) = life.ended {
            if !life.opened {
                tally.failed_opens += 1;
            }
            self.fail(volume, tally, why);
            return Ok(false);
        }
        self.cut(volume, random, tally)?;
        if random.one_in(5) && tally.kills < self.kills {
            process::die_while_opening(&volume.target, volume.seed, Duration::from_millis(random.within(2, 80)))?;
            tally.kills += 1;
            tally.kills_in_recovery += 1;
            self.cut(volume, random, tally)?;
        }
        let over = tally.kills >= self.kills || volume.acknowledged.events >= VOLUME_EVENTS;
        if !over && random.one_in(4) {
            // The next writer has to cope with what this one left.
            return Ok(true);
        }
        let how = if random.one_in(2) { Checker::Closes } else { Checker::Leaves };
        tally.checks += 1;
        match process::check(&volume.target, volume.seed, volume.acknowledged, how) {
            Ok(findings) => Ok(self.take(findings, volume, tally) && !over),
            Err(why) => {
                tally.failed_opens += 1;
                self.fail(volume, tally, format!("cannot be opened: {why}"));
                Ok(false)
            }
        }
    }

    fn cut(&self, volume: &mut Volume, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
        let Some(cutfs) = &mut volume.cutfs else { return Ok(()) };
        let mode = self.mode.unwrap_or(CutMode::ALL[random.below(CutMode::ALL.len() as u64) as usize]);
        let report = cutfs.cut(mode, random).map_err(|error| format!("cutting the power: {error}"))?;
        tally.cut.add(report);
        Ok(())
    }

    fn take(&self, findings: Findings, volume: &mut Volume, tally: &mut Tally) -> bool {
        volume.segments = findings.segments;
        tally.slowest_open_ms = tally.slowest_open_ms.max(findings.open_ms);
        tally.lost += findings.lost;
        tally.duplicated += findings.duplicated;
        tally.damaged += findings.damaged;
        if findings.is_clean() {
            return true;
        }
        let counts =
            format!("{} lost, {} duplicated, {} damaged", findings.lost, findings.duplicated, findings.damaged);
        self.fail(volume, tally, format!("{counts}: {}", findings.problems.join("; ")));
        false
    }

    fn fail(&self, volume: &Volume, tally: &mut Tally, why: String) {
        let name = format!("{}-{}-{}-{}", self.gate, self.store.word(), self.seed, tally.kills);
        // A sabotaged run is meant to fail; its ruins interest nobody.
        let kept = match self.failpoints {
            None => workspace::keep(&volume.target.directory, &name),
            Some(_) => "sabotaged".to_owned(),
        };
        tally.failures.push(format!("after kill {}: {why} ({kept}; script seed {})", tally.kills, volume.seed));
    }
}
