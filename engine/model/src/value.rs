//! A typed value on its way into a view: exact digits, no `f64` for anything that was not declared a float.

use crate::text::Text;

/// One cell, in three words: batches hold hundreds of thousands. Text of any kind is UTF-8 and usually a piece of the block
/// that the event came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Any signed or unsigned integer column up to 64 bits: `i128` would cost every cell 8 bytes, so `u64` beyond `i64::MAX`
    /// travels as [`Value::Decimal`].
    Int(i64),
    /// `f32` and `f64` columns only; finite.
    Float(f64),
    /// Canonical decimal digits: optional `-`, no leading zeros, no exponent, no trailing zeros after the point, `0` for zero.
    Decimal(Text),
    Text(Text),
    /// A JSON document as received, white space included.
    Json(Text),
    Uuid([u8; 16]),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00, no zone; what had a zone was brought to UTC.
    Timestamp(i64),
    /// Microseconds since 1970-01-01T00:00:00Z.
    TimestampTz(i64),
    Binary(Box<[u8]>),
    Array(Box<[Value]>),
}

impl Value {
    /// Appends the canonical, self-delimiting form: equal values give equal bytes, different values of one column type give
    /// different ones, and no two lists of values collide (SEMANTICS 1.1). Used for view keys, lanes and sorting.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let sized = |tag: u8, bytes: &[u8], out: &mut Vec<u8>| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Value::Null => out.push(0),
            Value::Bool(b) => out.extend_from_slice(&[1, u8::from(*b)]),
            // Flipping the sign bit makes byte order the order of the numbers, so that batches sort by key cheaply.
            Value::Int(i) => {
                out.push(2);
                out.extend_from_slice(&((*i as u64) ^ (1 << 63)).to_be_bytes());
            }
            Value::Float(x) => {
                out.push(3);
                let zero_folded = if *x == 0.0 { 0.0f64 } else { *x };
                out.extend_from_slice(&zero_folded.to_bits().to_be_bytes());
            }
            Value::Decimal(t) => sized(4, t.as_bytes(), out),
            Value::Text(t) => sized(5, t.as_bytes(), out),
            Value::Json(t) => sized(6, t.as_bytes(), out),
            Value::Uuid(u) => {
                out.push(7);
                out.extend_from_slice(u);
            }
            Value::Date(d) => {
                out.push(8);
                out.extend_from_slice(&((*d as u32) ^ (1 << 31)).to_be_bytes());
            }
            Value::Time(t) | Value::Timestamp(t) | Value::TimestampTz(t) => {
                out.push(9);
                out.extend_from_slice(&((*t as u64) ^ (1 << 63)).to_be_bytes());
            }
            Value::Binary(b) => sized(10, b, out),
            Value::Array(items) => {
                out.push(11);
                out.extend_from_slice(&(items.len() as u32).to_be_bytes());
                for item in items {
                    item.write_canonical(out);
                }
            }
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Roughly what the value holds on to, for byte budgets.
    pub fn weight(&self) -> usize {
        let held = match self {
            Value::Decimal(t) | Value::Text(t) | Value::Json(t) => t.len(),
            Value::Binary(b) => b.len(),
            Value::Array(items) => items.iter().map(Value::weight).sum(),
            _ => 0,
        };
        size_of::<Value>() + held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|v| v.write_canonical(&mut out));
        out
    }

    #[test]
    fn o24_composite_keys_do_not_collide() {
        let text = |s: &str| Value::Text(s.into());
        for (a, b) in [("a_b", "c"), ("a.b", "c"), ("a/b", "c"), ("a\0b", "c"), ("", "ab")] {
            let (left, right) = (key(&[text(a), text(b)]), key(&[text("a"), text(&format!("b{b}"))]));
            assert_ne!(left, right);
        }
        assert_ne!(key(&[text("a_b"), text("c")]), key(&[text("a"), text("b_c")]));
    }

    #[test]
    fn a_cell_has_three_words() {
        assert_eq!(size_of::<Value>(), 24);
    }

    #[test]
    fn integers_sort_as_numbers() {
        let mut keys: Vec<_> = [-5i64, 0, i64::MIN, 7, i64::MAX].iter().map(|i| key(&[Value::Int(*i)])).collect();
        keys.sort();
        let want: Vec<_> = [i64::MIN, -5, 0, 7, i64::MAX].iter().map(|i| key(&[Value::Int(*i)])).collect();
        assert_eq!(keys, want);
    }
}
