//! What a paused route says of itself before it was ever open: read from its database, no row is written.

use gravity_model::{Counters, Fault, FaultKind};

use crate::ledger::Ledger;
use crate::project::prepare::RouteSetup;

impl RouteSetup {
    /// Reads how far the view is and what is parked into the gauge, so that `status` and `dlq` show it. The checks of
    /// [`RouteSetup::open`] that need no lock apply: rows that are not ours are shown to nobody.
    pub async fn look(&self) -> Result<(), Fault> {
        self.store.open().await?;
        let rows = self.store.checkpoints(self.name()).await?;
        for row in &rows {
            self.prove_ours(row).await?;
        }
        let Some(lowest) = rows.iter().map(|row| row.sequence).min() else { return Ok(()) };
        let ledger = Ledger::rebuild(self.name(), lowest, &self.log).await;
        let ledger = ledger.map_err(|error| {
            Fault::new(FaultKind::NotOurs, "log/control", "load dead letters", error.to_string()).with_source(error)
        })?;
        *self.gauge.ledger.lock() = ledger;
        let sum = rows.iter().fold(Counters::default(), |sum, row| sum.plus(row.counters));
        self.gauge.seen(lowest, sum);
        Ok(())
    }
}
