//! An exporter target in memory: refuses, hangs, loses answers and slows down as a test tells it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashSet;
use parking_lot::Mutex;

/// What the target does with one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Takes it and confirms.
    Take,
    /// Refuses its content for ever.
    Refuse,
    /// Refuses the caller or the place.
    Misconfigured,
    /// Takes it, and the confirmation is lost: the caller cannot know.
    TakeSilently,
    /// Does not take it; the same may succeed after this time.
    Later(Option<Duration>),
    /// Takes and confirms it this late.
    Slow(Duration),
    /// The connection breaks before the message arrives.
    Disconnect,
}

#[derive(Default)]
struct Inner {
    /// Everything that arrived, duplicates included, in order.
    arrived: Vec<Message>,
    /// Answers for the next messages, one each; afterwards [`Answer::Take`].
    script: VecDeque<Answer>,
    /// Ids that are always answered this way.
    standing: Vec<(String, Answer)>,
    down: bool,
    probes: usize,
}

/// The target. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryTarget {
    inner: Arc<Mutex<Inner>>,
}

impl MemoryTarget {
    /// Answers for the next messages, in order.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.lock().script.extend(answers);
    }

    /// Answers the message with this id always so.
    pub fn always(&self, id: impl Into<String>, answer: Answer) {
        self.inner.lock().standing.push((id.into(), answer));
    }

    /// Forgets what `always` was told.
    pub fn heal(&self) {
        self.inner.lock().standing.clear();
    }

    pub fn set_down(&self, down: bool) {
        self.inner.lock().down = down;
    }

    /// Everything that arrived, duplicates included.
    pub fn arrived(&self) -> Vec<Message> {
        self.inner.lock().arrived.clone()
    }

    pub fn probes(&self) -> usize {
        self.inner.lock().probes
    }
}

/// Sends to a [`MemoryTarget`].
pub struct MemoryExporter {
    name: String,
    target: MemoryTarget,
}

impl MemoryExporter {
    pub fn new(name: impl Into<String>, target: MemoryTarget) -> MemoryExporter {
        MemoryExporter { name: name.into(), target }
    }

    fn fault(&self, kind: FaultKind, code: &'static str, detail: &str) -> Fault {
        Fault::new(kind, code, format!("send to memory exporter {}", self.name), detail)
    }

    fn answer(&self, message: &Message) -> Answer {
        let mut inner = self.target.inner.lock();
        if inner.down {
            return Answer::Disconnect;
        }
        let standing = inner.standing.iter().find(|(id, _)| *id == message.id).map(|(_, answer)| *answer);
        standing.or_else(|| inner.script.pop_front()).unwrap_or(Answer::Take)
    }

    async fn send(&self, message: &Message) -> Delivery {
        let answer = self.answer(message);
        if let Answer::Slow(time) = answer {
            tokio::time::sleep(time).await;
        }
        if matches!(answer, Answer::Take | Answer::TakeSilently | Answer::Slow(_)) {
            self.target.inner.lock().arrived.push(message.clone());
        }
        match answer {
            Answer::Take | Answer::Slow(_) => Delivery::Delivered,
            Answer::Refuse => {
                Delivery::failed(self.fault(FaultKind::RefusedEvent, "refused", "this content is refused"))
            }
            Answer::Misconfigured => {
                Delivery::failed(self.fault(FaultKind::Misconfigured, "misconfigured", "this place is refused"))
            }
            Answer::TakeSilently => {
                Delivery::failed(self.fault(FaultKind::Transient, "no-answer", "no confirmation came"))
            }
            Answer::Later(retry_after) => {
                Delivery::Failed { fault: self.fault(FaultKind::Transient, "later", "busy"), retry_after }
            }
            Answer::Disconnect => {
                Delivery::failed(self.fault(FaultKind::Disconnected, "disconnected", "the connection broke"))
            }
        }
    }
}

#[async_trait]
impl Exporter for MemoryExporter {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    async fn probe(&self) -> Result<(), Fault> {
        let mut inner = self.target.inner.lock();
        inner.probes += 1;
        if inner.down {
            return Err(self.fault(FaultKind::Disconnected, "disconnected", "the target is down"));
        }
        Ok(())
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        let mut held: HashSet<&[u8]> = HashSet::new();
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let key = message.key.as_deref();
            if key.is_some_and(|key| held.contains(key)) {
                outcomes.push(Delivery::failed(self.fault(FaultKind::Transient, "held-back", "not sent")));
                continue;
            }
            let outcome = self.send(message).await;
            if matches!(outcome, Delivery::Failed { .. }) {
                held.extend(key);
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn close(&self) {}
}
