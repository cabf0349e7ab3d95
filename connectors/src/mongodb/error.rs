//! From the server's error codes to the few kinds of fault that the engine treats differently. By code, never by text, but for
//! FerretDB's internal errors, whose reason stands nowhere else.
//!
//! Codes: <https://www.mongodb.com/docs/manual/reference/error-codes/>.

use std::borrow::Cow;

use gravity_model::{Fault, FaultKind};
use mongodb::bson::Document;
use mongodb::error::{Error, ErrorKind};

/// A document of that unique key exists.
pub(super) const DUPLICATE_KEY: i32 = 11_000;
/// A document beyond the server's 16 MiB.
pub(super) const TOO_LARGE: i32 = 10_334;
/// A collection of that name exists.
pub(super) const NAMESPACE_EXISTS: i32 = 48;

const TRANSIENT_TRANSACTION: &str = "TransientTransactionError";
pub(super) const UNKNOWN_COMMIT: &str = "UnknownTransactionCommitResult";

/// The one table.
pub(super) fn kind_of(code: i32) -> FaultKind {
    use FaultKind::*;
    match code {
        // Hosts away, sockets, shutdown, step-down: whatever was under way may or may not have happened.
        6 | 7 | 89 | 91 | 189 | 9001 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 => Disconnected,
        // Locks, time limits, write conflicts, transactions that the server ended, disk, write concern, elections.
        24 | 46 | 50 | 64 | 79 | 100 | 112 | 125 | 133 | 134 | 202 | 225 | 246 | 251 | 262 | 290 | 11_601 | 14_031 => {
            Transient
        }
        // Unique keys, validators, sizes, types of an operand, keys of documents, the `_id`.
        121 | 11_000 | 11_001 | 12_582 | 10_334 | 17_280 | 17_419 | 17_420 | 22 | 52 | 56 | 57 | 66 => RefusedEvent,
        _ => Misconfigured,
    }
}

/// A failed call as a fault. `doing` names what was being done, with its object.
pub(super) fn fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    let transient = error.contains_label(TRANSIENT_TRANSACTION);
    let unknown = error.contains_label(UNKNOWN_COMMIT);
    let (kind, code, detail): (_, Cow<'static, str>, _) = match error.kind.as_ref() {
        ErrorKind::Command(command) => {
            (kind_of(command.code), command.code.to_string().into(), command.message.clone())
        }
        ErrorKind::Authentication { message, .. } => (FaultKind::Misconfigured, "18".into(), message.clone()),
        ErrorKind::InvalidArgument { message, .. } => {
            (FaultKind::Misconfigured, "configuration".into(), message.clone())
        }
        ErrorKind::InvalidTlsConfig { message, .. } => (FaultKind::Misconfigured, "tls".into(), message.clone()),
        ErrorKind::IncompatibleServer { message, .. } => {
            (FaultKind::Misconfigured, "live/server".into(), message.clone())
        }
        ErrorKind::SessionsNotSupported => (FaultKind::Misconfigured, "live/server".into(), error.to_string()),
        // The driver found no server that answers: it says for each of them why, a refused login among that.
        ErrorKind::ServerSelection { message, .. } => (FaultKind::Disconnected, "unreachable".into(), message.clone()),
        ErrorKind::BsonSerialization(error) => {
            (FaultKind::RefusedEvent, TOO_LARGE.to_string().into(), error.to_string())
        }
        ErrorKind::Shutdown => (FaultKind::Closed, "closed".into(), "the view store was closed".to_owned()),
        _ => (FaultKind::Disconnected, "io".into(), error.to_string()),
    };
    let kind = match kind {
        FaultKind::RefusedEvent | FaultKind::Misconfigured => kind,
        // Nothing of an aborted transaction is there; an unknown commit is the checkpoint's to tell.
        _ if transient && !unknown => FaultKind::Transient,
        kind => kind,
    };
    Fault::new(kind, code, doing, detail).with_source(error)
}

/// A refused statement of a write command, as the answer names it.
#[derive(Clone, Debug)]
pub(super) struct WriteError {
    /// Index of the statement in the command.
    pub index: usize,
    pub code: i32,
    pub message: String,
}

impl WriteError {
    pub fn fault(&self, doing: impl Into<String>) -> Fault {
        Fault::new(kind_of(self.code), self.code.to_string(), doing, self.message.clone())
    }
}

/// The first refused statement of an answer; a write concern that was not met is a fault of its own.
pub(super) fn write_error(answer: &Document, doing: &str) -> Result<Option<WriteError>, Fault> {
    if let Ok(errors) = answer.get_array("writeErrors")
        && let Some(error) = errors.first().and_then(|e| e.as_document())
    {
        let number = |name: &str| error.get(name).and_then(integer).unwrap_or_default();
        let message = error.get_str("errmsg").unwrap_or("the server gave no reason").to_owned();
        let index = usize::try_from(number("index")).unwrap_or_default();
        return Ok(Some(WriteError { index, code: number("code") as i32, message }));
    }
    if let Ok(concern) = answer.get_document("writeConcernError") {
        let code = concern.get("code").and_then(integer).unwrap_or_default();
        let detail = concern.get_str("errmsg").unwrap_or("the write concern was not met").to_owned();
        // Written, perhaps not durable: unknown.
        return Err(Fault::new(FaultKind::Disconnected, code.to_string(), doing, detail));
    }
    Ok(None)
}

/// FerretDB's and MongoDB's code for what the server itself failed at.
const INTERNAL_ERROR: &str = "1";
/// SQLSTATE of a unique key, and of the class of values that have no place.
const UNIQUE_VIOLATION: &str = "23505";
const DATA_EXCEPTION: &str = "22";
/// FerretDB's and MongoDB's code for any wrong argument.
pub(super) const BAD_VALUE: i32 = 2;
/// What FerretDB 1 says under it of a list in a list.
const NO_LIST_IN_LIST: &str = "(nested arrays are not supported)";

/// What FerretDB 1 means by an error of a write command that MongoDB would give another code. Where an update meets a unique index,
/// or a text is one that the database behind it cannot store, it passes that database's words on as an internal error.
pub(super) fn of_ferretdb(fault: Fault) -> Result<WriteError, Fault> {
    if fault.code == BAD_VALUE.to_string() && fault.detail.contains(NO_LIST_IN_LIST) {
        return Err(Fault { kind: FaultKind::RefusedEvent, ..fault });
    }
    if fault.code != INTERNAL_ERROR {
        return Err(fault);
    }
    let state = fault.detail.split_once("(SQLSTATE ").and_then(|(_, rest)| rest.get(..5)).map(str::to_owned);
    match state {
        // It does not say which statement; those before it are done, and doing them again changes nothing.
        Some(state) if state == UNIQUE_VIOLATION => {
            Ok(WriteError { index: 0, code: DUPLICATE_KEY, message: fault.detail })
        }
        None if fault.detail.contains("UNIQUE constraint failed") => {
            Ok(WriteError { index: 0, code: DUPLICATE_KEY, message: fault.detail })
        }
        Some(state) if state.starts_with(DATA_EXCEPTION) => {
            Err(Fault { kind: FaultKind::RefusedEvent, code: state.into(), ..fault })
        }
        _ => Err(fault),
    }
}

/// A number of an answer: servers choose its width.
pub(super) fn integer(value: &mongodb::bson::Bson) -> Option<i64> {
    use mongodb::bson::Bson;
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_ferretdbs_internal_errors_is_read_from_its_words() {
        let internal = |detail: &str| of_ferretdb(Fault::new(FaultKind::Misconfigured, "1", "write", detail));
        for words in [
            r#"[update.go:114] ERROR: duplicate key value violates unique constraint "users_email" (SQLSTATE 23505)"#,
            "[update.go:114] constraint failed: UNIQUE constraint failed: index 'users_email' (2067)",
        ] {
            let refused = internal(words).expect("a refusal").fault("write");
            assert_eq!((refused.kind, &*refused.code, &*refused.detail), (FaultKind::RefusedEvent, "11000", words));
        }
        let text = "ERROR: unsupported Unicode escape sequence (SQLSTATE 22P05)";
        let refused = internal(text).map(|_| ()).expect_err("no unique key");
        assert_eq!((refused.kind, &*refused.code), (FaultKind::RefusedEvent, "22P05"));
        for other in ["ERROR: permission denied for table x (SQLSTATE 42501)", "(SQLSTATE 2", "unexpected EOF"] {
            let fault = internal(other).map(|_| ()).expect_err("no refusal");
            assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "1"), "{other}");
        }
        // The words alone do not do: an event's own text may stand in any message.
        for (code, kind) in [("2", FaultKind::RefusedEvent), ("13", FaultKind::Misconfigured)] {
            let words = format!(r#"invalid value: {{ "v": x }} {NO_LIST_IN_LIST}"#);
            let nested = Fault::new(FaultKind::Misconfigured, code, "write", words);
            assert_eq!(of_ferretdb(nested).map(|_| ()).expect_err("no unique key").kind, kind);
        }
        let coded = Fault::new(FaultKind::Transient, "112", "write", "UNIQUE constraint failed");
        assert_eq!(of_ferretdb(coded).map(|_| ()).expect_err("has a code").kind, FaultKind::Transient);
    }

    #[test]
    fn v5_error_codes_have_their_kinds() {
        use FaultKind::*;
        for (kind, codes) in [
            (RefusedEvent, &[11_000, 121, 10_334, 17_419, 66][..]),
            (Transient, &[112, 50, 251, 246, 14_031, 290]),
            (Disconnected, &[10_107, 91, 189, 11_602, 6]),
            (Misconfigured, &[13, 18, 26, 59, 0, 20]),
        ] {
            for code in codes {
                assert_eq!(kind_of(*code), kind, "{code}");
            }
        }
    }
}
