//! A value that must never be printed: `Debug` and `Serialize` show that it is there, not what it is (T8).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A password or token. Only [`Secret::expose`] gives the text; its callers are the connectors' options and the token table.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Secret, D::Error> {
        String::deserialize(d).map(Secret)
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A secret: write `${env:NAME}` or `${file:/path}`; a literal works and is warned about at every start.",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o53_a_secret_is_in_no_debug_output_and_no_document() {
        let secret = Secret::new("CANARY-1");
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("CANARY"));
        assert!(!serde_json::to_string(&secret).expect("plain text").contains("CANARY"));
        assert_eq!(secret.expose(), "CANARY-1");
    }
}
