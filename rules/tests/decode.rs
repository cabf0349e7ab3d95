//! Reading any config file: the generic part that sources, databases and exporters go through as well.

use gravity_rules::codes;
use gravity_rules::diagnose::{Document, Findings, SourceFile, decode};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    things: IndexMap<String, Thing>,
    #[serde(default)]
    mode: Option<Mode>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Thing {
    Kafka(Kafka),
    Http { port: Option<u16> },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Kafka {
    hosts: Vec<String>,
    #[serde(default)]
    extra: IndexMap<String, String>,
    secure: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Slow,
    Fast,
}

fn check(text: &str) -> Vec<(&'static str, String, Vec<String>)> {
    let mut findings = Findings::new();
    let decoded = decode::<File>(&SourceFile::new("f.json", text), &mut findings);
    assert_eq!(decoded.is_some(), !findings.has_errors(), "{findings}");
    findings.into_iter().map(|f| (f.code, format!("{}:{} {}", f.line, f.column, f.message), f.allowed)).collect()
}

#[test]
fn a_sound_file_is_read_with_its_positions() {
    let text = r#"{
  // two of them
  "things": {"a/b": {"type": "kafka", "hosts": ["h"], "extra": {"x.y": "z"}},
             "w": {"type": "http", "port": 80}},
  "mode": "fast"
}"#;
    let mut findings = Findings::new();
    let (file, positions) = decode::<File>(&SourceFile::new("f.json", text), &mut findings).expect("sound");
    assert!(findings.is_empty());
    assert_eq!(file.mode, Some(Mode::Fast));
    let Thing::Kafka(kafka) = &file.things["a/b"] else { panic!("{file:?}") };
    assert_eq!((kafka.hosts.as_slice(), kafka.extra["x.y"].as_str(), kafka.secure), (&["h".to_owned()][..], "z", None));
    assert!(matches!(file.things["w"], Thing::Http { port: Some(80) }));
    let at = |place: gravity_rules::diagnose::Place| (place.line(), place.column(), place.text().to_owned());
    assert_eq!(at(positions.key("/things/a~1b/hosts")), (3, 39, "\"hosts\"".to_owned()));
    assert_eq!(at(positions.value("/things/a~1b/hosts/0")), (3, 49, "\"h\"".to_owned()));
    assert_eq!(at(positions.value("/mode")), (5, 11, "\"fast\"".to_owned()));
    assert_eq!(at(positions.value("/things/w/absent")), (4, 19, "{".to_owned()), "the nearest that is there");
    assert_eq!(positions.value("/mode").to_string(), "f.json:5");
}

#[test]
fn the_tag_decides_which_alternative_an_error_speaks_of() {
    let thing = |keys: &str| format!("{{\"things\": {{\"a\": {{{keys}}}}}}}");
    let one = |text: &str| {
        let found = check(text);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().expect("one")
    };
    let words = || vec!["kafka".to_owned(), "http".to_owned()];
    assert_eq!(one(&thing("")), (codes::MISSING_KEY, "1:18 `a` needs `type`".to_owned(), words()));
    assert_eq!(
        one(&thing(r#""type": "kafak", "hosts": []"#)),
        (codes::BAD_WORD, "1:27 `type` cannot be `kafak`".to_owned(), words())
    );
    assert_eq!(
        one(&thing(r#""type": 1"#)),
        (codes::WRONG_TYPE, "1:27 `type` must be text, this is a whole number".to_owned(), words())
    );
    assert_eq!(one(&thing(r#""type": "kafka""#)).1, "1:18 `a` needs `hosts`");
    let (code, message, allowed) = one(&thing(r#""type": "http", "hosts": ["h"]"#));
    assert_eq!((code, message.as_str()), (codes::UNKNOWN_KEY, "1:35 unknown key `hosts`"));
    assert_eq!(allowed, ["type", "port"]);
    assert_eq!(
        one(&thing(r#""type": "kafka", "hosts": ["h", 1]"#)).1,
        "1:51 entry 2 of `hosts` must be text, this is a whole number"
    );
    assert_eq!(
        one(&thing(r#""type": "kafka", "hosts": ["h"], "extra": {"a": 1}"#)).1,
        "1:67 `a` must be text, this is a whole number"
    );
}

#[test]
fn ranges_are_checked() {
    let port = |port: &str| check(&format!(r#"{{"things": {{"a": {{"type": "http", "port": {port}}}}}}}"#));
    assert!(port("65535").is_empty());
    assert!(port("null").is_empty());
    for (value, code) in [
        ("65536", codes::BAD_VALUE),
        ("-1", codes::BAD_VALUE),
        ("1.5", codes::WRONG_TYPE),
        ("\"80\"", codes::WRONG_TYPE),
    ] {
        assert_eq!(port(value).iter().map(|f| f.0).collect::<Vec<_>>(), [code], "{value}");
    }
}

#[test]
fn every_fault_of_a_file_is_found_at_once_and_sound_parts_can_be_read() {
    let text = r#"{"things": {"a": {"type": "http"}, "b": {"type": "htpt"}, "c": {"type": "kafka", "hosts": 1, "host": "h"}}, "mode": "fsat", "mode": "fast"}"#;
    let mut findings = Findings::new();
    let document = Document::read::<File>(&SourceFile::new("f.json", text), &mut findings).expect("JSON");
    let mut codes: Vec<&str> = findings.iter().map(|f| f.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [codes::BAD_WORD, codes::BAD_WORD, codes::DUPLICATE_KEY, codes::UNKNOWN_KEY, codes::WRONG_TYPE]);
    let before = findings.len();
    assert_eq!(document.children("/things"), ["/things/a", "/things/b", "/things/c"]);
    let readable: Vec<bool> = document
        .children("/things")
        .iter()
        .map(|pointer| document.part::<Thing>(pointer, &mut findings).is_some())
        .collect();
    assert_eq!(readable, [true, false, false]);
    assert_eq!(findings.len(), before, "what was reported is not reported again");
    assert!(!document.is_sound("") && !document.is_sound("/mode"));
}
