//! The constant words that tell entries of different `type` apart, as types: a JSON Schema with one closed object per word
//! is what editors complete from and what the shape check reads.

macro_rules! tag {
    ($($name:ident = $word:literal;)*) => {$(
        #[doc = concat!("The word `", $word, "`.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name;

        impl $name {
            pub const WORD: &'static str = $word;
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str($word)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                let found = std::borrow::Cow::<'de, str>::deserialize(d)?;
                if found == $word { Ok($name) } else { Err(serde::de::Error::custom(concat!("expected `", $word, "`"))) }
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"const": $word})
            }
        }
    )*};
}

tag! {
    Kafka = "kafka";
    Nats = "nats";
    JetStream = "jetstream";
    RabbitMq = "rabbitmq";
    Http = "http";
    RestfulApi = "restful_api";
    Postgres = "postgres";
    MySql = "mysql";
    MongoDb = "mongodb";
    Sqlite = "sqlite";
}
