//! What lies behind a client's error: its causes as one line, and whether a TLS handshake is among them.

use std::error::Error as StdError;

use crate::printable::printable;

/// The whole chain of an error as one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors of clients repeat their cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    printable(&text)
}

/// A handshake that failed shows only as an I/O error around it.
pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_behind_each_other_once_each() {
        let handshake = rustls::Error::General("no common cipher".to_owned());
        let around = std::io::Error::other(handshake);
        assert!(is_tls(&around));
        assert_eq!(chain(&around), "unexpected error: no common cipher");
        let other = std::io::Error::other("refused");
        assert!(!is_tls(&other));
        assert_eq!(chain(&other), "refused");
    }
}
