//! Exact decimal numbers: no digit is ever lost, no result overflows, nothing passes through `f64`.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::BigInt;

/// Most digits that are read into 128 bits; longer numbers are exact too, only slower.
const SMALL_DIGITS: usize = 37;

/// `mantissa` / 10^`scale`.
#[derive(Clone, Debug)]
pub(crate) enum Number {
    Small { mantissa: i128, scale: u32 },
    Big(Box<BigInt>, u32),
}

impl Number {
    pub fn of_int(value: i64) -> Number {
        Number::Small { mantissa: i128::from(value), scale: 0 }
    }

    /// Reads the form of [`Value::Decimal`](gravity_model::Value): sign, digits, at most one point. `None` for anything else.
    pub fn parse(digits: &str) -> Option<Number> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let unsigned = whole.strip_prefix('-').unwrap_or(whole);
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if unsigned.is_empty() || !all_digits(unsigned) || !all_digits(fraction) {
            return None;
        }
        let scale = u32::try_from(fraction.len()).ok()?;
        if unsigned.len() + fraction.len() <= SMALL_DIGITS {
            let add = |sum: i128, byte: u8| sum * 10 + i128::from(byte - b'0');
            let size = unsigned.bytes().chain(fraction.bytes()).fold(0, add);
            let mantissa = if unsigned.len() < whole.len() { -size } else { size };
            return Some(Number::Small { mantissa, scale });
        }
        let joined = format!("{whole}{fraction}");
        Some(Number::Big(Box::new(joined.parse().ok()?), scale))
    }

    fn parts(&self) -> (BigInt, u32) {
        match self {
            Number::Small { mantissa, scale } => (BigInt::from(*mantissa), *scale),
            Number::Big(mantissa, scale) => ((**mantissa).clone(), *scale),
        }
    }

    fn scale(&self) -> u32 {
        match self {
            Number::Small { scale, .. } | Number::Big(_, scale) => *scale,
        }
    }

    fn of_parts(mantissa: BigInt, scale: u32) -> Number {
        match i128::try_from(&mantissa) {
            Ok(mantissa) => Number::Small { mantissa, scale },
            Err(_) => Number::Big(Box::new(mantissa), scale),
        }
    }

    pub fn is_zero(&self) -> bool {
        match self {
            Number::Small { mantissa, .. } => *mantissa == 0,
            Number::Big(mantissa, _) => **mantissa == BigInt::ZERO,
        }
    }

    /// Both mantissas at the larger of the two scales; `None` where 128 bits do not hold them.
    fn aligned(&self, other: &Number) -> Option<(i128, i128, u32)> {
        let (Number::Small { mantissa: a, scale: s }, Number::Small { mantissa: b, scale: t }) = (self, other) else {
            return None;
        };
        match s.cmp(t) {
            Ordering::Equal => Some((*a, *b, *s)),
            Ordering::Less => Some((a.checked_mul(10i128.checked_pow(t - s)?)?, *b, *t)),
            Ordering::Greater => Some((*a, b.checked_mul(10i128.checked_pow(s - t)?)?, *s)),
        }
    }

    fn aligned_big(&self, other: &Number) -> (BigInt, BigInt, u32) {
        let ((a, s), (b, t)) = (self.parts(), other.parts());
        let scale = s.max(t);
        (a * ten_to(scale - s), b * ten_to(scale - t), scale)
    }

    pub fn compare(&self, other: &Number) -> Ordering {
        match self.aligned(other) {
            Some((a, b, _)) => a.cmp(&b),
            None => {
                let (a, b, _) = self.aligned_big(other);
                a.cmp(&b)
            }
        }
    }

    pub fn add(&self, other: &Number) -> Number {
        let small = self.aligned(other).and_then(|(a, b, scale)| Some((a.checked_add(b)?, scale)));
        match small {
            Some((mantissa, scale)) => Number::Small { mantissa, scale },
            None => {
                let (a, b, scale) = self.aligned_big(other);
                Number::of_parts(a + b, scale)
            }
        }
    }

    pub fn negate(&self) -> Number {
        match self {
            Number::Small { mantissa, scale } if *mantissa != i128::MIN => {
                Number::Small { mantissa: -mantissa, scale: *scale }
            }
            other => {
                let (mantissa, scale) = other.parts();
                Number::of_parts(-mantissa, scale)
            }
        }
    }

    pub fn multiply(&self, other: &Number) -> Number {
        if let (Number::Small { mantissa: a, scale: s }, Number::Small { mantissa: b, scale: t }) = (self, other)
            && let Some(mantissa) = a.checked_mul(*b)
        {
            return Number::Small { mantissa, scale: s + t };
        }
        let ((a, s), (b, t)) = (self.parts(), other.parts());
        Number::of_parts(a * b, s + t)
    }

    /// The whole part, cut towards zero.
    pub fn truncate(&self) -> Number {
        match self {
            whole if whole.scale() == 0 => whole.clone(),
            Number::Small { mantissa, scale } => {
                // A power that 128 bits do not hold is larger than any mantissa.
                let mantissa = 10i128.checked_pow(*scale).map_or(0, |power| mantissa / power);
                Number::Small { mantissa, scale: 0 }
            }
            Number::Big(mantissa, scale) => Number::of_parts(&**mantissa / ten_to(*scale), 0),
        }
    }

    /// Whole quotient and remainder of two whole numbers, cut towards zero, the remainder with the sign of `self`. `None`:
    /// divided by zero.
    pub fn divide_whole(&self, by: &Number) -> Option<(Number, Number)> {
        if by.is_zero() {
            return None;
        }
        let (a, b) = (self.truncate(), by.truncate());
        if let (Number::Small { mantissa: a, .. }, Number::Small { mantissa: b, .. }) = (&a, &b)
            && let (Some(quotient), Some(remainder)) = (a.checked_div(*b), a.checked_rem(*b))
        {
            return Some((
                Number::Small { mantissa: quotient, scale: 0 },
                Number::Small { mantissa: remainder, scale: 0 },
            ));
        }
        let ((a, _), (b, _)) = (a.parts(), b.parts());
        let quotient = &a / &b;
        let remainder = a - &quotient * b;
        Some((Number::of_parts(quotient, 0), Number::of_parts(remainder, 0)))
    }

    /// The quotient with `digits` digits behind the point, halves away from zero. `None`: divided by zero.
    pub fn divide(&self, by: &Number, digits: u32) -> Option<Number> {
        if by.is_zero() {
            return None;
        }
        let ((a, s), (b, t)) = (self.parts(), by.parts());
        // a/10^s : b/10^t, times 10^digits, as one fraction of whole numbers.
        let up = digits + t;
        let (numerator, denominator) = if up >= s { (a * ten_to(up - s), b) } else { (a, b * ten_to(s - up)) };
        Some(Number::of_parts(divide_half_away(&numerator, &denominator), digits))
    }

    /// With at most `digits` digits behind the point, halves away from zero.
    pub fn round(&self, digits: u32) -> Number {
        let scale = self.scale();
        if scale <= digits {
            return self.clone();
        }
        let (mantissa, _) = self.parts();
        Number::of_parts(divide_half_away(&mantissa, &ten_to(scale - digits)), digits)
    }
}

fn ten_to(power: u32) -> BigInt {
    BigInt::from(10u8).pow(power)
}

fn divide_half_away(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let quotient = numerator / denominator;
    let remainder = numerator - &quotient * denominator;
    if remainder.magnitude() * 2u8 < *denominator.magnitude() {
        return quotient;
    }
    let positive = (numerator < &BigInt::ZERO) == (denominator < &BigInt::ZERO);
    if positive { quotient + 1 } else { quotient - 1 }
}

/// The form of [`Value::Decimal`](gravity_model::Value): no exponent, no needless zeros, no negative zero.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, scale) = match self {
            Number::Small { mantissa, scale } => (mantissa.to_string(), *scale as usize),
            Number::Big(mantissa, scale) => (mantissa.to_string(), *scale as usize),
        };
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let fraction = fraction.trim_end_matches('0');
        match (whole, fraction) {
            ("0", "") => f.write_str("0"),
            (whole, "") => write!(f, "{sign}{whole}"),
            (whole, fraction) => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect("digits")
    }

    #[test]
    fn digits_survive() {
        let long = "123456789012345678901234567890.12345678901234567890123456789";
        for text in ["0", "-7", "0.1", "18446744073709551615", long] {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("0.1").add(&number("0.2")).to_string(), "0.3");
        assert_eq!(number("-0.0").to_string(), "0");
        assert_eq!(
            number(long).multiply(&number("10")).to_string(),
            "1234567890123456789012345678901.2345678901234567890123456789"
        );
        for bad in ["", "-", "1e3", ".5", "1.2.3", "+1"] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn quotients_are_cut_or_rounded_as_said() {
        let whole = |a: &str, b: &str| number(a).divide_whole(&number(b)).map(|(q, r)| (q.to_string(), r.to_string()));
        assert_eq!(whole("7", "-2"), Some(("-3".into(), "1".into())));
        assert_eq!(whole("-7", "2"), Some(("-3".into(), "-1".into())));
        assert_eq!(whole("7", "0"), None);
        let rounded = |a: &str, b: &str, digits| number(a).divide(&number(b), digits).map(|n| n.to_string());
        assert_eq!(rounded("1", "3", 4), Some("0.3333".into()));
        assert_eq!(rounded("-1", "8", 2), Some("-0.13".into()));
        assert_eq!(rounded("1.05", "0.7", 0), Some("2".into()));
        assert_eq!(rounded("1", "0", 2), None);
        assert_eq!(number("-2.345").round(2).to_string(), "-2.35");
        assert_eq!(number("-2.9").truncate().to_string(), "-2");
    }

    proptest! {
        #[test]
        fn small_and_big_agree(a: i64, b: i64, s in 0u32..20, t in 0u32..20) {
            let small = |m: i64, scale| Number::Small { mantissa: m.into(), scale };
            let big = |m: i64, scale| Number::Big(Box::new(BigInt::from(m)), scale);
            prop_assert_eq!(small(a, s).compare(&small(b, t)), big(a, s).compare(&big(b, t)));
            prop_assert_eq!(small(a, s).add(&small(b, t)).to_string(), big(a, s).add(&big(b, t)).to_string());
            prop_assert_eq!(small(a, s).multiply(&small(b, t)).to_string(), big(a, s).multiply(&big(b, t)).to_string());
            prop_assert_eq!(small(a, s).truncate().to_string(), big(a, s).truncate().to_string());
            let text = small(a, s).to_string();
            prop_assert_eq!(Number::parse(&text).map(|n| n.to_string()), Some(text));
        }
    }
}
