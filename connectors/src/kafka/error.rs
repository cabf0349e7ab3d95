//! librdkafka's codes in the few kinds that the engine treats differently.

use gravity_model::{Fault, FaultKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

pub(crate) use crate::printable::printable;

/// Kind of a code where no more is known about what was being done.
pub fn kind_of(code: Code) -> FaultKind {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::InvalidConfig
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InconsistentGroupProtocol
        | Code::InvalidGroupId
        | Code::PolicyViolation => FaultKind::Misconfigured,
        Code::AutoOffsetReset | Code::LogTruncation | Code::OffsetOutOfRange => FaultKind::HistoryBroken,
        Code::FencedInstanceId => FaultKind::NotOurs,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerDestroy
        | Code::BrokerNotAvailable
        | Code::NetworkException
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::PurgeQueue
        | Code::PurgeInflight => FaultKind::Disconnected,
        Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidRecord => FaultKind::RefusedEvent,
        _ => FaultKind::Transient,
    }
}

/// The code inside a client error; `None` for configuration errors, which have none.
pub fn code_of(error: &KafkaError) -> Option<Code> {
    error.rdkafka_error_code()
}

/// A fault with the code's kind and librdkafka's own name for it.
pub fn fault_of(code: Code, doing: impl Into<String>, detail: impl Into<String>) -> Fault {
    Fault::new(kind_of(code), code_name(code), doing, detail)
}

pub fn fault_from(error: KafkaError, doing: impl Into<String>) -> Fault {
    let detail = printable(&error.to_string());
    match code_of(&error) {
        Some(code) => fault_of(code, doing, detail).with_source(error),
        None => Fault::new(FaultKind::Misconfigured, "kafka-config", doing, detail).with_source(error),
    }
}

/// Stable text for dead letters and metrics, `kafka-UnknownTopicOrPartition`.
pub fn code_name(code: Code) -> String {
    format!("kafka-{code:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_and_fencing_are_never_retried() {
        assert_eq!(kind_of(Code::AutoOffsetReset), FaultKind::HistoryBroken);
        assert_eq!(kind_of(Code::FencedInstanceId), FaultKind::NotOurs);
        assert_eq!(kind_of(Code::AllBrokersDown), FaultKind::Disconnected);
        assert_eq!(kind_of(Code::NotLeaderForPartition), FaultKind::Transient);
    }
}
