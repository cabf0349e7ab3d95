//! From the server's error numbers to the few kinds of fault that the engine treats differently. By number, never by text.
//!
//! MySQL's SQLSTATEs are too coarse for that: `HY000` holds a full disk as well as a missing table, `42000` a deadlock-free
//! refusal as well as a bug of ours. Numbers: <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use std::borrow::Cow;

use gravity_model::{Fault, FaultKind};
use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

/// A row of that key exists.
pub(super) const DUPLICATE_KEY: &str = "1062";
/// NULL where the column takes none.
pub(super) const NOT_NULL: &str = "1048";
/// A number outside of its column's range.
pub(super) const OUT_OF_RANGE: &str = "1264";
/// A value that the column would hold only in part.
pub(super) const TRUNCATED: &str = "1265";
/// A date or time that the column cannot hold.
pub(super) const INCORRECT_TIME: &str = "1292";
/// A value of another kind than the column's.
pub(super) const INCORRECT_VALUE: &str = "1366";
/// A text or byte string longer than its column.
pub(super) const TOO_LONG: &str = "1406";
/// More bytes than the server takes in one message.
pub(super) const PACKET: &str = "1153";

/// The one table. Numbers first; the SQLSTATE's class stands for those that have no own line.
pub(super) fn kind_of(number: u16, sqlstate: &str) -> FaultKind {
    use FaultKind::*;
    match number {
        // The server shuts down or ended the session: whatever was under way may or may not have happened.
        1053 | 1080 | 1152 | 1158..=1161 | 1184 | 1189 | 1190 | 1927 | 2006 | 2013 | 2055 | 4031 => Disconnected,
        // Lock waits, deadlocks, rows that changed under us, tables that changed under a prepared statement.
        1020 | 1205 | 1206 | 1213 | 1223 | 1412 | 1479 | 1615 | 1637 | 3058 | 3572 => Transient,
        // Out of disk, memory, threads, connections, files; errors of the engine below and of the binary log.
        1021 | 1026 | 1030 | 1037 | 1038 | 1040 | 1041 | 1114 | 1135 | 1180 | 1181 | 1203 | 1226 | 1297 | 1461
        | 1598 => Transient,
        // Read-only for now, starting, a node outside of its cluster, offline.
        1047 | 1290 | 1792 | 1836 | 3032 | 3100 | 3101 | 3168 => Transient,
        // Cancelled: by hand, by a limit on statements.
        1317 | 1969 | 3024 => Transient,
        // Constraints, types, ranges, lengths, characters, JSON; raised by a trigger; a row beyond the limits of a page or packet.
        1022
        | 1048
        | 1062
        | 1118
        | 1136..=1139
        | 1153
        | 1162
        | 1169
        | 1216
        | 1217
        | 1264..=1265
        | 1292
        | 1300
        | 1301
        | 1364..=1367 => RefusedEvent,
        1406 | 1411 | 1416 | 1425 | 1426 | 1441 | 1451 | 1452 | 1525 | 1526 | 1557 | 1586 | 1644 | 1690 | 1748
        | 1761 | 1762 => RefusedEvent,
        3140..=3158 | 3819 | 3903 | 4025 => RefusedEvent,
        // An ambiguous column is our statement's fault, though its class is that of constraints.
        1052 => Misconfigured,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" => Disconnected,
            "40" => Transient,
            // Data, constraint, raised by SIGNAL.
            "22" | "23" | "45" => RefusedEvent,
            _ => Misconfigured,
        },
    }
}

/// A failed call as a fault. `doing` names what was being done, with its object.
pub(super) fn fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    match error {
        Error::Database(database) => {
            let (number, kind) = match database.try_downcast_ref::<MySqlDatabaseError>() {
                Some(error) => (error.number(), kind_of(error.number(), error.code().unwrap_or_default())),
                None => (0, FaultKind::Misconfigured),
            };
            let detail = database.message().to_owned();
            Fault::new(kind, Cow::<'static, str>::Owned(number.to_string()), doing, detail)
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
    fn v5_error_numbers_have_their_kinds() {
        use FaultKind::*;
        for (kind, errors) in [
            (
                RefusedEvent,
                &[
                    (1062, "23000"),
                    (1048, "23000"),
                    (1452, "23000"),
                    (1264, "22003"),
                    (1265, "01000"),
                    (1292, "22007"),
                    (1366, "22007"),
                    (1406, "22001"),
                    (1364, "HY000"),
                    (1644, "45000"),
                    (3819, "HY000"),
                    (4025, "23000"),
                    (9999, "45001"),
                ][..],
            ),
            (
                Transient,
                &[
                    (1205, "HY000"),
                    (1213, "40001"),
                    (1040, "08004"),
                    (1021, "HY000"),
                    (1114, "HY000"),
                    (1290, "HY000"),
                    (1792, "25006"),
                    (1317, "70100"),
                    (1969, "70100"),
                    (1047, "08S01"),
                    (1615, "HY000"),
                ],
            ),
            (Disconnected, &[(2006, "HY000"), (2013, "HY000"), (1053, "08S01"), (1927, "70100"), (1159, "08S01")]),
            (
                Misconfigured,
                &[
                    (1045, "28000"),
                    (1044, "42000"),
                    (1049, "42000"),
                    (1142, "42000"),
                    (1143, "42000"),
                    (1146, "42S02"),
                    (1054, "42S22"),
                    (1052, "23000"),
                    (1064, "42000"),
                    (1665, "HY000"),
                    (0, ""),
                ],
            ),
        ] {
            for (number, sqlstate) in errors {
                assert_eq!(kind_of(*number, sqlstate), kind, "{number}");
            }
        }
    }
}
