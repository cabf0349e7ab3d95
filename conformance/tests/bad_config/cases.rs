//! A good config directory over all five files, and the edits that spoil it: each with the one code, file and line that must be said.

use self::Edit::{Bytes, Change, Gone, Whole};

/// One fault put into the good directory.
pub struct Bad {
    pub what: &'static str,
    pub file: &'static str,
    pub edit: Edit,
    pub code: &'static str,
    /// From 1; 0 where the whole file is at fault.
    pub line: u64,
}

pub enum Edit {
    /// This text, which stands in the file once, becomes that one.
    Change(&'static str, &'static str),
    /// The file is this.
    Whole(&'static str),
    Bytes(&'static [u8]),
    /// There is no such file.
    Gone,
}

/// `PORT`, `USER`, `NAME` stand for the PostgreSQL database of the test.
pub const GOOD: &[(&str, &str)] = &[
    (
        "sources.json",
        r#"{
  "sources": {
    "orders": {
      "type": "kafka",
      "hosts": ["127.0.0.1:1"],
      "topics": ["orders"],
      "group": "gravity",
      "kafka": {"fetch.wait.max.ms": 50}
    },
    "web": {
      "type": "http"
    }
  }
}
"#,
    ),
    (
        "databases.json",
        r#"{
  "databases": {
    "db1": {
      "type": "postgres",
      "host": "127.0.0.1",
      "port": PORT,
      "username": "USER",
      "password": "",
      "dbName": "NAME",
      "ddl": "create"
    },
    "db2": {
      "type": "sqlite",
      "path": "db2.db",
      "ddl": "create"
    }
  }
}
"#,
    ),
    (
        "exporter.json",
        r#"{
  "exporter": {
    "topic": {
      "type": "kafka",
      "host": "127.0.0.1",
      "port": 1,
      "topic": "told"
    },
    "hook": {
      "type": "restful_api",
      "url": "http://127.0.0.1:1/told"
    }
  }
}
"#,
    ),
    (
        "rules.json",
        r#"{
  "rules": [
    {
      "event": "userCreated",
      "table": "users",
      "method": "update",
      "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "name", "target": "name", "type": "varchar(20)"},
        {"source": "age", "target": "age", "type": "i16", "default": 18}
      ]
    },
    {
      "event": "userCreated",
      "database": "db1",
      "exporter": ["topic", "hook"]
    },
    {
      "event": "userCreated",
      "database": "db2"
    },
    {
      "event": "userDeleted",
      "database": "db1",
      "table": "users",
      "method": "delete",
      "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true}
      ]
    }
  ]
}
"#,
    ),
    (
        "gravity.toml",
        r#"[log]
directory = "data"
linger = "2ms"

[api]
listen = "127.0.0.1:0"
tokens = [
  {name = "ops", role = "admin", token = "0123456789abcdef"},
]

[logging]
level = "info"
"#,
    ),
];

// A table is read by its rows.
#[rustfmt::skip]
pub const BAD: &[Bad] = &[
    Bad { what: "no colon", file: "sources.json", edit: Change(r#""sources": {"#, r#""sources" {"#), code: "config/syntax", line: 2 },
    Bad { what: "cut off", file: "sources.json", edit: Change(r#"    "web": {
      "type": "http"
    }
  }
}
"#, r#"    "web": {"#), code: "config/syntax", line: 10 },
    Bad { what: "trailing comma", file: "sources.json", edit: Change(r#""type": "http"
"#, r#""type": "http",
"#), code: "config/syntax", line: 11 },
    Bad { what: "a name twice", file: "sources.json", edit: Change(r#"    "web": {"#, r#"    "orders": {"#), code: "config/duplicate-key", line: 10 },
    Bad { what: "no sources", file: "sources.json", edit: Change(r#""sources": {"#, r#""source": {"#), code: "config/unknown-key", line: 2 },
    Bad { what: "list of sources", file: "sources.json", edit: Whole(r#"{
  "sources": []
}
"#), code: "config/wrong-type", line: 2 },
    Bad { what: "top is a list", file: "sources.json", edit: Whole("[]\n"), code: "config/wrong-type", line: 1 },
    Bad { what: "empty file", file: "sources.json", edit: Whole(""), code: "config/syntax", line: 0 },
    Bad { what: "type misspelt", file: "sources.json", edit: Change(r#""kafka","#, r#""kafak","#), code: "config/bad-word", line: 4 },
    Bad { what: "type missing", file: "sources.json", edit: Change(r#"      "type": "kafka",
"#, ""), code: "config/missing-key", line: 3 },
    Bad { what: "type is a number", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": 5"#), code: "config/wrong-type", line: 11 },
    Bad { what: "hosts is a text", file: "sources.json", edit: Change(r#"["127.0.0.1:1"]"#, r#""127.0.0.1:1""#), code: "config/wrong-type", line: 5 },
    Bad { what: "host without port", file: "sources.json", edit: Change(r#"["127.0.0.1:1"]"#, r#"["broker"]"#), code: "config/bad-address", line: 5 },
    Bad { what: "host with scheme", file: "sources.json", edit: Change(r#"["127.0.0.1:1"]"#, r#"["kafka://broker:9092"]"#), code: "config/bad-address", line: 5 },
    Bad { what: "port zero", file: "sources.json", edit: Change(r#"["127.0.0.1:1"]"#, r#"["127.0.0.1:0"]"#), code: "config/bad-address", line: 5 },
    Bad { what: "no hosts", file: "sources.json", edit: Change(r#"["127.0.0.1:1"]"#, "[]"), code: "config/bad-address", line: 5 },
    Bad { what: "no topics", file: "sources.json", edit: Change(r#"["orders"]"#, "[]"), code: "config/bad-value", line: 6 },
    Bad { what: "topic twice", file: "sources.json", edit: Change(r#"["orders"]"#, r#"["orders", "orders"]"#), code: "config/conflict", line: 6 },
    Bad { what: "no group", file: "sources.json", edit: Change(r#"      "group": "gravity",
"#, ""), code: "config/missing-key", line: 3 },
    Bad { what: "empty group", file: "sources.json", edit: Change(r#""group": "gravity""#, r#""group": """#), code: "config/bad-value", line: 7 },
    Bad { what: "the original's group", file: "sources.json", edit: Change(r#""group": "gravity""#, r#""groupId": "gravity""#), code: "config/removed-key", line: 7 },
    Bad { what: "offset reset", file: "sources.json", edit: Change(r#""fetch.wait.max.ms": 50"#, r#""auto.offset.reset": "latest""#), code: "config/forbidden-setting", line: 8 },
    Bad { what: "auto commit", file: "sources.json", edit: Change(r#""fetch.wait.max.ms": 50"#, r#""enable.auto.commit": true"#), code: "config/forbidden-setting", line: 8 },
    Bad { what: "isolation", file: "sources.json", edit: Change(r#""fetch.wait.max.ms": 50"#, r#""isolation.level": "read_uncommitted""#), code: "config/forbidden-setting", line: 8 },
    Bad { what: "client setting misspelt", file: "sources.json", edit: Change(r#""fetch.wait.max.ms": 50"#, r#""fetch.wiat.max.ms": 50"#), code: "config/bad-value", line: 8 },
    Bad { what: "client setting out of range", file: "sources.json", edit: Change(r#""fetch.wait.max.ms": 50"#, r#""fetch.wait.max.ms": "soon""#), code: "config/bad-value", line: 8 },
    Bad { what: "envelope unknown", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "envelope": "xml""#), code: "config/bad-word", line: 12 },
    Bad { what: "start of http", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "start": "latest""#), code: "config/unused-key", line: 12 },
    Bad { what: "two event names", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "event_name": "a",
      "event_from": "header:x""#), code: "config/conflict", line: 13 },
    Bad { what: "reserved event name", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "event_name": "twist.x""#), code: "config/bad-value", line: 12 },
    Bad { what: "event from nowhere", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "event_from": "body""#), code: "config/bad-value", line: 12 },
    Bad { what: "key from nowhere", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "key_from": "field:id""#), code: "config/bad-value", line: 12 },
    Bad { what: "batch without size", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "http",
      "max_batch": "much""#), code: "config/bad-value", line: 12 },
    Bad { what: "sasl without user", file: "sources.json", edit: Change(r#""group": "gravity","#, r#""group": "gravity",
      "saslMechanism": "PLAIN","#), code: "config/unused-key", line: 8 },
    Bad { what: "at most once not accepted", file: "sources.json", edit: Change(r#""type": "http""#, r#""type": "nats",
      "mode": "core",
      "hosts": ["127.0.0.1:1"],
      "subjects": ["a"]"#), code: "config/not-accepted", line: 10 },
    Bad { what: "source named with a dot", file: "sources.json", edit: Change(r#""web""#, r#""web.1""#), code: "config/bad-name", line: 10 },
    Bad { what: "source named ingest", file: "sources.json", edit: Change(r#""web""#, r#""ingest""#), code: "config/bad-name", line: 10 },
    Bad { what: "missing", file: "databases.json", edit: Gone, code: "config/file-missing", line: 0 },
    Bad { what: "port is a text", file: "databases.json", edit: Change(r#""port": PORT"#, r#""port": "PORT""#), code: "config/wrong-type", line: 6 },
    Bad { what: "port too large", file: "databases.json", edit: Change(r#""port": PORT"#, r#""port": 70000"#), code: "config/bad-value", line: 6 },
    Bad { what: "port negative", file: "databases.json", edit: Change(r#""port": PORT"#, r#""port": -1"#), code: "config/bad-value", line: 6 },
    Bad { what: "port is a fraction", file: "databases.json", edit: Change(r#""port": PORT"#, r#""port": 1.5"#), code: "config/wrong-type", line: 6 },
    Bad { what: "host is a URL", file: "databases.json", edit: Change(r#""host": "127.0.0.1""#, r#""host": "postgres://h""#), code: "config/bad-address", line: 5 },
    Bad { what: "host with port", file: "databases.json", edit: Change(r#""host": "127.0.0.1""#, r#""host": "h:5432""#), code: "config/bad-address", line: 5 },
    Bad { what: "no host", file: "databases.json", edit: Change(r#"      "host": "127.0.0.1",
"#, ""), code: "config/missing-key", line: 3 },
    Bad { what: "no database name", file: "databases.json", edit: Change(r#"      "dbName": "NAME",
"#, ""), code: "config/missing-key", line: 3 },
    Bad { what: "empty database name", file: "databases.json", edit: Change(r#""dbName": "NAME""#, r#""dbName": """#), code: "config/bad-value", line: 9 },
    Bad { what: "password without user", file: "databases.json", edit: Change(r#"      "username": "USER",
      "password": "",
"#, r#"      "password": "secret",
"#), code: "config/missing-key", line: 7 },
    Bad { what: "password is a number", file: "databases.json", edit: Change(r#""password": """#, r#""password": 9090"#), code: "config/wrong-type", line: 8 },
    Bad { what: "variable not set", file: "databases.json", edit: Change(r#""password": """#, r#""password": "${env:NOT_SET_ANYWHERE}""#), code: "config/unresolved-reference", line: 8 },
    Bad { what: "file not there", file: "databases.json", edit: Change(r#""password": """#, r#""password": "${file:/nowhere/at/all}""#), code: "config/unresolved-reference", line: 8 },
    Bad { what: "reference misspelt", file: "databases.json", edit: Change(r#""password": """#, r#""password": "${evn:PASSWORD}""#), code: "config/bad-reference", line: 8 },
    Bad { what: "ddl unknown", file: "databases.json", edit: Change(r#""ddl": "create"
    },
    "db2""#, r#""ddl": "alter"
    },
    "db2""#), code: "config/bad-word", line: 10 },
    Bad { what: "secure is a text", file: "databases.json", edit: Change(r#""ddl": "create"
    },
    "db2""#, r#""ddl": "create",
      "secure": "yes"
    },
    "db2""#), code: "config/wrong-type", line: 11 },
    Bad { what: "ca without TLS", file: "databases.json", edit: Change(r#""ddl": "create"
    },
    "db2""#, r#""ddl": "create",
      "caFile": "rules.json"
    },
    "db2""#), code: "config/unused-key", line: 11 },
    Bad { what: "ca not there", file: "databases.json", edit: Change(r#""ddl": "create"
    },
    "db2""#, r#""ddl": "create",
      "secure": true,
      "caFile": "nowhere.pem"
    },
    "db2""#), code: "config/file-unreadable", line: 12 },
    Bad { what: "certificate without key", file: "databases.json", edit: Change(r#""ddl": "create"
    },
    "db2""#, r#""ddl": "create",
      "secure": true,
      "certFile": "rules.json"
    },
    "db2""#), code: "config/missing-key", line: 12 },
    Bad { what: "lanes on SQLite", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "lanes": 4"#), code: "config/conflict", line: 15 },
    Bad { what: "no lanes", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "lanes": 0"#), code: "config/bad-value", line: 15 },
    Bad { what: "was itself", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "was": "db2""#), code: "config/conflict", line: 15 },
    Bad { what: "was another entry", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "was": "db1""#), code: "config/conflict", line: 15 },
    Bad { what: "one place twice", file: "databases.json", edit: Change(r#"    "db2": {"#, r#"    "db3": {"type": "sqlite", "path": "db2.db", "ddl": "create"},
    "db2": {"#), code: "config/duplicate-place", line: 13 },
    Bad { what: "no path", file: "databases.json", edit: Change(r#"      "path": "db2.db",
"#, ""), code: "config/missing-key", line: 12 },
    Bad { what: "host on SQLite", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "host": "h""#), code: "config/unknown-key", line: 15 },
    Bad { what: "max parked negative", file: "databases.json", edit: Change(r#""path": "db2.db""#, r#""path": "db2.db",
      "max_parked": -1"#), code: "config/bad-value", line: 15 },
    Bad { what: "key misspelt", file: "databases.json", edit: Change(r#""dbName": "NAME""#, r#""dbNmae": "NAME""#), code: "config/unknown-key", line: 9 },
    Bad { what: "the original's word", file: "exporter.json", edit: Change(r#""exporter": {"#, r#""exporters": {"#), code: "config/removed-key", line: 2 },
    Bad { what: "no topic name", file: "exporter.json", edit: Change(r#",
      "topic": "told""#, ""), code: "config/missing-key", line: 3 },
    Bad { what: "url without scheme", file: "exporter.json", edit: Change("http://127.0.0.1:1/told", "127.0.0.1/told"), code: "config/bad-address", line: 11 },
    Bad { what: "url of another scheme", file: "exporter.json", edit: Change("http://127.0.0.1:1/told", "ftp://127.0.0.1/told"), code: "config/bad-address", line: 11 },
    Bad { what: "url with credentials", file: "exporter.json", edit: Change("http://127.0.0.1:1/told", "http://me:secret@127.0.0.1/told"), code: "config/bad-address", line: 11 },
    Bad { what: "type unknown", file: "exporter.json", edit: Change("restful_api", "rest"), code: "config/bad-word", line: 10 },
    Bad { what: "format unknown", file: "exporter.json", edit: Change(r#""topic": "told""#, r#""topic": "told",
      "format": "xml""#), code: "config/bad-word", line: 8 },
    Bad { what: "on_refused unknown", file: "exporter.json", edit: Change(r#""topic": "told""#, r#""topic": "told",
      "on_refused": "drop""#), code: "config/bad-word", line: 8 },
    Bad { what: "mechanism unknown", file: "exporter.json", edit: Change(r#""topic": "told""#, r#""topic": "told",
      "username": "u",
      "password": "${env:HOME}",
      "saslMechanism": "GSSAPI""#), code: "config/bad-word", line: 10 },
    Bad { what: "url key on Kafka", file: "exporter.json", edit: Change(r#""topic": "told""#, r#""topic": "told",
      "url": "http://h/""#), code: "config/unknown-key", line: 8 },
    Bad { what: "missing rules", file: "rules.json", edit: Gone, code: "config/file-missing", line: 0 },
    Bad { what: "method misspelt", file: "rules.json", edit: Change(r#""update""#, r#""creat""#), code: "config/bad-word", line: 6 },
    Bad { what: "method empty", file: "rules.json", edit: Change(r#""update""#, r#""""#), code: "config/bad-word", line: 6 },
    Bad { what: "no method", file: "rules.json", edit: Change(r#"      "method": "update",
"#, ""), code: "rules/method-missing", line: 3 },
    Bad { what: "no table", file: "rules.json", edit: Change(r#"      "event": "userCreated",
      "table": "users",
"#, r#"      "event": "userCreated",
"#), code: "rules/table-missing", line: 5 },
    Bad { what: "empty event", file: "rules.json", edit: Change(r#"      "event": "userDeleted""#, r#"      "event": """#), code: "rules/bad-event", line: 23 },
    Bad { what: "event of the engine", file: "rules.json", edit: Change(r#"      "event": "userDeleted""#, r#"      "event": "gravity.parked""#), code: "rules/bad-event", line: 23 },
    Bad { what: "a rule of nothing", file: "rules.json", edit: Change(r#"    {
      "event": "userCreated",
      "database": "db2"
    }"#, r#"    {
      "event": "userCreated"
    }"#), code: "rules/empty-rule", line: 18 },
    Bad { what: "unknown database", file: "rules.json", edit: Change(r#""database": "db2""#, r#""database": "db9""#), code: "rules/unknown-database", line: 20 },
    Bad { what: "unknown exporter", file: "rules.json", edit: Change(r#"["topic", "hook"]"#, r#"["topic", "hoook"]"#), code: "rules/unknown-exporter", line: 16 },
    Bad { what: "told twice", file: "rules.json", edit: Change(r#"["topic", "hook"]"#, r#"["topic", "topic"]"#), code: "rules/duplicate-routing", line: 13 },
    Bad { what: "which database", file: "rules.json", edit: Change(r#"      "database": "db1",
      "table""#, r#"      "table""#), code: "rules/database-choice", line: 22 },
    Bad { what: "table with a quote", file: "rules.json", edit: Change(r#"      "table": "users",
      "method": "update""#, r#"      "table": "us\"ers",
      "method": "update""#), code: "rules/bad-identifier", line: 5 },
    Bad { what: "table with a statement", file: "rules.json", edit: Change(r#"      "table": "users",
      "method": "update""#, r#"      "table": "u; drop table x",
      "method": "update""#), code: "rules/bad-identifier", line: 5 },
    Bad { what: "table of the engine", file: "rules.json", edit: Change(r#"      "table": "users",
      "method": "update""#, r#"      "table": "gravity_checkpoints",
      "method": "update""#), code: "rules/reserved-table", line: 5 },
    Bad { what: "column of 70 letters", file: "rules.json", edit: Change(r#""target": "name""#, r#""target": "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn""#), code: "rules/bad-identifier", line: 9 },
    Bad { what: "column twice", file: "rules.json", edit: Change(r#""target": "name""#, r#""target": "age""#), code: "rules/duplicate-target", line: 10 },
    Bad { what: "type unknown to rules", file: "rules.json", edit: Change(r#""varchar(20)""#, r#""string""#), code: "rules/unknown-type", line: 9 },
    Bad { what: "type without length", file: "rules.json", edit: Change(r#""varchar(20)""#, r#""varchar(0)""#), code: "rules/unknown-type", line: 9 },
    Bad { what: "no type", file: "rules.json", edit: Change(r#", "type": "varchar(20)""#, ""), code: "rules/type-missing", line: 9 },
    Bad { what: "default out of range", file: "rules.json", edit: Change(r#""default": 18"#, r#""default": 40000"#), code: "rules/bad-constant", line: 10 },
    Bad { what: "default of another type", file: "rules.json", edit: Change(r#""default": 18"#, r#""default": "young""#), code: "rules/bad-constant", line: 10 },
    Bad { what: "no source", file: "rules.json", edit: Change(r#""source": "name", "#, ""), code: "rules/source-choice", line: 9 },
    Bad { what: "source and value", file: "rules.json", edit: Change(r#""source": "name", "#, r#""source": "name", "value": "x", "#), code: "rules/source-choice", line: 9 },
    Bad { what: "path of nothing", file: "rules.json", edit: Change(r#""source": "name""#, r#""source": "a..b""#), code: "rules/bad-path", line: 9 },
    Bad { what: "metadata unknown", file: "rules.json", edit: Change(r#""source": "name""#, r#""source": "$meta.sequnce""#), code: "rules/bad-path", line: 9 },
    Bad { what: "no key", file: "rules.json", edit: Change(r#", "primary": true},
        {"source": "name""#, r#"},
        {"source": "name""#), code: "rules/key-missing", line: 6 },
    Bad { what: "two keys for a table", file: "rules.json", edit: Change(r#""method": "delete","#, r#""method": "delete",
      "primaryKey": "name","#), code: "rules/key-conflict", line: 27 },
    Bad { what: "key of another type", file: "rules.json", edit: Change(r#"{"source": "id", "target": "id", "type": "i64", "primary": true}
"#, r#"{"source": "id", "target": "id", "type": "text", "primary": true}
"#), code: "rules/type-conflict", line: 28 },
    Bad { what: "previous without key", file: "rules.json", edit: Change(r#""source": "age""#, r#""source": "age", "previous": "old""#), code: "rules/bad-previous", line: 10 },
    Bad { what: "on_missing without patch", file: "rules.json", edit: Change(r#""method": "update","#, r#""method": "update",
      "on_missing": "park","#), code: "rules/unused-key", line: 7 },
    Bad { what: "on_conflict unknown", file: "rules.json", edit: Change(r#""method": "update","#, r#""method": "insert",
      "on_conflict": "replace","#), code: "config/bad-word", line: 7 },
    Bad { what: "script", file: "rules.json", edit: Change(r#""method": "update","#, r#""method": "update",
      "handler": {"type": "script", "script": "return source"},"#), code: "config/removed-key", line: 7 },
    Bad { what: "filter", file: "rules.json", edit: Change(r#""database": "db2""#, r#""database": "db2",
      "filter": "age >> 17""#), code: "rules/expression-syntax", line: 21 },
    Bad { what: "filter of two types", file: "rules.json", edit: Change(r#""database": "db2""#, r#""database": "db2",
      "filter": "age > 17 && age == 'old'""#), code: "rules/expression-type", line: 21 },
    Bad { what: "primary is a text", file: "rules.json", edit: Change(r#""primary": true},
        {"source": "name""#, r#""primary": "yes"},
        {"source": "name""#), code: "config/wrong-type", line: 8 },
    Bad { what: "mapping is an object", file: "rules.json", edit: Change(r#""mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true}
      ]"#, r#""mapping": {}"#), code: "config/wrong-type", line: 27 },
    Bad { what: "rule key misspelt", file: "rules.json", edit: Change(r#""exporter": ["#, r#""exporters": ["#), code: "config/removed-key", line: 16 },
    Bad { what: "broken TOML", file: "gravity.toml", edit: Change(r#"linger = "2ms""#, "linger = "), code: "config/toml-syntax", line: 3 },
    Bad { what: "section misspelt", file: "gravity.toml", edit: Change("[logging]", "[loging]"), code: "config/unknown-key", line: 11 },
    Bad { what: "setting misspelt", file: "gravity.toml", edit: Change("linger =", "lingre ="), code: "config/unknown-key", line: 3 },
    Bad { what: "duration of nothing", file: "gravity.toml", edit: Change(r#""2ms""#, r#""soon""#), code: "config/bad-value", line: 3 },
    Bad { what: "number for a text", file: "gravity.toml", edit: Change(r#""data""#, "5"), code: "config/bad-value", line: 2 },
    Bad { what: "listens nowhere", file: "gravity.toml", edit: Change(r#""127.0.0.1:0""#, r#""localhost""#), code: "config/bad-value", line: 6 },
    Bad { what: "role unknown", file: "gravity.toml", edit: Change(r#""admin""#, r#""root""#), code: "config/bad-value", line: 7 },
    Bad { what: "level unknown", file: "gravity.toml", edit: Change(r#""info""#, r#""loud""#), code: "config/bad-value", line: 12 },
    Bad { what: "setting twice", file: "gravity.toml", edit: Change(r#"linger = "2ms""#, r#"directory = "other""#), code: "config/toml-syntax", line: 3 },
    Bad { what: "twist without build", file: "gravity.toml", edit: Change("[logging]", r#"[twistt]
listen = "127.0.0.1:1"

[logging]"#), code: "config/unknown-key", line: 11 },
    Bad { what: "token too short", file: "gravity.toml", edit: Change(r#""0123456789abcdef""#, r#""short""#), code: "config/conflict", line: 7 },
    Bad { what: "open to the network", file: "gravity.toml", edit: Change(r#""127.0.0.1:0"
tokens = [
  {name = "ops", role = "admin", token = "0123456789abcdef"},
]"#, r#""0.0.0.0:0"
tls = {certFile = "rules.json", keyFile = "rules.json"}"#), code: "config/api-open", line: 6 },
    Bad { what: "plain to the network", file: "gravity.toml", edit: Change(r#""127.0.0.1:0""#, r#""0.0.0.0:0""#), code: "config/api-plaintext", line: 6 },
    Bad { what: "the original's triggers", file: "trigger.json", edit: Whole("{}"), code: "config/unknown-file", line: 0 },
    Bad { what: "plural of the file", file: "exporters.json", edit: Whole(r#"{"exporter": {}}"#), code: "config/unknown-file", line: 0 },
    Bad { what: "singular of the file", file: "database.json", edit: Whole(r#"{"databases": {}}"#), code: "config/unknown-file", line: 0 },
    Bad { what: "rules below rules", file: "rules/1.json", edit: Whole(r#"{
  "rulse": []
}
"#), code: "config/unknown-key", line: 2 },
    Bad { what: "not UTF-8", file: "sources.json", edit: Bytes(b"{\"sources\": {\"\xff\": {}}}\n"), code: "config/file-unreadable", line: 0 },
];
