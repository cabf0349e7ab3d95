//! The client's and the server's errors in the few kinds that the engine treats differently.

use std::error::Error as StdError;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    ConsumerInfoError, ConsumerInfoErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::{ConnectError, ConnectErrorKind};
use gravity_model::{Fault, FaultKind};

pub(super) use crate::cause::chain;
use crate::cause::is_tls;
use crate::printable::printable;

/// Why no connection came about.
pub(super) fn of_connect(error: ConnectError, doing: String) -> Fault {
    let (kind, code) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            (FaultKind::Misconfigured, "nats-authorization")
        }
        ConnectErrorKind::Tls => (FaultKind::Misconfigured, "nats-tls"),
        ConnectErrorKind::ServerParse => (FaultKind::Misconfigured, "nats-address"),
        ConnectErrorKind::Io if is_tls(&error) => (FaultKind::Misconfigured, "nats-tls"),
        ConnectErrorKind::Dns => (FaultKind::Disconnected, "nats-dns"),
        _ => (FaultKind::Disconnected, "nats-unreachable"),
    };
    let detail = chain(&error);
    Fault::new(kind, code, doing, detail).with_source(error)
}

/// A refusal in the server's own words and number.
pub(super) fn of_server(error: &async_nats::jetstream::Error, doing: String) -> Fault {
    let code = error.error_code();
    let kind = match code {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CONSUMER_NOT_FOUND
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => FaultKind::Misconfigured,
        _ if error.code() == 400 || error.code() == 404 => FaultKind::Misconfigured,
        _ => FaultKind::Transient,
    };
    Fault::new(kind, code_name(code.0), doing, printable(&error.to_string()))
}

/// Stable text for dead letters and metrics: the server's number, `nats-10059`.
pub(super) fn code_name(code: u64) -> String {
    format!("nats-{code}")
}

pub(super) fn of_request(error: RequestError, doing: String) -> Fault {
    let (kind, code) = match error.kind() {
        // A server that has only just come up does not answer for JetStream yet.
        RequestErrorKind::NoResponders => (FaultKind::Transient, "nats-no-jetstream"),
        RequestErrorKind::TimedOut => (FaultKind::Disconnected, "nats-no-answer"),
        _ => (FaultKind::Disconnected, "nats-request"),
    };
    let detail = chain(&error);
    Fault::new(kind, code, doing, detail).with_source(error)
}

pub(super) fn of_get_stream(error: GetStreamError, doing: String) -> Fault {
    match error.kind() {
        GetStreamErrorKind::JetStream(refusal) => of_server(&refusal, doing).with_source(error),
        GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::EmptyName => {
            Fault::new(FaultKind::Misconfigured, "nats-stream-name", doing, chain(&error)).with_source(error)
        }
        GetStreamErrorKind::Request => unanswered(error, doing),
    }
}

pub(super) fn of_consumer(error: ConsumerError, doing: String) -> Fault {
    match error.kind() {
        ConsumerErrorKind::JetStream(refusal) => of_server(&refusal, doing).with_source(error),
        ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => unanswered(error, doing),
        _ => Fault::new(FaultKind::Misconfigured, "nats-consumer", doing, chain(&error)).with_source(error),
    }
}

pub(super) fn of_consumer_info(error: ConsumerInfoError, doing: String) -> Fault {
    match error.kind() {
        ConsumerInfoErrorKind::JetStream(refusal) => of_server(&refusal, doing).with_source(error),
        ConsumerInfoErrorKind::InvalidName => {
            Fault::new(FaultKind::Misconfigured, "nats-consumer", doing, chain(&error)).with_source(error)
        }
        // The consumer that we read with is gone: who connects again finds or makes one.
        ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
            Fault::new(FaultKind::Disconnected, "nats-consumer-gone", doing, chain(&error)).with_source(error)
        }
        _ => unanswered(error, doing),
    }
}

/// The request may have been carried out or not.
fn unanswered(error: impl StdError + Send + Sync + 'static, doing: String) -> Fault {
    let detail = chain(&error);
    Fault::new(FaultKind::Disconnected, "nats-no-answer", doing, detail).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_is_misconfigured_whatever_it_is_wrapped_in() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = ConnectError::from(std::io::Error::new(std::io::ErrorKind::InvalidData, tls));
        let fault = of_connect(error, "connect".to_owned());
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-tls"));
        let error = ConnectError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let fault = of_connect(error, "connect".to_owned());
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Disconnected, "nats-unreachable"));
    }
}
