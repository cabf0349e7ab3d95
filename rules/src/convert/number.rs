//! Numbers by their digits. No `f64` unless the column is one.

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::Text;
use gravity_model::{ColumnType, Value};

use super::{Reject, share};
use crate::codes;

/// `1e1000000` is seven bytes on the wire and a megabyte of zeros in a column: more digits than this are refused.
const MOST_DIGITS: i64 = 1_000;

/// A whole number in `range`. `1.0` and `1e3` are whole; `1.5` is refused, not cut.
pub(super) fn integer(token: &[u8], range: (i128, i128), column_type: &ColumnType) -> Result<Value, Reject> {
    let value = match short_integer(token) {
        Some(value) => i128::from(value),
        None => {
            let canonical = canonical(token)?;
            let digits = canonical.as_str(token);
            if digits.contains('.') {
                return Err(Reject::new(
                    codes::LOSSY,
                    format!("{} is no whole number, the column is {column_type}", show(token)),
                ));
            }
            digits.parse::<i128>().map_err(|_| out_of_range(token, column_type))?
        }
    };
    if value < range.0 || value > range.1 {
        return Err(out_of_range(token, column_type));
    }
    Ok(match i64::try_from(value) {
        Ok(value) => Value::Int(value),
        Err(_) => Value::Decimal(Text::from(value.to_string())),
    })
}

/// Plain digits that surely fit, which is nearly every number.
#[inline]
pub(super) fn short_integer(token: &[u8]) -> Option<i64> {
    let (negative, digits) = match token {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

pub(super) fn float(token: &[u8], single: bool, column_type: &ColumnType) -> Result<Value, Reject> {
    let text = std::str::from_utf8(token).unwrap_or_default();
    let value = if single { text.parse::<f32>().map(f64::from) } else { text.parse::<f64>() };
    match value {
        // The nearest float of a number is never infinite, and never zero unless the number is.
        Ok(value) if value.is_finite() && (value != 0.0 || is_zero(token)) => Ok(Value::Float(value)),
        _ => Err(out_of_range(token, column_type)),
    }
}

fn is_zero(token: &[u8]) -> bool {
    let mantissa = token.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    mantissa.iter().all(|byte| !matches!(byte, b'1'..=b'9'))
}

/// All digits, canonical; refused where they do not fit precision and scale.
pub(super) fn decimal(token: &[u8], bounds: Option<(u16, u16)>, records: Option<&Arc<Bytes>>) -> Result<Value, Reject> {
    let canonical = canonical(token)?;
    if let Some((precision, scale)) = bounds {
        fit(canonical.as_str(token), precision, scale)?;
    }
    Ok(Value::Decimal(match canonical {
        Canonical::AsWritten => share(token, records),
        Canonical::Rewritten(digits) => Text::from(digits),
    }))
}

/// Refuses canonical digits that do not fit `decimal(precision,scale)`.
pub(super) fn fit(digits: &str, precision: u16, scale: u16) -> Result<(), Reject> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('-');
    if fraction.len() > usize::from(scale) {
        let message = format!(
            "{digits} has {} digits after the point, decimal({precision},{scale}) keeps {scale}",
            fraction.len()
        );
        return Err(Reject::new(codes::LOSSY, message));
    }
    if whole != "0" && whole.len() > usize::from(precision - scale) {
        return Err(Reject::new(codes::OUT_OF_RANGE, format!("{digits} does not fit decimal({precision},{scale})")));
    }
    Ok(())
}

/// Result of [`canonical`].
enum Canonical {
    /// The token is canonical already.
    AsWritten,
    Rewritten(String),
}

impl Canonical {
    fn as_str<'t>(&'t self, token: &'t [u8]) -> &'t str {
        match self {
            Canonical::AsWritten => std::str::from_utf8(token).unwrap_or_default(),
            Canonical::Rewritten(digits) => digits,
        }
    }
}

/// The form of [`Value::Decimal`] of a number token: exponent resolved, no needless zeros, no negative zero.
fn canonical(token: &[u8]) -> Result<Canonical, Reject> {
    let point = memchr::memchr(b'.', token);
    let exponent_at = memchr::memchr2(b'e', b'E', token);
    if exponent_at.is_none() && token != b"-0" && (point.is_none() || token.last() != Some(&b'0')) {
        return match token.len() as i64 > MOST_DIGITS {
            true => Err(too_many_digits(token)),
            false => Ok(Canonical::AsWritten),
        };
    }
    let (mantissa, exponent) = match exponent_at {
        Some(at) => (&token[..at], exponent(&token[at + 1..])),
        None => (token, 0),
    };
    let (negative, mantissa) = match mantissa {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits: Vec<u8> = whole.iter().chain(fraction).copied().collect();
    let leading = digits.iter().take_while(|d| **d == b'0').count();
    let significant = &digits[leading..];
    let trailing = significant.iter().rev().take_while(|d| **d == b'0').count();
    let significant = &significant[..significant.len() - trailing];
    if significant.is_empty() {
        return Ok(Canonical::Rewritten("0".to_owned()));
    }
    // Digits before the point, counted from the first significant one; may be negative.
    let before = (whole.len() as i64 - leading as i64).saturating_add(exponent);
    let count = significant.len() as i64;
    if before.saturating_abs().saturating_add(count) > MOST_DIGITS {
        return Err(too_many_digits(token));
    }
    let mut out = String::with_capacity(significant.len() + before.unsigned_abs() as usize + 3);
    if negative {
        out.push('-');
    }
    let text = std::str::from_utf8(significant).unwrap_or_default();
    if before <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', before.unsigned_abs() as usize));
        out.push_str(text);
    } else if before >= count {
        out.push_str(text);
        out.extend(std::iter::repeat_n('0', (before - count) as usize));
    } else {
        let (whole, fraction) = text.split_at(before as usize);
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    }
    Ok(Canonical::Rewritten(out))
}

/// Saturates: anything that large is refused by the digit count.
fn exponent(digits: &[u8]) -> i64 {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value =
        digits.iter().fold(0i64, |value, d| value.saturating_mul(10).saturating_add(i64::from(d.wrapping_sub(b'0'))));
    if negative { -value } else { value }
}

fn out_of_range(token: &[u8], column_type: &ColumnType) -> Reject {
    Reject::new(codes::OUT_OF_RANGE, format!("{} does not fit {column_type}", show(token)))
}

fn too_many_digits(token: &[u8]) -> Reject {
    Reject::new(codes::OUT_OF_RANGE, format!("{} has more than {MOST_DIGITS} digits", show(token)))
}

fn show(token: &[u8]) -> String {
    let text = String::from_utf8_lossy(token);
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}
