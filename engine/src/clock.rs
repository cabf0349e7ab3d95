//! The wall clock, for display and TTL only: order comes from sequences.

use gravity_model::Micros;

/// Now, in microseconds since 1970.
pub fn now() -> Micros {
    chrono::Utc::now().timestamp_micros()
}

/// RFC 3339 in UTC with microseconds; an impossible time shows as its number.
pub fn rfc3339(at: Micros) -> String {
    match chrono::DateTime::from_timestamp_micros(at) {
        Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        None => at.to_string(),
    }
}
