//! The generator's way in over HTTP: batches under an idempotency key, sent until they are answered, now and then once more.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CONFIRM_PATIENCE, Record, take};
use crate::torture::random::Random;
use crate::torture::stack::script::{Act, Item};

/// Posts the items to `url` until there are no more.
pub fn run(
    client: reqwest::Client,
    url: String,
    seed: u64,
    runtime: tokio::runtime::Handle,
    items: &Receiver<Item>,
    record: &Record,
) {
    HttpLane { client, url, runtime, record, random: Random::new(seed ^ 0x477) }.run(items);
}

struct HttpLane<'a> {
    client: reqwest::Client,
    url: String,
    runtime: tokio::runtime::Handle,
    record: &'a Record,
    random: Random,
}

impl HttpLane<'_> {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let most = self.random.within(1, 120) as usize;
            let Some(batch) = take(items, most, Duration::from_millis(100)) else { return };
            if !batch.is_empty() && !self.batch(&batch) {
                return;
            }
        }
    }

    /// Posts one batch until it is answered. False where it never was.
    fn batch(&mut self, batch: &[Item]) -> bool {
        self.record.sent(&batch.iter().map(|item| item.index).collect::<Vec<_>>());
        let first = batch[0].index;
        let (bad, good): (Vec<&Item>, Vec<&Item>) = batch.iter().partition(|item| item.act == Act::Malformed);
        if !bad.is_empty() {
            // Refused whole: nothing of the good lines may be stored by this request.
            let all: Vec<&Item> = batch.iter().collect();
            let Some((status, body)) = self.post(&all, &format!("bad-{first}")) else { return false };
            if status != 400 {
                self.record.problem(format!("a batch with a malformed line was answered {status}: {body}"));
            }
            let refused: Vec<u64> = bad.iter().map(|item| item.index).collect();
            if let Err(error) = self.record.journal.lock().refused(&refused) {
                self.record.problem(format!("journal: {error}"));
            }
        }
        if good.is_empty() {
            return true;
        }
        let key = format!("batch-{first}");
        let Some((status, body)) = self.post(&good, &key) else { return false };
        let range = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|answer| Some((answer.get("first")?.as_u64()?, answer.get("last")?.as_u64()?)));
        let Some((from, to)) = range.filter(|(from, to)| status == 200 && to + 1 - from == good.len() as u64) else {
            self.record.problem(format!("a batch of {} was answered {status}: {body}", good.len()));
            return true;
        };
        self.record.promised.lock().extend(good.iter().map(|item| item.index).zip(from..=to));
        self.record.acknowledged(&good.iter().map(|item| item.index).collect::<Vec<_>>());
        if self.random.one_in(10) {
            // A producer that did not hear the answer asks again: same answer, no second copy.
            match self.post(&good, &key) {
                Some((200, again))
                    if serde_json::from_str::<Value>(&again).is_ok_and(|v| v["first"] == from && v["last"] == to) => {}
                Some((status, again)) => {
                    self.record.problem(format!("the repeat of {key} ({body}) was answered {status}: {again}"));
                }
                None => return false,
            }
        }
        true
    }

    /// Sends until there is an answer that is not "later". The last answer's status and body.
    fn post(&mut self, items: &[&Item], key: &str) -> Option<(u16, String)> {
        let body: String = items.iter().map(|item| item.envelope(true) + "\n").collect();
        let mut until = Instant::now() + CONFIRM_PATIENCE;
        let mut stopping = false;
        loop {
            let request = self
                .client
                .post(&self.url)
                .header("content-type", "application/x-ndjson")
                .header("idempotency-key", key)
                .body(body.clone());
            let answer = self.runtime.block_on(async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
            });
            match answer {
                Ok((status, text)) if !matches!(status, 409 | 429 | 500..) => return Some((status, text)),
                Ok((status @ 500, text)) => self.record.problem(format!("POST was answered {status}: {text}")),
                Ok(_) | Err(_) => {}
            }
            self.record.repeats.fetch_add(1, Ordering::Relaxed);
            if !stopping && self.record.stop.load(Ordering::Relaxed) {
                (stopping, until) = (true, Instant::now() + CONFIRM_PATIENCE);
            }
            if Instant::now() > until {
                self.record.problem(format!("{key} was not answered in {} s", CONFIRM_PATIENCE.as_secs()));
                return None;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}
