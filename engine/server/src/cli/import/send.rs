//! Sends the batches of an import, waits out a busy engine, and ends between batches when asked to.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::super::client::{Accepted, Client, EngineArgs, Refused, step};
use super::super::exit::Failure;
use super::super::send::Answer;
use super::read::{Batch, Input};
use super::{BadLine, FileReport, Report};
use crate::config::codes;

/// How long an engine that is busy, starting or away is waited for, from its last answer.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Sends all files in order. Ends early, without error, at a line that is refused and not to be skipped: it is then in `report`.
pub async fn all(
    engine: &EngineArgs,
    source: &str,
    skip_bad: bool,
    inputs: &[Input],
    report: &mut Report,
) -> Result<(), Failure> {
    let client = engine.connect()?;
    let path = format!("/v1/events/{}", step(source));
    let bar = progress(inputs.iter().map(|input| input.bytes).sum());
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut sent = 0;
    let has_answered = Cell::new(false);
    for input in inputs {
        report.files.push(FileReport { file: input.name.clone(), ..FileReport::default() });
        let mut records = input.records()?;
        loop {
            let batch = records.batch()?;
            if batch.is_empty() {
                break;
            }
            let (read, through) = (batch.read, batch.last_line);
            let sending = Sending { client: &client, path: &path, input, skip_bad, has_answered: &has_answered };
            let goes_on = {
                // Asked to stop, the batch under way still gets its answer: what is then reported is exact.
                let mut send = std::pin::pin!(sending.batch(batch, report));
                tokio::select! {
                    done = &mut send => done?,
                    _ = &mut interrupted => {
                        send.await?;
                        bar.finish_and_clear();
                        let message = format!("stopped behind {}:{through}", input.name);
                        return Err(Failure::failed(message).hint("run the same command again: it goes on from there"));
                    }
                }
            };
            bar.set_position(sent + read);
            if !goes_on {
                bar.finish_and_clear();
                return Ok(());
            }
        }
        sent += input.bytes;
        if let Some(file) = report.files.last_mut() {
            file.done = true;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

struct Sending<'s> {
    client: &'s Client,
    path: &'s str,
    input: &'s Input,
    skip_bad: bool,
    /// An engine that answered before is waited for when it is gone; one that never did may not be there at all.
    has_answered: &'s Cell<bool>,
}

impl Sending<'_> {
    /// One batch, without its bad lines. False: it has one, and they are not to be skipped.
    async fn batch(&self, mut batch: Batch, report: &mut Report) -> Result<bool, Failure> {
        // The same for the same lines of the same content, whatever of them turns out to be bad.
        let key = format!("import-1:{}:{}-{}", self.input.digest, batch.first_line, batch.last_line);
        let records = (batch.records.len() + batch.bad.len()) as u64;
        let mut bad = std::mem::take(&mut batch.bad);
        let answer = loop {
            if !bad.is_empty() && !self.skip_bad {
                report.bad.append(&mut bad);
                return Ok(false);
            }
            if batch.records.is_empty() {
                break None;
            }
            let mut body = Vec::new();
            for record in &batch.records {
                body.extend_from_slice(&record.json);
                body.push(b'\n');
            }
            match self.patiently(&key, body).await? {
                Ok(answer) => break Some(answer),
                Err(refused) => bad.push(self.refused(refused, &mut batch)?),
            }
        };
        if let Some(file) = report.files.last_mut() {
            file.records += records;
            file.skipped += bad.len() as u64;
            file.events += batch.records.len() as u64;
            if let Some((Accepted { answer, is_repeat }, was_lost)) = answer {
                file.first = file.first.or(answer.first);
                file.last = answer.last.or(file.last);
                file.duplicates += match (is_repeat, was_lost) {
                    (false, _) => answer.duplicates,
                    (true, false) => batch.records.len() as u64,
                    // Most likely this run's own first try; nobody can say, so it is not called a duplicate.
                    (true, true) => 0,
                };
            }
        }
        bad.sort_by_key(|bad| bad.line);
        report.bad.append(&mut bad);
        Ok(true)
    }

    /// Takes the line that the engine refused out of the batch.
    fn refused(&self, refused: Refused, batch: &mut Batch) -> Result<BadLine, Failure> {
        let place = refused.line.and_then(|line| usize::try_from(line).ok()?.checked_sub(1));
        let (Some(at), 400) = (place.filter(|at| *at < batch.records.len()), refused.status) else {
            let failure = refused.failure;
            return Err(match refused.code.as_str() {
                "intake/other-body" => failure.hint(
                    "these lines were imported before, when other lines of them were bad; import the lines that were skipped from a file of their own",
                ),
                _ => failure.hint(format!(
                    "lines before {}:{} are imported; the same command goes on from there",
                    self.input.name, batch.first_line
                )),
            });
        };
        let record = batch.records.remove(at);
        Ok(BadLine {
            file: self.input.name.clone(),
            line: record.line,
            column: record.column(refused.column.unwrap_or(1)),
            code: refused.code,
            message: refused.failure.message,
        })
    }

    /// Asks until the engine answers to the point. An engine that was restarted meanwhile tells by the key what it has.
    /// With an answer comes whether an earlier one was lost on its way.
    async fn patiently(&self, key: &str, body: Vec<u8>) -> Result<Result<(Accepted<Answer>, bool), Refused>, Failure> {
        let began = Instant::now();
        let mut was_lost = false;
        loop {
            let asked = self.client.post_batch(self.path, key, body.clone()).await;
            let passes = match &asked {
                Err(failure) => self.has_answered.get() && failure.code.as_deref() == Some(codes::ENGINE_UNREACHABLE),
                Ok(Err(refused)) => matches!(refused.status, 409 | 429 | 503),
                Ok(Ok(_)) => false,
            };
            self.has_answered.set(self.has_answered.get() || asked.is_ok());
            if !passes || began.elapsed() > PATIENCE {
                return Ok(match asked? {
                    Ok(accepted) => Ok((accepted, was_lost)),
                    Err(refused) => Err(refused),
                });
            }
            was_lost |= asked.is_err();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A bar on stderr where that is a terminal.
fn progress(bytes: u64) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(bytes);
    let style = "{bar:32} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
