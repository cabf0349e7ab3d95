//! What went wrong at a port, in the few kinds that a caller treats differently, and the one table from kind to policy.

use std::borrow::Cow;
use std::fmt;

/// Added only when some caller branches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The connection is gone. Whatever was under way may or may not have happened.
    Disconnected,
    /// Deadlock, serialisation, lock time-out, disk full over there, 429, 5xx: the same request may succeed later.
    Transient,
    /// The peer refuses this event's content and will refuse it again: constraint, type, length, 400, 413, 422.
    RefusedEvent,
    /// The peer refuses the caller or the place: missing table, permission, authentication, TLS, 401, 403, 404.
    Misconfigured,
    /// The database remembers another log, another owner, or a future that this log does not have. Nothing was written.
    NotOurs,
    /// The source's history and ours do not fit: topic re-created, truncated, retention ran past us. Halt, never skip.
    HistoryBroken,
    /// We closed it.
    Closed,
}

/// What the engine does about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Try again for ever, with growing pauses and jitter; only this route, source or exporter waits.
    BackOff,
    /// Find the event at fault and park it.
    Park,
    /// Stop this route, source or subscription loudly; probe, resume by itself when the probe passes.
    StopAndProbe,
    /// Stop it until an operator decides.
    Stop,
}

impl FaultKind {
    pub fn policy(self) -> Policy {
        match self {
            FaultKind::Disconnected | FaultKind::Transient => Policy::BackOff,
            FaultKind::RefusedEvent => Policy::Park,
            FaultKind::Misconfigured => Policy::StopAndProbe,
            FaultKind::NotOurs | FaultKind::HistoryBroken | FaultKind::Closed => Policy::Stop,
        }
    }
}

/// A failure at a port. `Display` is one line for an operator: what was being done, the peer's words, the peer's code.
#[derive(Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// The peer's own code (SQLSTATE, HTTP status, librdkafka name) or one of ours; stable, for dead letters and metrics.
    pub code: Cow<'static, str>,
    /// What was being done, with its object: `commit rows of public.users`.
    pub doing: String,
    /// The peer's words. Never a credential.
    pub detail: String,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    pub fn new(
        kind: FaultKind,
        code: impl Into<Cow<'static, str>>,
        doing: impl Into<String>,
        detail: impl Into<String>,
    ) -> Fault {
        Fault { kind, code: code.into(), doing: doing.into(), detail: detail.into(), source: None }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        self.source = Some(source.into());
        self
    }

    pub fn policy(&self) -> Policy {
        self.kind.policy()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.detail)?;
        if !self.code.is_empty() {
            write!(f, " [{}]", self.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
