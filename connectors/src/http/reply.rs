//! What a reply means: the status table of SEMANTICS 5.4, and limits on all that comes back (T23).

use std::time::Duration;

use chrono::NaiveDateTime;
use gravity_model::FaultKind;
use gravity_model::event::Micros;
use reqwest::StatusCode;

/// Bytes of a reply's body that are read.
pub const REPLY_BYTES: usize = 64 * 1024;
/// Characters of it that an operator sees.
const SHOWN: usize = 200;
/// No endpoint may hold us back longer.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);

/// `None`: delivered.
pub fn kind_of(status: StatusCode) -> Option<FaultKind> {
    match status.as_u16() {
        200..=299 => None,
        // Redirects are not followed: the operator names the place.
        300..=399 => Some(FaultKind::Misconfigured),
        400 | 413 | 422 => Some(FaultKind::RefusedEvent),
        401 | 403 | 404 | 405 | 410 => Some(FaultKind::Misconfigured),
        _ => Some(FaultKind::Transient),
    }
}

/// `Retry-After`: seconds or an HTTP date in one of its three forms (RFC 9110, 5.6.7), at most an hour; `None` when it is
/// absent or unreadable.
pub fn retry_after(value: &str, now: Micros) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_CAP));
    }
    let until = chrono::DateTime::parse_from_rfc2822(value)
        .map(|at| at.naive_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(value, "%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|_| NaiveDateTime::parse_from_str(value, "%a %b %e %H:%M:%S %Y"))
        .ok()?;
    let micros = u64::try_from(until.and_utc().timestamp_micros().saturating_sub(now)).unwrap_or(0);
    Some(Duration::from_micros(micros).min(RETRY_AFTER_CAP))
}

/// The beginning of a reply's body, safe to print.
pub fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN)]);
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_table() {
        let of = |code: u16| kind_of(StatusCode::from_u16(code).expect("status"));
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(of(code), None, "{code}");
        }
        for code in [400, 413, 422] {
            assert_eq!(of(code), Some(FaultKind::RefusedEvent), "{code}");
        }
        for code in [301, 302, 307, 308, 401, 403, 404, 405, 410] {
            assert_eq!(of(code), Some(FaultKind::Misconfigured), "{code}");
        }
        for code in [408, 409, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(of(code), Some(FaultKind::Transient), "{code}");
        }
    }

    #[test]
    fn retry_after_is_capped() {
        assert_eq!(retry_after(" 7 ", 0), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("999999", 0), Some(Duration::from_secs(3600)));
        let at = 1_445_412_480_000_000;
        for date in ["Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"] {
            assert_eq!(retry_after(date, at - 5_000_000), Some(Duration::from_secs(5)), "{date}");
            assert_eq!(retry_after(date, at + 5_000_000), Some(Duration::ZERO), "{date}");
            assert_eq!(retry_after(date, at - 86_400_000_000), Some(Duration::from_secs(3600)), "{date}");
        }
        assert_eq!(retry_after("soon", 0), None);
    }

    #[test]
    fn t23_replies_are_hostile_text() {
        assert_eq!(shown(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown(&[b'x'; 100_000]).len(), SHOWN);
    }
}
