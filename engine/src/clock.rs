//! The wall clock, for display and TTL only: order comes from sequences.

use gravity_model::{Micros, failpoint};

const DAY: Micros = 86_400_000_000;

/// Now, in microseconds since 1970.
pub fn now() -> Micros {
    let now = chrono::Utc::now().timestamp_micros();
    // A clock that was set back, to show that nothing but what is displayed follows it.
    if failpoint::sabotaged("clock.back") { now - DAY } else { now }
}

/// RFC 3339 in UTC with microseconds; an impossible time shows as its number.
pub fn rfc3339(at: Micros) -> String {
    match chrono::DateTime::from_timestamp_micros(at) {
        Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        None => at.to_string(),
    }
}
