//! Bad config files, each with the one code and line that it must be refused with; nothing is made, no secret is shown.

use serde_json::Value;

use crate::check::{check, errors};
use crate::support::{DATABASES, Dir, Ended, RULES, gravity};

/// (what, file, text, code, line)
type Bad = (&'static str, &'static str, &'static str, &'static str, u64);

const BAD: &[Bad] = &[
    (
        "core nats not accepted",
        "sources.json",
        r#"{"sources": {"a": {"type": "nats", "mode": "core", "hosts": ["127.0.0.1:1"], "subjects": ["s"]}}}"#,
        "config/not-accepted",
        1,
    ),
    (
        "jetstream without stream",
        "sources.json",
        r#"{"sources": {"a": {"type": "nats", "hosts": ["127.0.0.1:1"], "subjects": ["s"]}}}"#,
        "config/missing-key",
        1,
    ),
    (
        "a wildcard inside a part",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"nats\", \"hosts\": [\"127.0.0.1:1\"], \"stream\": \"S\", \"subjects\": [\"a.*\",\n\"a.b*\"]}}}",
        "config/bad-value",
        2,
    ),
    (
        "a stream's name with a dot",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"nats\", \"hosts\": [\"127.0.0.1:1\"], \"subjects\": [\"a\"],\n\"stream\": \"a.b\"}}}",
        "config/bad-value",
        2,
    ),
    (
        "a queue group on a stream",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"nats\", \"hosts\": [\"127.0.0.1:1\"], \"stream\": \"S\", \"subjects\": [\"a\"],\n\"queue_group\": \"g\"}}}",
        "config/unused-key",
        2,
    ),
    (
        "a durable of core subjects",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"nats\", \"hosts\": [\"127.0.0.1:1\"], \"mode\": \"core\", \"accept_at_most_once\": true, \"subjects\": [\"a\"],\n\"durable\": \"d\"}}}",
        "config/unused-key",
        2,
    ),
    (
        "two ways to sign in",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"nats\", \"hosts\": [\"127.0.0.1:1\"], \"stream\": \"S\", \"subjects\": [\"a\"], \"nkey\": \"${env:PATH}\",\n\"token\": \"${env:PATH}\"}}}",
        "config/conflict",
        1,
    ),
    (
        "a wildcard to publish to",
        "exporter.json",
        "{\"exporter\": {\"a\": {\"type\": \"jetstream\", \"host\": \"127.0.0.1\",\n\"subject\": \"a.*\"}}}",
        "config/bad-value",
        2,
    ),
    (
        "offset reset",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"kafka\", \"hosts\": [\"127.0.0.1:1\"], \"topics\": [\"t\"], \"group\": \"g\", \"kafka\": {\n\"auto.offset.reset\": \"latest\"}}}}",
        "config/forbidden-setting",
        2,
    ),
    (
        "auto commit",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"kafka\", \"hosts\": [\"127.0.0.1:1\"], \"topics\": [\"t\"], \"group\": \"g\", \"kafka\": {\n\"enable.auto.commit\": true}}}}",
        "config/forbidden-setting",
        2,
    ),
    (
        "unknown client setting",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"kafka\", \"hosts\": [\"127.0.0.1:1\"], \"topics\": [\"t\"], \"group\": \"g\", \"kafka\": {\n\"fetch.wiat.max.ms\": 5}}}}",
        "config/bad-value",
        2,
    ),
    (
        "host without port",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"kafka\", \"hosts\": [\n\"broker\"], \"topics\": [\"t\"], \"group\": \"g\"}}}",
        "config/bad-address",
        2,
    ),
    (
        "no hosts",
        "sources.json",
        r#"{"sources": {"a": {"type": "kafka", "hosts": [], "topics": ["t"], "group": "g"}}}"#,
        "config/bad-address",
        1,
    ),
    (
        "a topic twice",
        "sources.json",
        r#"{"sources": {"a": {"type": "kafka", "hosts": ["127.0.0.1:1"], "topics": ["t", "t"], "group": "g"}}}"#,
        "config/conflict",
        1,
    ),
    (
        "two names for events",
        "sources.json",
        "{\"sources\": {\"a\": {\"type\": \"http\", \"event_name\": \"x\",\n\"event_from\": \"header:x\"}}}",
        "config/conflict",
        2,
    ),
    (
        "event from nowhere",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "event_from": "body"}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "key from nowhere",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "key_from": "field:id"}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "reserved event name",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "event_name": "gravity.x"}}}"#,
        "config/bad-value",
        1,
    ),
    ("unknown type", "sources.json", r#"{"sources": {"a": {"type": "kafak"}}}"#, "config/bad-word", 1),
    (
        "unknown envelope",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "envelope": "xml"}}}"#,
        "config/bad-word",
        1,
    ),
    (
        "size without sense",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "max_batch": "much"}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "start of http",
        "sources.json",
        r#"{"sources": {"a": {"type": "http", "start": "latest"}}}"#,
        "config/unused-key",
        1,
    ),
    ("name with a dot", "sources.json", r#"{"sources": {"a.b": {"type": "http"}}}"#, "config/bad-name", 1),
    (
        "reserved name",
        "databases.json",
        r#"{"databases": {"ingest": {"type": "sqlite", "path": "a.db", "ddl": "create"}}}"#,
        "config/bad-name",
        1,
    ),
    (
        "password without user",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "password": "CANARY-9"}}}"#,
        "config/missing-key",
        1,
    ),
    (
        "port as text",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "port": "5432"}}}"#,
        "config/wrong-type",
        1,
    ),
    (
        "port out of range",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "port": 70000}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "password as number",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "username": "u", "password": 9090}}}"#,
        "config/wrong-type",
        1,
    ),
    (
        "host with scheme",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "postgres://h", "dbName": "d"}}}"#,
        "config/bad-address",
        1,
    ),
    (
        "host with port",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "h:5432", "dbName": "d"}}}"#,
        "config/bad-address",
        1,
    ),
    (
        "missing dbName",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "h"}}}"#,
        "config/missing-key",
        1,
    ),
    (
        "lanes on sqlite",
        "databases.json",
        r#"{"databases": {"db1": {"type": "sqlite", "path": "a.db", "ddl": "create", "lanes": 4}}}"#,
        "config/conflict",
        1,
    ),
    (
        "no lanes",
        "databases.json",
        r#"{"databases": {"db1": {"type": "sqlite", "path": "a.db", "ddl": "create", "lanes": 0}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "one file twice",
        "databases.json",
        "{\"databases\": {\"db1\": {\"type\": \"sqlite\", \"path\": \"a.db\", \"ddl\": \"create\"},\n\"db2\": {\"type\": \"sqlite\", \"path\": \"a.db\", \"ddl\": \"create\"}}}",
        "config/duplicate-place",
        2,
    ),
    (
        "a key twice",
        "databases.json",
        "{\"databases\": {\"db1\": {\"type\": \"sqlite\",\n\"path\": \"a.db\", \"path\": \"b.db\", \"ddl\": \"create\"}}}",
        "config/duplicate-key",
        2,
    ),
    (
        "was itself",
        "databases.json",
        r#"{"databases": {"db1": {"type": "sqlite", "path": "a.db", "ddl": "create", "was": "db1"}}}"#,
        "config/conflict",
        1,
    ),
    (
        "bookkeeping with create",
        "databases.json",
        r#"{"databases": {"db1": {"type": "sqlite", "path": "a.db", "ddl": "create", "bookkeeping": "manual"}}}"#,
        "config/conflict",
        1,
    ),
    (
        "no such variable",
        "databases.json",
        "{\"databases\": {\"db1\": {\"type\": \"postgres\", \"host\": \"127.0.0.1\", \"dbName\": \"d\", \"username\": \"u\",\n\"password\": \"${env:GRAVITY_SURELY_NOT_SET}\"}}}",
        "config/unresolved-reference",
        2,
    ),
    (
        "no such reference",
        "databases.json",
        r#"{"databases": {"db1": {"type": "sqlite", "path": "${home}/a.db", "ddl": "create"}}}"#,
        "config/bad-reference",
        1,
    ),
    (
        "ca without tls",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "caFile": "ca.pem"}}}"#,
        "config/unused-key",
        1,
    ),
    (
        "no such ca",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "h", "dbName": "d", "caFile": "nowhere.pem"}}}"#,
        "config/file-unreadable",
        1,
    ),
    (
        "certificate without key",
        "databases.json",
        r#"{"databases": {"db1": {"type": "postgres", "host": "h", "dbName": "d", "certFile": "databases.json"}}}"#,
        "config/missing-key",
        1,
    ),
    (
        "uri and host",
        "databases.json",
        r#"{"databases": {"db1": {"type": "mongodb", "uri": "mongodb://u:CANARY-9@h", "host": "h"}}}"#,
        "config/conflict",
        1,
    ),
    ("no json", "databases.json", "{\"databases\": {\n\"db1\": }}", "config/syntax", 2),
    ("a list", "databases.json", "[]", "config/wrong-type", 1),
    (
        "url without scheme",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "restful_api", "url": "example.com/api"}}}"#,
        "config/bad-address",
        1,
    ),
    (
        "url with credentials",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "restful_api", "url": "https://u:CANARY-9@example.com/"}}}"#,
        "config/bad-address",
        1,
    ),
    (
        "signing with something else",
        "exporter.json",
        "{\"exporter\": {\"e\": {\"type\": \"restful_api\", \"url\": \"https://example.com/\", \"signing\": [\n\"CANARY-9\"]}}}",
        "config/bad-value",
        2,
    ),
    (
        "a signing secret that is too short",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "restful_api", "url": "https://example.com/", "signing": ["whsec_CANARY90"]}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "a signing secret twice",
        "exporter.json",
        "{\"exporter\": {\"e\": {\"type\": \"restful_api\", \"url\": \"https://example.com/\", \"signing\": [\n\"whsec_CANARYCANARYCANARYCANARYCANARYCA\",\n\"whsec_CANARYCANARYCANARYCANARYCANARYCA\"]}}}",
        "config/conflict",
        3,
    ),
    (
        "three signing secrets",
        "exporter.json",
        "{\"exporter\": {\"e\": {\"type\": \"restful_api\", \"url\": \"https://example.com/\", \"signing\": [\n\"whsec_CANARYCANARYCANARYCANARYCANARYCA\",\n\"whsec_1CANARYCANARYCANARYCANARYCANARYC\",\n\"whsec_2CANARYCANARYCANARYCANARYCANARYC\"]}}}",
        "config/bad-value",
        4,
    ),
    (
        "a signing secret that is no text",
        "exporter.json",
        "{\"exporter\": {\"e\": {\"type\": \"restful_api\", \"url\": \"https://example.com/\", \"signing\": [\n90909090]}}}",
        "config/wrong-type",
        2,
    ),
    (
        "a signing secret outside of a list",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "restful_api", "url": "https://example.com/", "signing": "whsec_CANARY-9"}}}"#,
        "config/wrong-type",
        1,
    ),
    (
        "no signing secret",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "restful_api", "url": "https://example.com/", "signing": []}}}"#,
        "config/bad-value",
        1,
    ),
    (
        "signing of a kind that does not sign",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "kafka", "host": "127.0.0.1", "topic": "t", "signing": ["whsec_CANARY-9"]}}}"#,
        "config/unknown-key",
        1,
    ),
    (
        "no topic",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "kafka", "host": "127.0.0.1"}}}"#,
        "config/missing-key",
        1,
    ),
    (
        "mechanism without user",
        "exporter.json",
        r#"{"exporter": {"e": {"type": "kafka", "host": "127.0.0.1", "topic": "t", "saslMechanism": "PLAIN"}}}"#,
        "config/unused-key",
        1,
    ),
    ("the original's spelling", "exporter.json", r#"{"exporters": {}}"#, "config/removed-key", 1),
    ("unknown section", "gravity.toml", "[lgo]\n", "config/unknown-key", 1),
    ("unknown setting", "gravity.toml", "[log]\ndirectroy = \"x\"\n", "config/unknown-key", 2),
    ("no toml", "gravity.toml", "[log\n", "config/toml-syntax", 1),
    ("duration without unit", "gravity.toml", "[log]\n\nlinger = \"2\"\n", "config/bad-value", 3),
    (
        "api open",
        "gravity.toml",
        "[api]\nlisten = \"0.0.0.0:7420\"\ntls = {certFile = \"gravity.toml\", keyFile = \"gravity.toml\"}\n",
        "config/api-open",
        2,
    ),
    (
        "api in plaintext",
        "gravity.toml",
        "[api]\nlisten = \"0.0.0.0:7420\"\ntokens = [{name = \"a\", role = \"admin\", token = \"CANARY-9-0123456789\"}]\n",
        "config/api-plaintext",
        2,
    ),
    (
        "role unknown",
        "gravity.toml",
        "[api]\ntokens = [{name = \"a\", role = \"root\", token = \"CANARY-9-0123456789\"}]\n",
        "config/bad-value",
        2,
    ),
    ("a file of the original", "trigger.json", "{}", "config/unknown-file", 0),
    (
        "a key of the original",
        "sources.json",
        r#"{"sources": {"a": {"type": "kafka", "hosts": ["127.0.0.1:1"], "topics": ["t"], "groupId": "g"}}}"#,
        "config/removed-key",
        1,
    ),
    ("file of another name", "exporters.json", "{}", "config/unknown-file", 0),
];

#[test]
fn bad_files_are_refused_with_exact_code_and_line() {
    let mut wrong = Vec::new();
    for (what, file, text, code, line) in BAD {
        let dir = Dir::new(&[("databases.json", DATABASES), ("rules.json", RULES)]);
        dir.write(file, text);
        let ended = check(&dir);
        let found = errors(&ended);
        let fits = |f: &Value| f["code"] == *code && f["file"] == *file && f["line"] == *line;
        if ended.code != 2 || !found.iter().any(fits) {
            wrong.push(format!("{what}: exit {}, {found:?}", ended.code));
        }
        // What people see must not hold it either.
        let shown = Ended::of(&gravity().args(["check", "-c"]).arg(dir.path()).output().expect("runs"));
        if [&ended.out, &ended.err, &shown.out, &shown.err]
            .iter()
            .any(|text| text.contains("CANARY") || text.contains("9090"))
        {
            wrong.push(format!("{what}: a secret is shown:\n{}", shown.err));
        }
        // The engine refuses what `check` refuses.
        let started = Ended::of(
            &gravity()
                .args(["run", "--stop-at-end", "--listen", "127.0.0.1:0", "-c"])
                .arg(dir.path())
                .output()
                .expect("runs"),
        );
        if *file != "gravity.toml" && (started.code != 2 || dir.path().join("data").exists()) {
            wrong.push(format!(
                "{what}: run ends with {}, data made: {}",
                started.code,
                dir.path().join("data").exists()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
