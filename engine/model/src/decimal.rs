//! Sums and comparisons of decimal digits of any length: what [`ColumnOp`](crate::ColumnOp) needs, without a bignum library.

use std::cmp::Ordering;

/// Canonical digits as [`Value::Decimal`](crate::Value) has them, from any plain form: `-012.50` is `-12.5`. `None` for
/// anything but an optional sign, digits and at most one point (no exponent, no blanks).
pub fn canonical(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix('-').or_else(|| text.strip_prefix('+')).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    Some(written(text.starts_with('-'), whole.as_bytes(), fraction.as_bytes()))
}

/// The exact sum of two canonical numbers, canonical.
pub fn add(left: &str, right: &str) -> String {
    let (left, right) = (Parts::of(left), Parts::of(right));
    let scale = left.fraction.len().max(right.fraction.len());
    let width = left.whole.len().max(right.whole.len()) + scale;
    let (mut a, mut b) = (left.digits(width, scale), right.digits(width, scale));
    let mut negative = left.negative;
    if left.negative == right.negative {
        let mut carry = 0;
        for (a, b) in a.iter_mut().zip(&b).rev() {
            let sum = *a + b + carry;
            (*a, carry) = (sum % 10, sum / 10);
        }
        a.insert(0, carry);
    } else {
        if a < b {
            std::mem::swap(&mut a, &mut b);
            negative = right.negative;
        }
        let mut borrow = 0;
        for (a, b) in a.iter_mut().zip(&b).rev() {
            let taken = b + borrow;
            borrow = u8::from(*a < taken);
            *a = *a + 10 * borrow - taken;
        }
    }
    a.iter_mut().for_each(|digit| *digit += b'0');
    let (whole, fraction) = a.split_at(a.len() - scale);
    written(negative, whole, fraction)
}

/// Which of two canonical numbers is larger.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Parts::of(left), Parts::of(right));
    // Without leading zeros the longer whole part is the larger one; fractions compare as texts.
    let size = |p: &Parts<'_>, q: &Parts<'_>| {
        p.whole.len().cmp(&q.whole.len()).then_with(|| p.whole.cmp(q.whole)).then_with(|| p.fraction.cmp(q.fraction))
    };
    match (left.negative, right.negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => size(&left, &right),
        (true, true) => size(&right, &left),
    }
}

/// Digits before and behind the point of a canonical number; `0` has one before it.
pub fn sizes(canonical: &str) -> (usize, usize) {
    let parts = Parts::of(canonical);
    (parts.whole.len(), parts.fraction.len())
}

struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl Parts<'_> {
    fn of(canonical: &str) -> Parts<'_> {
        let unsigned = canonical.strip_prefix('-').unwrap_or(canonical);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        Parts { negative: unsigned.len() < canonical.len(), whole: whole.as_bytes(), fraction: fraction.as_bytes() }
    }

    /// `width` digits as numbers, `scale` of them behind the point.
    fn digits(&self, width: usize, scale: usize) -> Vec<u8> {
        let mut out = vec![0; width];
        let start = width - scale - self.whole.len();
        let given = self.whole.iter().chain(self.fraction).map(|byte| byte.wrapping_sub(b'0'));
        out[start..].iter_mut().zip(given).for_each(|(digit, given)| *digit = given);
        out
    }
}

fn written(negative: bool, whole: &[u8], fraction: &[u8]) -> String {
    let first = whole.iter().position(|digit| *digit != b'0').unwrap_or(whole.len());
    let end = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let (whole, fraction) = (&whole[first..], &fraction[..end]);
    let mut text = String::with_capacity(whole.len() + fraction.len() + 3);
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        text.push('-');
    }
    if whole.is_empty() {
        text.push('0');
    }
    text.extend(whole.iter().map(|digit| char::from(*digit)));
    if !fraction.is_empty() {
        text.push('.');
        text.extend(fraction.iter().map(|digit| char::from(*digit)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_become_canonical_or_are_none() {
        for (text, want) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("+1", "1"),
            ("-012.50", "-12.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("000", "0"),
            ("1.50", "1.5"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
        for text in ["", "-", ".", "1e3", " 1", "1 ", "--1", "1.2.3", "NaN", "٣"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn sums_keep_every_digit() {
        for (a, b, want) in [
            ("0", "0", "0"),
            ("0.1", "0.2", "0.3"),
            ("-1", "1", "0"),
            ("99.99", "0.01", "100"),
            ("-0.5", "0.25", "-0.25"),
            ("100", "-0.01", "99.99"),
            (
                "123456789012345678901234567890.000000000000000000001",
                "1",
                "123456789012345678901234567891.000000000000000000001",
            ),
        ] {
            assert_eq!(add(a, b), want, "{a} + {b}");
            assert_eq!(add(b, a), want, "{b} + {a}");
        }
    }

    /// Against 128-bit arithmetic, over all pairs of numbers with awkward digits.
    #[test]
    fn sums_and_order_agree_with_integers() {
        let scaled: Vec<i128> = [0, 1, 5, 9, 10, 99, 100, 101, 999, 1_000, 12_345, 100_000, 999_999_999_999]
            .iter()
            .flat_map(|n| [*n, -*n])
            .collect();
        let text = |n: i128| {
            let sign = if n < 0 { "-" } else { "" };
            canonical(&format!("{sign}{}.{:02}", n.abs() / 100, n.abs() % 100)).expect("plain digits")
        };
        for a in &scaled {
            for b in &scaled {
                assert_eq!(add(&text(*a), &text(*b)), text(a + b), "{a} + {b}");
                assert_eq!(compare(&text(*a), &text(*b)), a.cmp(b), "{a} and {b}");
            }
        }
    }
}
