//! The sources of an engine: started together; one that a reload changed drains, then goes on with its new connection.

use std::sync::Arc;

use gravity_log::EventLog;
use gravity_model::port::source::Source;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::ingest::envelope::EnvelopeOptions;
use crate::ingest::gauge::{SourceGauge, restore_counters};
use crate::ingest::intake::Intake;
use crate::ingest::letters::IngestLetters;
use crate::ingest::task::{SourceSetup, SourceTask};
use crate::parts::{SourcePort, SourceSpec};
use crate::supervise::Tasks;

/// Reloads that may wait until a source has closed, which takes some seconds at most.
const MOST_RENEWALS: usize = 16;

/// Why sources cannot be started or renewed, mostly: their counters cannot be read from the log.
pub type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// See the module's comment.
pub struct Sources {
    common: Common,
    all: RwLock<Vec<Entry>>,
    tasks: Mutex<Tasks>,
}

#[derive(Clone)]
struct Common {
    log: Arc<dyn EventLog>,
    letters: Arc<IngestLetters>,
    stop_at_end: bool,
    draining: CancellationToken,
}

struct Entry {
    gauge: Arc<SourceGauge>,
    /// For dead letters that are decoded again.
    envelope: EnvelopeOptions,
    door: Door,
}

enum Door {
    Push(Intake),
    Pull(mpsc::Sender<SourceTask>),
}

impl Sources {
    pub fn new(
        log: Arc<dyn EventLog>,
        letters: Arc<IngestLetters>,
        stop_at_end: bool,
        draining: CancellationToken,
    ) -> Sources {
        let common = Common { log, letters, stop_at_end, draining };
        Sources { common, all: RwLock::default(), tasks: Mutex::default() }
    }

    /// Starts the sources that are new, and goes on with those that are known as they are given here.
    pub async fn take(&self, specs: Vec<SourceSpec>) -> Result<(), Unreadable> {
        let known = |name: &str| self.all.read().iter().find(|e| e.gauge.name == name).map(|e| e.gauge.clone());
        let gauges: Vec<Arc<SourceGauge>> = specs
            .iter()
            .map(|s| known(&s.name).unwrap_or_else(|| Arc::new(SourceGauge::new(&s.name, s.kind))))
            .collect();
        let new: Vec<_> = gauges.iter().filter(|gauge| known(&gauge.name).is_none()).cloned().collect();
        if !new.is_empty() {
            let log = self.common.log.clone();
            tokio::task::spawn_blocking(move || restore_counters(&*log, &new)).await??;
        }
        let mut all = self.all.write();
        for (spec, gauge) in specs.into_iter().zip(gauges) {
            let SourceSpec { name, port, envelope, start, max_batch, .. } = spec;
            let at = all.iter().position(|entry| entry.gauge.name == name);
            match (port, at.map(|at| &mut all[at])) {
                (SourcePort::Push, Some(Entry { door: Door::Push(intake), envelope: kept, .. })) => {
                    intake.renew(envelope.clone(), max_batch);
                    *kept = envelope;
                }
                (SourcePort::Pull(source), Some(Entry { door: Door::Pull(sender), envelope: kept, .. })) => {
                    *kept = envelope.clone();
                    let task = self.common.task(source, envelope, start, gauge);
                    match sender.try_send(task) {
                        // Nobody takes it where the engine stops.
                        Ok(()) | Err(TrySendError::Closed(_)) => {}
                        Err(TrySendError::Full(_)) => {
                            return Err(
                                format!("source {name} is still closing for {MOST_RENEWALS} earlier reloads").into()
                            );
                        }
                    }
                }
                (SourcePort::Push, None) => {
                    let Common { log, draining, .. } = self.common.clone();
                    gauge.set_at_end();
                    let intake = Intake::new(log, envelope.clone(), max_batch, gauge.clone(), draining);
                    all.push(Entry { gauge, envelope, door: Door::Push(intake) });
                }
                (SourcePort::Pull(source), None) => {
                    let task = self.common.task(source, envelope.clone(), start, gauge.clone());
                    let (sender, renewals) = mpsc::channel(MOST_RENEWALS);
                    let runs = keep_running(task, renewals, self.common.draining.clone());
                    self.tasks.lock().start(format!("source {name}"), runs);
                    all.push(Entry { gauge, envelope, door: Door::Pull(sender) });
                }
                // The config refuses another type under the same name.
                (_, Some(_)) => {
                    tracing::error!(source = %name, "cannot turn into another kind of source while it runs")
                }
            }
        }
        Ok(())
    }

    pub fn gauges(&self) -> Vec<Arc<SourceGauge>> {
        self.all.read().iter().map(|entry| entry.gauge.clone()).collect()
    }

    pub fn intake(&self, name: &str) -> Option<Intake> {
        self.intakes().into_iter().find(|intake| intake.source() == name)
    }

    /// Those that are pushed into.
    pub fn intakes(&self) -> Vec<Intake> {
        let intake = |entry: &Entry| match &entry.door {
            Door::Push(intake) => Some(intake.clone()),
            Door::Pull(_) => None,
        };
        self.all.read().iter().filter_map(intake).collect()
    }

    /// How messages of a source are read; as of any where it is not there any more.
    pub fn envelope(&self, name: &str) -> EnvelopeOptions {
        let all = self.all.read();
        all.iter().find(|entry| entry.gauge.name == name).map(|entry| entry.envelope.clone()).unwrap_or_default()
    }

    /// Waits until every source has left off; they were told through the token.
    pub async fn join(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let intakes = self.intakes();
        let intakes = futures::future::join_all(intakes.iter().map(Intake::drain));
        tokio::join!(tasks.join(), intakes);
    }
}

impl Common {
    fn task(
        &self,
        source: Box<dyn Source>,
        envelope: EnvelopeOptions,
        start: gravity_model::port::source::Start,
        gauge: Arc<SourceGauge>,
    ) -> SourceTask {
        let setup = SourceSetup {
            log: self.log.clone(),
            envelope,
            start,
            gauge,
            letters: self.letters.clone(),
            stop_at_end: self.stop_at_end,
            cancel: self.draining.child_token(),
        };
        SourceTask { source, setup }
    }
}

/// Runs a pull source until the engine drains. What it had in flight is settled before its successor asks the log where to
/// go on: so nothing is taken twice.
async fn keep_running(mut task: SourceTask, mut renewals: mpsc::Receiver<SourceTask>, draining: CancellationToken) {
    loop {
        let cancel = task.setup.cancel.clone();
        let mut running = std::pin::pin!(task.run());
        let ended = tokio::select! {
            () = &mut running => None,
            renewed = renewals.recv() => Some(renewed),
        };
        let renewed = match ended {
            Some(renewed) => {
                cancel.cancel();
                running.await;
                renewed
            }
            None => tokio::select! {
                () = draining.cancelled() => None,
                renewed = renewals.recv() => renewed,
            },
        };
        match renewed {
            Some(newer) => task = newer,
            None => return draining.cancelled().await,
        }
    }
}
