//! Appending with back-pressure: a full queue makes the caller wait, never fail.

use gravity_log::{Batch, EventLog, LogError, Ticket};

/// Appends once there is room. The ticket is the promise of durability. An error is one of the disk or of closing.
pub async fn durable(log: &dyn EventLog, mut batch: Batch) -> Result<Ticket, LogError> {
    loop {
        match log.append(&mut batch) {
            Err(LogError::Busy) => log.room().await?,
            other => return other,
        }
    }
}
