//! What a JetStream delivery says of itself, in its reply subject. Pure.

/// Numbers of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Sequence in the stream, from 1.
    pub stream: u64,
    /// Counts this consumer's deliveries from 1, without gap: a gap means that one did not reach us.
    pub consumer: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub nanos: i64,
    /// What this consumer had left to deliver behind it.
    pub pending: u64,
}

/// Reads `$JS.ACK.STREAM.CONSUMER.DELIVERED.SSEQ.CSEQ.NANOS.PENDING`, or the longer form that begins with domain and account.
pub(super) fn parse(reply: &str) -> Option<Delivery> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let parts: Vec<&str> = rest.split('.').collect();
    // Domain and account hash in front, a token behind: told apart by the count alone.
    let from = match parts.len() {
        7 => 3,
        9 | 10 => 5,
        _ => return None,
    };
    Some(Delivery {
        stream: parts[from].parse().ok()?,
        consumer: parts[from + 1].parse().ok()?,
        nanos: parts[from + 2].parse().ok()?,
        pending: parts[from + 3].parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let delivery = Delivery { stream: 7, consumer: 3, nanos: 1_700_000_000_000_000_001, pending: 12 };
        assert_eq!(parse("$JS.ACK.S.C.1.7.3.1700000000000000001.12"), Some(delivery));
        assert_eq!(parse("$JS.ACK.hub.ACCHASH.S.C.1.7.3.1700000000000000001.12"), Some(delivery));
        assert_eq!(parse("$JS.ACK.hub.ACCHASH.S.C.1.7.3.1700000000000000001.12.x7"), Some(delivery));
        for other in ["", "_INBOX.a", "$JS.ACK.S.C.1.7.3", "$JS.ACK.S.C.1.x.3.1.2", "$JS.ACK.S.C.1.7.3.1.2.5"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
