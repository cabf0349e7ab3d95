//! From SQLSTATE to the few kinds of fault that the engine treats differently. By code, never by text.

use std::borrow::Cow;

use gravity_model::{Fault, FaultKind};
use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

/// The one table. Codes are SQLSTATE (PostgreSQL's appendix A); a class stands for all of its codes that have no own line.
pub(super) fn kind_of(sqlstate: &str) -> FaultKind {
    use FaultKind::*;
    match sqlstate {
        // Sessions that the server ended: whatever was under way may or may not have happened.
        "57P01" | "57P02" | "57P05" | "25P03" | "25P04" | "40003" => Disconnected,
        // Starting up, shutting down, cancelled, read-only standby, failed block, lock not available, object in use.
        "57P03" | "57014" | "25006" | "25P02" | "55P03" | "55006" => Transient,
        // Raised by a trigger, refused by a view's check option: it is this row that they refuse.
        "P0001" | "44000" => RefusedEvent,
        // Damaged pages want a person.
        "XX001" | "XX002" => Misconfigured,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" => Disconnected,
            // Deadlock and serialisation; out of disk, memory or connections; operator's doing; I/O; internal errors.
            "40" | "53" | "57" | "58" | "25" | "XX" => Transient,
            // Cardinality, data, constraint, and limits such as a text too long for an index.
            "21" | "22" | "23" | "54" => RefusedEvent,
            _ => Misconfigured,
        },
    }
}

/// A failed call as a fault. `doing` names what was being done, with its object.
pub(super) fn fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    match error {
        Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            let detail = match database.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => [Some(error.message()), error.detail(), error.hint()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("; "),
                None => database.message().to_owned(),
            };
            Fault::new(kind_of(&code), Cow::<'static, str>::Owned(code), doing, detail)
                .with_source(database.into_error())
        }
        // A certificate that does not verify arrives as invalid data from the TLS layer.
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Fault::new(FaultKind::Misconfigured, "tls", doing, error.to_string()).with_source(error)
        }
        Error::Io(error) => Fault::new(FaultKind::Disconnected, "io", doing, error.to_string()).with_source(error),
        Error::Tls(error) => Fault::new(FaultKind::Misconfigured, "tls", doing, error.to_string()).with_source(error),
        Error::Configuration(error) => {
            Fault::new(FaultKind::Misconfigured, "configuration", doing, error.to_string()).with_source(error)
        }
        Error::InvalidArgument(text) => Fault::new(FaultKind::Misconfigured, "configuration", doing, text),
        // The stream is out of step or a reply made no sense: nothing on this connection can be trusted any more.
        other => Fault::new(FaultKind::Disconnected, "protocol", doing, other.to_string()).with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v5_sqlstates_have_their_kinds() {
        use FaultKind::*;
        for (kind, codes) in [
            (
                RefusedEvent,
                &["23505", "23502", "23503", "23514", "22001", "22003", "22021", "22P02", "21000", "54000"][..],
            ),
            (Transient, &["40001", "40P01", "55P03", "53100", "53200", "53300", "57014", "57P03", "25006", "58030"]),
            (Disconnected, &["08006", "08003", "57P01", "57P02", "25P03"]),
            (Misconfigured, &["42P01", "42703", "42501", "28000", "28P01", "3D000", "42804", "0A000", "XX001", ""]),
        ] {
            for code in codes {
                assert_eq!(kind_of(code), kind, "{code}");
            }
        }
    }
}
