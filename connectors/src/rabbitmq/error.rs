//! The client's and the broker's errors in the few kinds that the engine treats differently.

use std::borrow::Cow;

use gravity_model::{Fault, FaultKind};
use lapin::ErrorKind;

use crate::cause::{self, chain};

/// Reply codes of AMQP 0-9-1 that somebody decides by.
const NO_ROUTE: u16 = 312;
const CONNECTION_FORCED: u16 = 320;
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// Why no connection came about.
pub(super) fn of_connect(error: lapin::Error, doing: String) -> Fault {
    if is_tls(&error) {
        return Fault::new(FaultKind::Misconfigured, "rabbitmq-tls", doing, chain(&error)).with_source(error);
    }
    let fault = of_channel(error, doing);
    // A virtual host that is down, or not there, is told in the same words as one that may not be entered.
    if fault.code == "rabbitmq-530" { Fault { kind: FaultKind::Misconfigured, ..fault } } else { fault }
}

/// What went wrong on an open connection.
pub(super) fn of_channel(error: lapin::Error, doing: String) -> Fault {
    let (kind, code): (FaultKind, Cow<'static, str>) = match error.kind() {
        ErrorKind::ProtocolError(amqp) => {
            let text = amqp.get_message().as_str().to_owned();
            (of_reply(amqp.get_id(), &text), format!("rabbitmq-{}", amqp.get_id()).into())
        }
        ErrorKind::MissingHeartbeatError => (FaultKind::Disconnected, "rabbitmq-heartbeat".into()),
        ErrorKind::SerialisationError(_) => (FaultKind::RefusedEvent, "rabbitmq-frame".into()),
        _ => (FaultKind::Disconnected, "rabbitmq-connection".into()),
    };
    let detail = chain(&error);
    Fault::new(kind, code, doing, detail).with_source(error)
}

/// What the broker refuses: the caller and the place until somebody mends them, everything else for now.
pub(super) fn of_reply(code: u16, text: &str) -> FaultKind {
    match code {
        // Another consumer has the queue, mostly our own earlier connection that the broker has not given up yet.
        ACCESS_REFUSED | RESOURCE_LOCKED if text.contains("exclusive") => FaultKind::Transient,
        // A queue that has lost its home may come back.
        NOT_FOUND if text.contains("is down or inaccessible") => FaultKind::Transient,
        NO_ROUTE | ACCESS_REFUSED | NOT_FOUND | RESOURCE_LOCKED | PRECONDITION_FAILED | NOT_ALLOWED => {
            FaultKind::Misconfigured
        }
        CONNECTION_FORCED => FaultKind::Disconnected,
        _ => FaultKind::Disconnected,
    }
}

/// The client hides the handshake inside an I/O error.
fn is_tls(error: &lapin::Error) -> bool {
    let ErrorKind::IOError(io) = error.kind() else { return false };
    io.get_ref().is_some_and(|inner| cause::is_tls(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_must_mend_is_told_from_what_passes() {
        for (code, text, kind) in [
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", FaultKind::Misconfigured),
            (
                404,
                "NOT_FOUND - home node 'r@h' of durable queue 'q' in vhost '/' is down or inaccessible",
                FaultKind::Transient,
            ),
            (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", FaultKind::Transient),
            (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'", FaultKind::Misconfigured),
            (312, "NO_ROUTE", FaultKind::Misconfigured),
            (320, "CONNECTION_FORCED - broker forced connection closure", FaultKind::Disconnected),
        ] {
            assert_eq!(of_reply(code, text), kind, "{code} {text}");
        }
    }
}
