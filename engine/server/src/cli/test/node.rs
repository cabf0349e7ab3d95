//! JSON to compare and to show: numbers by their digits, members in any order.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

/// A JSON value of which equal forms are equal: `1.50` and `1.5`, members in another order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Null,
    Bool(bool),
    /// Without zeros that say nothing; an exponent stays as it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

impl Node {
    /// `None` where the text is no JSON.
    pub fn read(text: &str) -> Option<Node> {
        let text = text.trim();
        Some(match text.as_bytes().first()? {
            b'n' => serde_json::from_str::<()>(text).ok().map(|()| Node::Null)?,
            b't' | b'f' => Node::Bool(serde_json::from_str(text).ok()?),
            b'"' => Node::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Node::List(items.into_iter().map(|item| Node::read(item.get())).collect::<Option<_>>()?)
            }
            b'{' => {
                let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
                let read = |(name, value): (String, Box<RawValue>)| Some((name, Node::read(value.get())?));
                Node::Object(members.into_iter().map(read).collect::<Option<_>>()?)
            }
            _ => {
                serde_json::from_str::<&RawValue>(text).ok()?;
                Node::Number(digits(text))
            }
        })
    }

    pub fn object<const N: usize>(members: [(&str, Option<Node>); N]) -> Node {
        let present = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Node::Object(present.collect())
    }
}

fn digits(token: &str) -> String {
    if !token.contains('.') || token.contains(['e', 'E']) {
        return token.to_owned();
    }
    token.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// On one line, a blank behind each comma and colon.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Null => f.write_str("null"),
            Node::Bool(value) => value.fmt(f),
            Node::Number(digits) => f.write_str(digits),
            Node::Text(text) => serde_json::Value::from(text.as_str()).fmt(f),
            Node::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Node::Object(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{}: {value}", serde_json::Value::from(name.as_str()))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_forms_are_equal_and_digits_stay() {
        let same = |a: &str, b: &str| assert_eq!(Node::read(a), Node::read(b), "{a} {b}");
        same(r#"{"a":1.50,"b":[1, 2]}"#, r#"{ "b": [1,2], "a": 1.5 }"#);
        same("1.0", "1");
        assert_ne!(Node::read("12345678901234567890.1"), Node::read("12345678901234567890.2"));
        assert_ne!(Node::read("100"), Node::read("1"));
        assert_eq!(Node::read("{"), None);
        let text = r#"{"a": [null, true, "x\"", 0.10]}"#;
        assert_eq!(Node::read(text).expect("JSON").to_string(), r#"{"a": [null, true, "x\"", 0.1]}"#);
    }
}
