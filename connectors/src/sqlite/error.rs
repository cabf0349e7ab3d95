//! From SQLite's result codes to the few kinds of fault that the engine treats differently.

use std::borrow::Cow;

use gravity_model::{Fault, FaultKind};
use sqlx::Error;

/// By primary result code (the low byte of an extended one), <https://www.sqlite.org/rescode.html>.
pub(super) fn kind_of(code: i32) -> FaultKind {
    use FaultKind::*;
    match code & 0xff {
        // Busy, locked, out of memory, interrupted, I/O, disk full, WAL lock protocol, schema changed meanwhile.
        5 | 6 | 7 | 9 | 10 | 13 | 15 | 17 => Transient,
        // Too big, constraint, type mismatch.
        18..=20 => RefusedEvent,
        // Missing tables, permissions, damaged or foreign files, and misuse.
        _ => Misconfigured,
    }
}

/// The code's name, for dead letters and people.
pub(super) fn name_of(code: i32) -> Cow<'static, str> {
    Cow::Borrowed(match code {
        275 => "SQLITE_CONSTRAINT_CHECK",
        531 => "SQLITE_CONSTRAINT_COMMITHOOK",
        787 => "SQLITE_CONSTRAINT_FOREIGNKEY",
        1043 => "SQLITE_CONSTRAINT_FUNCTION",
        1299 => "SQLITE_CONSTRAINT_NOTNULL",
        1555 => "SQLITE_CONSTRAINT_PRIMARYKEY",
        1811 => "SQLITE_CONSTRAINT_TRIGGER",
        2067 => "SQLITE_CONSTRAINT_UNIQUE",
        2579 => "SQLITE_CONSTRAINT_ROWID",
        3091 => "SQLITE_CONSTRAINT_DATATYPE",
        _ => match code & 0xff {
            1 => "SQLITE_ERROR",
            3 => "SQLITE_PERM",
            5 => "SQLITE_BUSY",
            6 => "SQLITE_LOCKED",
            7 => "SQLITE_NOMEM",
            8 => "SQLITE_READONLY",
            9 => "SQLITE_INTERRUPT",
            10 => "SQLITE_IOERR",
            11 => "SQLITE_CORRUPT",
            13 => "SQLITE_FULL",
            14 => "SQLITE_CANTOPEN",
            15 => "SQLITE_PROTOCOL",
            17 => "SQLITE_SCHEMA",
            18 => "SQLITE_TOOBIG",
            19 => "SQLITE_CONSTRAINT",
            20 => "SQLITE_MISMATCH",
            23 => "SQLITE_AUTH",
            26 => "SQLITE_NOTADB",
            _ => return Cow::Owned(format!("SQLITE_{code}")),
        },
    })
}

/// A failed call as a fault. `doing` names what was being done, with its object.
pub(super) fn fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    match error {
        Error::Database(database) => {
            let code = database.code().and_then(|c| c.parse().ok()).unwrap_or(1);
            let detail = database.message().to_owned();
            Fault::new(kind_of(code), name_of(code), doing, detail).with_source(database.into_error())
        }
        Error::Configuration(error) => {
            Fault::new(FaultKind::Misconfigured, "configuration", doing, error.to_string()).with_source(error)
        }
        // The worker thread is gone, or its answer made no sense.
        other => Fault::new(FaultKind::Disconnected, "worker", doing, other.to_string()).with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v5_result_codes_have_their_kinds() {
        use FaultKind::*;
        for (kind, codes) in [
            (Transient, &[5, 6, 10, 13, 261, 517, 2570][..]),
            (RefusedEvent, &[19, 20, 18, 275, 1299, 1555, 2067, 3091]),
            (Misconfigured, &[1, 8, 11, 14, 23, 26]),
        ] {
            for code in codes {
                assert_eq!(kind_of(*code), kind, "{code}");
            }
        }
        assert_eq!(name_of(2067), "SQLITE_CONSTRAINT_UNIQUE");
        assert_eq!(name_of(261), "SQLITE_BUSY");
    }
}
