//! A source connector in the engine's loop, over a log on disk, without rules: how fast its messages become durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_engine::{Engine, EngineParts, EnvelopeOptions, RulesInForce, SourcePort, SourceSpec};
use gravity_log::{EventLog, LogOptions};
use gravity_model::LogId;
use gravity_model::port::source::{Source, Start};
use gravity_rules::Context;
use gravity_rules::diagnose::SourceFile;
use tempfile::TempDir;

use super::{PATIENCE, Pace};

/// How often the log is asked how far it is.
const POLL: Duration = Duration::from_millis(1);

/// A log of its own, opened before the source is made: some sources sign what they read with its id.
pub struct Intake {
    log: Arc<dyn EventLog>,
    _folder: TempDir,
}

impl Intake {
    pub fn new() -> Result<Intake, String> {
        let folder = tempfile::Builder::new().prefix("bench-sources-").tempdir().map_err(|error| error.to_string())?;
        let open = || gravity_log::open(LogOptions::new(folder.path()));
        let log = tokio::task::block_in_place(open).map_err(|error| error.to_string())?;
        Ok(Intake { log, _folder: folder })
    }

    pub fn log_id(&self) -> LogId {
        self.log.identity().log_id
    }

    /// Messages/s until all of them are durable. Ends once the source is left in order, so that all are acknowledged.
    pub async fn rate(self, kind: &'static str, source: Box<dyn Source>, messages: u64) -> Result<f64, String> {
        let context = Context::default();
        let files = vec![SourceFile::new("rules.json", r#"{"rules": []}"#)];
        let set = gravity_rules::load(&files, &context).map_err(|findings| findings.to_string())?;
        let parts = EngineParts {
            log: self.log.clone(),
            sources: vec![SourceSpec {
                name: "bench".to_owned(),
                kind,
                port: SourcePort::Pull(source),
                envelope: EnvelopeOptions::default(),
                start: Start::Earliest,
                max_batch: 64 << 20,
            }],
            databases: Vec::new(),
            exporters: Vec::new(),
            rules: RulesInForce { set: Arc::new(set), files, context, actor: "bench".to_owned() },
            stop_at_end: false,
            begin_after: None,
        };
        let engine = Engine::start(parts).await.map_err(|error| error.to_string())?;
        let rate = measured(&engine, messages).await;
        engine.shutdown().await;
        tokio::task::block_in_place(|| self.log.close());
        rate
    }
}

async fn measured(engine: &Engine, messages: u64) -> Result<f64, String> {
    let (mut pace, until) = (Pace::new(messages), Instant::now() + PATIENCE);
    loop {
        let status = engine.status();
        let source = &status.sources[0];
        // What was received is counted when it is handed to the log; `last` is what the disk has.
        let durable = source.received.min(status.log.last);
        if let Some(rate) = pace.at(durable) {
            return match source.received == messages && source.duplicates == 0 {
                true => Ok(rate),
                false => Err(format!("{} received, {} dropped, of {messages}", source.received, source.duplicates)),
            };
        }
        if Instant::now() > until {
            return Err(format!("{durable} of {messages} within {PATIENCE:?}; {:?}", source.error));
        }
        tokio::time::sleep(POLL).await;
    }
}
