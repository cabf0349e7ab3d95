//! Tasks with names, and the pauses between attempts.

use std::time::Duration;

use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Tasks of one engine. They end by themselves when the token is cancelled; a panic in any of them ends the process,
/// because a half-alive engine is worse than a restart (fault L17).
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
}

impl Tasks {
    pub fn start(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(async move {
            tracing::debug!(task = %name, "started");
            task.await;
            tracing::debug!(task = %name, "ended");
        });
    }

    /// Waits until all have ended.
    pub async fn join(&mut self) {
        while let Some(ended) = self.set.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task panicked");
                std::process::abort();
            }
        }
    }
}

/// Growing pauses with jitter: 50 ms, doubling to 10 s, each drawn from the upper half so that peers do not march in step.
#[derive(Debug)]
pub struct BackOff {
    next: Duration,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(10);

    pub fn new() -> BackOff {
        BackOff { next: BackOff::FIRST }
    }

    /// Call after a success.
    pub fn reset(&mut self) {
        self.next = BackOff::FIRST;
    }

    /// The next pause, at least `at_least`.
    pub fn pause(&mut self, at_least: Option<Duration>) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(BackOff::LONGEST);
        let drawn = full.mul_f64(rand::rng().random_range(0.5..=1.0));
        drawn.max(at_least.unwrap_or_default())
    }

    /// Sleeps for the next pause; false when cancelled meanwhile.
    pub async fn wait(&mut self, cancel: &CancellationToken, at_least: Option<Duration>) -> bool {
        let pause = self.pause(at_least);
        tokio::select! {
            () = cancel.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

impl Default for BackOff {
    fn default() -> Self {
        BackOff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_honour_the_peer() {
        let mut back_off = BackOff::new();
        assert!(back_off.pause(None) <= Duration::from_millis(50));
        for _ in 0..20 {
            assert!(back_off.pause(None) <= BackOff::LONGEST);
        }
        assert!(back_off.pause(Some(Duration::from_secs(60))) >= Duration::from_secs(60));
        back_off.reset();
        assert!(back_off.pause(None) <= Duration::from_millis(50));
    }
}
