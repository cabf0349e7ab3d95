//! An operator's decisions about dead letters of `ingest`: decode again, or leave out for ever.
//!
//! A dead letter is held from before the append until the log has told what became of it, by a task that goes on when the
//! operator hangs up: two decisions about one dead letter can never both be stored.

use gravity_log::{Batch, LogError};
use gravity_model::HeaderBuf;

use crate::control::{self, Decision, Parked};
use crate::engine::Engine;
use crate::ingest::append::{event_of, join_headers};
use crate::ingest::envelope::{self, Message, Undecodable};
use crate::ingest::letters::{HeldLetter, INGEST, NotHeld, TOO_LARGE};
use crate::operate::ApiError;
use crate::status::{ParkedAgain, ReleaseReport};

/// What one retry came to.
enum Tried {
    /// Sequence of the event that the raw record became.
    Released(u64),
    ParkedAgain(ParkedAgain),
}

impl Engine {
    /// Decodes raw input again with the source's present settings; what decodes now becomes an event of its own.
    pub(crate) async fn retry_ingest(
        &self,
        sequences: Option<Vec<u64>>,
        actor: &str,
    ) -> Result<ReleaseReport, ApiError> {
        let letters = match sequences {
            Some(sequences) => self.hold(&sequences)?,
            None => self.inner.letters.hold_all(),
        };
        let (engine, actor) = (self.clone(), actor.to_owned());
        let trying = async move {
            let mut report = ReleaseReport::default();
            for letter in letters {
                if engine.inner.draining.is_cancelled() {
                    return Err(ApiError::Conflict {
                        what: format!(
                            "the engine stops: {} dead letters of ingest were retried, the others stay as they are",
                            report.released.len() + report.parked_again.len()
                        ),
                    });
                }
                let sequence = letter.sequence.get();
                match engine.try_again(letter, &actor).await? {
                    Tried::Released(record) => {
                        report.record = record;
                        report.released.push(sequence);
                    }
                    Tried::ParkedAgain(why) => {
                        report.parked_again.push(sequence);
                        report.reasons.push(why);
                    }
                }
            }
            Ok(report)
        };
        self.inner.decisions.spawn(trying).await.map_err(|_| ApiError::Gone)?
    }

    /// Leaves raw input out for ever.
    pub(crate) async fn skip_ingest(&self, sequences: Vec<u64>, actor: &str) -> Result<ReleaseReport, ApiError> {
        let letters = self.hold(&sequences)?;
        let mut batch = Batch::new();
        letters.iter().for_each(|letter| control::end(&mut batch, control::PARKED, &letter.state_key));
        let decision = Decision {
            route: INGEST.to_owned(),
            sequences: Some(letters.iter().map(|letter| letter.sequence).collect()),
            actor: actor.to_owned(),
            at: crate::clock::now(),
        };
        control::tell(&mut batch, control::SKIP, &control::numbered(INGEST, 0), &decision, Some(actor));
        let log = self.inner.log.clone();
        let skipping = async move {
            let range = crate::append::durable(&*log, batch).await?.durable().await?;
            let skipped = letters.iter().map(|letter| letter.sequence.get()).collect();
            letters.into_iter().for_each(HeldLetter::close);
            Ok(ReleaseReport { record: range.last.get(), skipped, ..ReleaseReport::default() })
        };
        self.inner.decisions.spawn(skipping).await.map_err(|_| ApiError::Gone)?
    }

    fn hold(&self, sequences: &[u64]) -> Result<Vec<HeldLetter>, ApiError> {
        self.inner.letters.hold(sequences).map_err(|why| match why {
            NotHeld::Unknown(sequence) => ApiError::NotParked { route: INGEST.to_owned(), sequence: sequence.get() },
            NotHeld::Undecided(sequence) => ApiError::Conflict {
                what: format!("another decision about dead letter {sequence} of ingest is on its way into the log"),
            },
        })
    }

    async fn try_again(&self, letter: HeldLetter, actor: &str) -> Result<Tried, ApiError> {
        // What is kept is the beginning of the message. It may decode, but it is not what was sent.
        if letter.parked.code == TOO_LARGE {
            let detail = format!("only the beginning is kept, so it cannot be retried; {}", letter.parked.error);
            return Ok(Tried::ParkedAgain(parked_again(&letter, TOO_LARGE, &detail)));
        }
        let block = self.block(letter.sequence).await?.ok_or(ApiError::Gone)?;
        let recorded = block.event(letter.sequence).ok_or(ApiError::Gone)?;
        let raw = &recorded.event;
        let options = self.inner.sources.envelope(raw.source);
        let message = Message {
            payload: raw.payload,
            key: raw.key,
            headers: raw.headers,
            subject: &letter.parked.event,
            time: raw.time,
            content_type: None,
            after_delete: None,
        };
        let mut extra = HeaderBuf::new();
        let decoded = match envelope::decode(&options, &message, &mut extra) {
            Ok(decoded) => decoded,
            Err(why) => return self.park_again(letter, &why).await,
        };
        let joined = join_headers(raw.headers, &extra);
        let headers = joined.as_ref().map_or(raw.headers, HeaderBuf::as_headers);
        let mut event = event_of(&decoded, raw.source, headers, crate::clock::now());
        (event.causation, event.actor) = (Some(recorded.sequence), Some(actor));
        let mut batch = Batch::new();
        batch.push(&event);
        control::end(&mut batch, control::PARKED, &letter.state_key);
        match crate::append::durable(&*self.inner.log, batch).await {
            Ok(ticket) => {
                let record = ticket.durable().await?.first.get();
                letter.close();
                Ok(Tried::Released(record))
            }
            // By today's settings it would be larger than an event can be; the dead letter's own error stays.
            Err(error @ LogError::TooLarge { .. }) => {
                Ok(Tried::ParkedAgain(parked_again(&letter, TOO_LARGE, &error.to_string())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The dead letter stays; what is wrong with it now is written where that is news.
    async fn park_again(&self, letter: HeldLetter, why: &Undecodable) -> Result<Tried, ApiError> {
        let again = parked_again(&letter, why.code, &why.detail);
        if letter.parked.code != why.code || letter.parked.error != why.detail {
            let parked = Parked {
                code: why.code.to_owned(),
                error: why.detail.clone(),
                at: crate::clock::now(),
                ..letter.parked.clone()
            };
            let mut batch = Batch::new();
            control::put(&mut batch, control::PARKED, &letter.state_key, &parked, None);
            crate::append::durable(&*self.inner.log, batch).await?.durable().await?;
            letter.keep(parked);
        }
        Ok(Tried::ParkedAgain(again))
    }
}

fn parked_again(letter: &HeldLetter, code: &str, error: &str) -> ParkedAgain {
    ParkedAgain { sequence: letter.sequence.get(), code: code.to_owned(), error: error.to_owned() }
}
