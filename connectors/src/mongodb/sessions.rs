//! Transactions of a replica set or a sharded cluster: their concerns, and what the end of one can mean.

use gravity_model::{Fault, FaultKind};
use mongodb::ClientSession;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria, WriteConcern};

use super::client::Server;
use super::error::{UNKNOWN_COMMIT, fault};

/// Times a commit of unknown outcome is sent again before the checkpoint is asked instead.
const COMMITS: usize = 5;

/// A session with an open transaction. The concerns are the transaction's own: those of a client, database or collection were
/// silently made weaker by servers.
pub(super) async fn begin(server: &Server) -> Result<ClientSession, Fault> {
    const DOING: &str = "begin a view transaction";
    let client = server.database.client();
    let mut session = client.start_session().await.map_err(|error| fault(error, DOING))?;
    let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::builder().w(mongodb::options::Acknowledgment::Majority).journal(true).build())
        .selection_criteria(primary)
        .await
        .map_err(|error| fault(error, DOING))?;
    Ok(session)
}

/// Commits. `Transient`: nothing is there, begin again. `Disconnected`: unknown, the checkpoint decides.
pub(super) async fn commit(session: &mut ClientSession, doing: &str) -> Result<(), Fault> {
    for attempt in 1.. {
        let error = match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let unknown = error.contains_label(UNKNOWN_COMMIT);
        if unknown && attempt < COMMITS {
            continue;
        }
        let mut fault = fault(error, doing);
        if unknown || fault.kind == FaultKind::Misconfigured {
            fault.kind = FaultKind::Disconnected;
        }
        return Err(fault);
    }
    Ok(())
}

/// Gives the transaction up. One whose server does not hear of it ends by the server's own limit.
pub(super) async fn abort(session: &mut ClientSession) {
    if let Err(error) = session.abort_transaction().await {
        tracing::debug!(error = %error, "a transaction was left to the server's limit");
    }
}
