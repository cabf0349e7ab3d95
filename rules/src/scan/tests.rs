//! The scanner against serde_json: the same texts are accepted, the same values are found.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::path::Step;
use crate::trie::TrieBuilder;

/// What stands at each path, as the raw text; `None` is absent.
fn find<'p>(payload: &'p [u8], paths: &[Vec<Step>]) -> Result<Vec<Option<&'p [u8]>>, ScanError> {
    let mut builder = TrieBuilder::default();
    let wanted: Vec<u32> = paths.iter().map(|path| builder.slot(path)).collect();
    let trie = builder.build();
    let mut slots = vec![Slot::default(); trie.slots()];
    let mut fields = Vec::new();
    scan(payload, &trie, &mut slots, None)?;
    let mut again = vec![Slot::default(); trie.slots()];
    scan(payload, &trie, &mut again, Some(&mut fields))?;
    assert_eq!(slots, again, "asking for the field names changes nothing");
    let raw = |slot: Slot| (slot.kind != Kind::Absent).then(|| &payload[slot.start as usize..slot.end as usize]);
    Ok(wanted.iter().map(|slot| raw(slots[*slot as usize])).collect())
}

/// A path as a JSON pointer.
fn pointer(path: &[Step]) -> String {
    let segment = |step: &Step| match step {
        Step::Member(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Step::Index(index) | Step::Either(index) => format!("/{index}"),
    };
    path.iter().map(segment).collect()
}

fn accepts(payload: &[u8]) -> bool {
    let paths = [vec![Step::Member("a".into())], vec![Step::Member("a".into()), Step::Index(0)], vec![Step::Index(1)]];
    let plain = find(payload, &[]).is_ok();
    assert_eq!(plain, find(payload, &paths).is_ok(), "what is wanted does not decide what is valid");
    for pointer in ["", "/a", "/1", "/a/0"] {
        let looked = std::str::from_utf8(payload).ok().and_then(|text| look(text, pointer));
        assert_eq!(plain, looked.is_some(), "nor does a look at {pointer:?}");
    }
    plain
}

/// serde_json's verdict, where ours must be the same: it stops at numbers beyond `f64`, which are JSON (`None`), and takes 128
/// levels where we take 64.
fn serde_accepts(payload: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Value>(payload) {
        Ok(value) => Some(nesting(&value) <= MAX_DEPTH),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(_) => Some(false),
    }
}

fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn texts_that_are_and_are_not_json() {
    let yes = [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "10",
        "1.5",
        "-1.25e+10",
        "1E2",
        "1e-400",
        "1e400",
        r#""""#,
        r#""a\n\u0041""#,
        r#""\ud83d\ude00""#,
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[1,[2,[3]]]",
        r#"{"a":{"b":[{}]}}"#,
        "\t[\r\n1 ,\n2 ]\n",
        r#"{"a":1,"a":2}"#,
        r#""long text without anything special in it""#,
        "\"\u{e9}\u{20ac}\u{1f600}\"",
        "\"\u{7f}\"",
    ];
    for text in yes {
        assert!(accepts(text.as_bytes()), "{text}");
        assert_ne!(serde_accepts(text.as_bytes()), Some(false), "{text}");
    }
    let no = [
        "",
        " ",
        "nul",
        "nulls",
        "True",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "'a'",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud83d\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ude00\"",
        "\"\n\"",
        "\"\0\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "[}",
        "{]",
        "{\"a\":1]",
        "[1}",
        "1 2",
        "[] []",
        "/**/1",
        "\u{feff}1",
        "\"abcdefgh\u{1}\"",
    ];
    for text in no {
        assert!(!accepts(text.as_bytes()), "{text}");
        assert_eq!(serde_accepts(text.as_bytes()), Some(false), "{text}");
    }
    for bytes in [&b"\xff"[..], b"\"\xff\"", b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"[1,\"abcdefgh\xf5\"]"]
    {
        assert!(!accepts(bytes), "{bytes:x?}");
    }
}

#[test]
fn t14_nesting_ends_at_64_levels() {
    let nested = |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let step = open.matches(['[', '{']).count();
        assert!(accepts(nested(open, close, MAX_DEPTH / step).as_bytes()));
        let deeper = nested(open, close, MAX_DEPTH / step + 1);
        let error = find(deeper.as_bytes(), &[]).expect_err("too deep");
        assert_eq!(error.reason, Reason::TooDeep);
    }
    let bomb = "[".repeat(10_000_000);
    assert_eq!(find(bomb.as_bytes(), &[]).expect_err("too deep").reason, Reason::TooDeep);
}

#[test]
fn the_last_of_duplicate_keys_counts_with_all_that_is_below_it() {
    let path = |names: &[&str]| names.iter().map(|name| Step::Member((*name).to_owned())).collect::<Vec<_>>();
    let payload = br#"{"a":{"b":1,"c":2},"x":0,"a":{"c":3},"\u0061":{"c":4}}"#;
    let found = find(payload, &[path(&["a", "b"]), path(&["a", "c"]), path(&["a"]), path(&["x"])]).expect("JSON");
    assert_eq!(found, [None, Some(&b"4"[..]), Some(br#"{"c":4}"#), Some(b"0")]);
    let payload = br#"{"a":{"b":1},"a":7}"#;
    assert_eq!(find(payload, &[path(&["a", "b"])]).expect("JSON"), [None]);
}

#[test]
fn a_number_in_a_pointer_is_index_or_name() {
    let either = vec![Step::Member("a".into()), Step::Either(1)];
    let index = vec![Step::Member("a".into()), Step::Index(1)];
    let paths = [either, index];
    assert_eq!(find(br#"{"a":[5,6]}"#, &paths).expect("JSON"), [Some(&b"6"[..]), Some(b"6")]);
    assert_eq!(find(br#"{"a":{"1":7}}"#, &paths).expect("JSON"), [Some(&b"7"[..]), None]);
    assert_eq!(find(br#"{"a":"text"}"#, &paths).expect("JSON"), [None, None]);
}

#[test]
fn many_names_at_one_place_are_all_found() {
    let members: Vec<String> = (0..100).map(|i| format!("\"field{i}\":{i}")).collect();
    let payload = format!("{{{}}}", members.join(","));
    let paths: Vec<_> = (0..100).map(|i| vec![Step::Member(format!("field{i}"))]).collect();
    for (i, found) in find(payload.as_bytes(), &paths).expect("JSON").iter().enumerate() {
        assert_eq!(*found, Some(i.to_string().as_bytes()));
    }
}

/// JSON text with duplicate keys, white space and escapes, which generators of values never make.
fn json_text() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", "", " ", "\n\t", "\r\n  "]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|i| i.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        ".{0,20}".prop_map(|text| Value::from(text).to_string()),
        Just(r#""\ud83d\ude00\u0000\/\b""#.to_owned()),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let key = prop::sample::select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"\"", "\"0\"", "\"1\"", "\"a.b\""]);
        prop_oneof![
            (prop::collection::vec((space(), inner.clone(), space()), 0..5), space()).prop_map(|(items, inside)| {
                let items: Vec<String> = items.into_iter().map(|(a, item, b)| format!("{a}{item}{b}")).collect();
                if items.is_empty() { format!("[{inside}]") } else { format!("[{}]", items.join(",")) }
            }),
            prop::collection::vec((space(), key, space(), inner, space()), 0..6).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(a, key, b, value, c)| format!("{a}{key}{b}:{c}{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn path() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        prop::sample::select(vec!["a", "b", "", "0", "1", "a.b", "absent"])
            .prop_map(|name| Step::Member(name.to_owned())),
        (0u32..4).prop_map(Step::Index),
        (0u32..2).prop_map(Step::Either),
    ];
    prop::collection::vec(step, 1..5)
}

fn lookup<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.as_object()?.get(name),
        Step::Index(index) => value.as_array()?.get(*index as usize),
        Step::Either(index) => match value {
            Value::Object(members) => members.get(&index.to_string()),
            other => other.as_array()?.get(*index as usize),
        },
    })
}

const SIGNIFICANT: &[u8] = b"{}[]\",:\\/ue0123456789.-+EnultrfasTN \n\x00\x1f\x7f\x80\xc3\xed\xff";

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_serde_json_finds(text in json_text(), paths in prop::collection::vec(path(), 1..8)) {
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            // Beyond f64.
            return Ok(());
        };
        let found = find(text.as_bytes(), &paths).expect("serde_json accepts it");
        for (path, found) in paths.iter().zip(found) {
            let found = found.map(|raw| serde_json::from_slice::<Value>(raw).expect("a part of JSON is JSON"));
            prop_assert_eq!(found.as_ref(), lookup(&value, path), "{:?} in {}", path, text);
        }
    }

    #[test]
    fn a_look_finds_what_a_scan_finds(text in json_text(), path in path()) {
        let either = |step| match step {
            Step::Index(index) => Step::Either(index),
            Step::Member(name) => name.parse().map(Step::Either).unwrap_or(Step::Member(name)),
            either => either,
        };
        let path: Vec<Step> = path.into_iter().map(either).collect();
        let found = find(text.as_bytes(), std::slice::from_ref(&path)).expect("generated JSON");
        let looked = look(&text, &pointer(&path)).map(|found| found.map(str::as_bytes));
        prop_assert_eq!(looked, Some(found[0]), "{:?} in {}", path, text);
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in json_text(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3, prop::sample::select(SIGNIFICANT.to_vec())), 1..4)) {
        let mut bytes = text.into_bytes();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => { bytes.remove(at); }
                _ => {}
            }
        }
        let ours = accepts(&bytes);
        prop_assert_eq!(ours, serde_accepts(&bytes).unwrap_or(ours), "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ours = accepts(&bytes);
        prop_assert_eq!(ours, serde_accepts(&bytes).unwrap_or(ours));
    }

    #[test]
    fn text_is_unescaped_like_serde_json(text in json_text()) {
        if let Ok(Value::String(want)) = serde_json::from_str::<Value>(&text) {
            let token = text.trim();
            prop_assert_eq!(unescape(&token.as_bytes()[1..token.len() - 1]), want);
        }
    }
}

#[test]
fn a_look_finds_what_serde_finds_at_a_pointer() {
    let document =
        r#" { "a" : {"b":[10,{"c~d":"x"},[]],"a\/b":1} , "n":null,"a2":1, "dup":1,"dup":2,"\u0061" : "last" } "#;
    let cases = [
        ("/n", Some("null")),
        ("/dup", Some("2")),
        ("/a", Some("\"last\"")),
        ("/a2", Some("1")),
        ("/zz", None),
        ("/n/x", None),
        ("/a2/0", None),
        ("", Some(document)),
        ("no pointer", None),
    ];
    for (pointer, expected) in cases {
        assert_eq!(look(document, pointer), Some(expected), "{pointer}");
    }
    let nested = r#"{"a":{"b":[10,{"c~d":"x","e\/f":7},[]],"":3}}"#;
    let cases = [
        ("/a/b/0", Some("10")),
        ("/a/b/1/c~0d", Some("\"x\"")),
        ("/a/b/1/e~1f", Some("7")),
        ("/a/b/2", Some("[]")),
        ("/a/b/3", None),
        ("/a/b/00", None),
        ("/a/b/+0", None),
        ("/a/", Some("3")),
    ];
    for (pointer, expected) in cases {
        assert_eq!(look(nested, pointer), Some(expected), "{pointer}");
    }
}

#[test]
fn a_look_refuses_what_the_scan_refuses_wherever_it_stands() {
    let broken: [&str; 12] = [
        "",
        "{",
        "{\"a\":1,}",
        "[1,]",
        "{\"a\":1]",
        "[1}",
        "{\"a\" 1}",
        "{\"op\":\"x\"} x",
        "{\"op\":\"x\",\"b\":01}",
        "{\"op\":",
        "{,}",
        "{\"a\":1 \"b\":2}",
    ];
    for text in broken {
        assert_eq!(look(text, "/op"), None, "{text}");
        assert_eq!(look(text, ""), None, "{text}");
        assert_eq!(look(text, "/0"), None, "{text}");
    }
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(look(&deep(MAX_DEPTH), "/0").is_some() && look(&deep(MAX_DEPTH), "").is_some());
    assert!(look(&deep(MAX_DEPTH + 1), "/0").is_none() && look(&deep(MAX_DEPTH + 1), "").is_none());
}
