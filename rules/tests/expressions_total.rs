//! What loads never fails for type reasons, and never takes long: random expressions over random payloads, and the worst
//! expressions that are accepted.

mod common;

use common::{Table, context};
use gravity_model::shape::SharedShape;
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{RouteProgram, Verdict, load};
use proptest::prelude::*;

const DECLARED: &str = r#""i":"i64","u":"u8","d":"decimal(12,2)","n":"decimal","f":"f64","b":"bool","s":"text","v":"varchar(3)",
    "at":"timestamptz","on":"date","h":"time","id2":"uuid","l":"text[]","nums":"decimal[]","doc":"json","bin":"binary""#;

fn table() -> SharedShape {
    Table::new("t").key("id", "i64").column("x", "json").shape()
}

fn file(filter: &str, expression: Option<&str>, declared: &str) -> String {
    let text = |text: &str| serde_json::to_string(text).expect("a text");
    let mapping = expression.map(|e| format!(r#",{{"expression":{},"target":"x"}}"#, text(e))).unwrap_or_default();
    format!(
        r#"{{"events":{{"e":{{"fields":{{{declared}}}}}}},"rules":[{{"event":"e","table":"t","method":"update","filter":{},
            "mapping":[{{"source":"id","target":"id","primary":true}}{mapping}]}}]}}"#,
        text(filter)
    )
}

fn program(text: &str) -> Option<RouteProgram> {
    let set = load(&[SourceFile::new("rules.json", text)], &context(&["d"], &[])).ok()?;
    Some(set.compile("d", None, &[table()]).unwrap_or_else(|f| panic!("{text}\n{f}")))
}

/// Expressions that are well formed more often than not, and of every type.
fn expression() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "i",
        "u",
        "d",
        "n",
        "f",
        "b",
        "s",
        "v",
        "at",
        "on",
        "h",
        "id2",
        "l",
        "nums",
        "doc",
        "free",
        "other.x",
        "a[0]",
        "$meta.sequence",
        "$meta.event",
        "$meta.time",
    ]);
    let literal = prop::sample::select(vec![
        "0",
        "1",
        "-7",
        "2.50",
        "1e3",
        "18446744073709551615",
        "'a'",
        "''",
        "'2026-05-06'",
        "'2026-05-06T07:08:09Z'",
        "'67e55044-10b1-426f-9247-bb680e5fe0c8'",
        "true",
        "false",
        "null",
        "['a', 'b']",
        "[1, 2.5]",
        "[]",
    ]);
    let leaf = prop_oneof![field.clone().prop_map(str::to_owned), literal.prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let binary =
            prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "&&", "||", "in"]);
        let unary = prop::sample::select(vec![
            "!({})",
            "-({})",
            "size({})",
            "string({})",
            "int({})",
            "round({}, 2)",
            "div({}, 3, 2)",
            "({}).trim()",
            "({}).lowerAscii()",
            "date({})",
            "({}).startsWith('a')",
            "({}).contains(s)",
            "coalesce({}, 1)",
            "coalesce({}, 'x')",
            "({}) == null",
            "l.exists(x, x == {})",
            "nums.all(x, x > {})",
            "({}).exists(x, x == 1)",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
            (inner.clone(), unary).prop_map(|(a, form)| form.replace("{}", &a)),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            field.clone().prop_map(|field| format!("has({field})")),
        ]
    })
}

/// Values of every type, and of none, in every field.
fn payload() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-1",
        "7",
        "1.5",
        "1e2",
        "1e-400",
        "99999999999999999999999999999999999999999",
        "\"\"",
        "\"a\"",
        "\"7\"",
        "\"\\u00e9\\n\"",
        "\"2026-05-06\"",
        "\"2026-05-06T07:08:09Z\"",
        "\"07:08:09\"",
        "\"67e55044-10b1-426f-9247-bb680e5fe0c8\"",
        "[]",
        "[\"a\",\"b\"]",
        "[1,2.5,null]",
        "[[1]]",
        "{}",
        "{\"x\":1}",
        "{\"x\":\"a\"}",
    ]);
    let names =
        ["i", "u", "d", "n", "f", "b", "s", "v", "at", "on", "h", "id2", "l", "nums", "doc", "free", "other", "a"];
    prop::collection::vec(prop::option::of(value), names.len()).prop_map(move |values| {
        let fields = names.iter().zip(values).filter_map(|(name, value)| Some(format!(",\"{name}\":{}", value?)));
        format!("{{\"id\":1{}}}", fields.collect::<String>())
    })
}

/// A payload in which every field has its declared type, is null, or is absent.
fn fitting() -> impl Strategy<Value = String> {
    let fields: Vec<(&str, &[&str])> = vec![
        ("i", &["0", "-9223372036854775808", "7.0"]),
        ("u", &["0", "255"]),
        ("d", &["0", "-1.50", "9999999999.99"]),
        ("n", &["1e-400", "0", "123456789012345678901234567890123456789012345.5"]),
        ("f", &["0.1", "-0.0", "1e300"]),
        ("b", &["true", "false"]),
        ("s", &["\"\"", "\"a\"", "\"\\u00e9\\n\""]),
        ("v", &["\"abc\""]),
        ("at", &["\"2026-05-06T07:08:09+02:00\""]),
        ("on", &["\"2026-05-06\""]),
        ("h", &["\"07:08:09.5\""]),
        ("id2", &["\"67e55044-10b1-426f-9247-bb680e5fe0c8\""]),
        ("l", &["[]", "[\"a\",null]"]),
        ("nums", &["[1,2.5,null]"]),
        ("doc", &["{}", "[1]"]),
    ];
    let one = |(name, values): (&'static str, &'static [&'static str])| {
        let value = prop::sample::select(values.iter().copied().chain(["null", ""]).collect::<Vec<_>>());
        value.prop_map(move |value| if value.is_empty() { String::new() } else { format!(",\"{name}\":{value}") })
    };
    fields.into_iter().map(one).collect::<Vec<_>>().prop_map(|fields| format!("{{\"id\":1{}}}", fields.concat()))
}

/// Codes that say that a *field* is of another type. Everything else would be a failure of the evaluation.
const OF_A_FIELD: [&str; 5] = ["map/wrong-type", "map/unreadable", "map/out-of-range", "map/lossy", "map/too-long"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, max_global_rejects: 200_000, ..ProptestConfig::default() })]

    #[test]
    fn what_loads_never_fails_but_for_a_field_of_another_type(
        filter in expression(), value in expression(), payloads in prop::collection::vec(payload(), 8),
    ) {
        let Some(program) = program(&file(&filter, Some(&value), DECLARED))
            .or_else(|| program(&file("true", Some(&value), DECLARED)))
            .or_else(|| program(&file(&filter, None, DECLARED)))
        else {
            return Err(TestCaseError::reject("refused at load"));
        };
        for payload in payloads {
            let (verdict, _) = common::evaluate_one(&program, "e", &payload);
            if let Verdict::Refused(refusal) = verdict {
                prop_assert!(OF_A_FIELD.contains(&refusal.code), "{filter} / {value} / {payload}: {refusal:?}");
                let names_a_field = refusal.message.contains("in the filter:") || refusal.message.contains("field `");
                prop_assert!(names_a_field, "{filter} / {value} / {payload}: {refusal:?}");
            }
        }
    }

    #[test]
    fn fields_of_their_types_are_never_refused(
        filter in expression(), value in expression(), payloads in prop::collection::vec(fitting(), 8),
    ) {
        // Only fields that are declared: what an undeclared one is inferred to be is for the event to break.
        prop_assume!(!["free", "other", "a["].iter().any(|name| filter.contains(name) || value.contains(name)));
        let Some(program) = program(&file(&filter, Some(&value), DECLARED))
            .or_else(|| program(&file("true", Some(&value), DECLARED)))
            .or_else(|| program(&file(&filter, None, DECLARED)))
        else {
            return Err(TestCaseError::reject("refused at load"));
        };
        for payload in payloads {
            let (verdict, _) = common::evaluate_one(&program, "e", &payload);
            prop_assert!(!matches!(verdict, Verdict::Refused(_)), "{filter} / {value} / {payload}: {verdict:?}");
        }
    }

    /// The short way over the payload's bytes and the long way over values are one language.
    #[test]
    fn plain_comparisons_and_the_same_in_a_longer_form_agree(
        field in prop::sample::select(vec!["i", "n", "s", "b", "free"]),
        sign in prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]),
        literal in prop::sample::select(vec!["0", "7", "-1", "1.5", "'a'", "''", "'\u{e9}'", "true"]),
        payload in payload(),
    ) {
        let plain = format!("{field} {sign} {literal}");
        // `|| false` changes nothing but the way.
        let long = format!("({plain}) || false");
        let both = (program(&file(&plain, None, DECLARED)), program(&file(&long, None, DECLARED)));
        let (Some(plain), Some(long)) = both else { return Err(TestCaseError::reject("refused at load")) };
        prop_assert_eq!(
            common::outcome(&plain, "e", &payload),
            common::outcome(&long, "e", &payload)
        );
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "[a-z0-9 .,'\"\\\\()\\[\\]{}?:!=<>&|+*/%$_é-]{0,60}") {
        let _ = program(&file(&text, Some(&text), DECLARED));
    }
}

/// Repeats `part` with `sign` between, as often as the loader accepts it.
fn longest(part: &str, sign: &str, before: &str, after: &str) -> (String, usize) {
    let make = |count: usize| format!("{before}{}{after}", vec![part; count].join(sign));
    let accepted = |count: usize| program(&file(&make(count), None, DECLARED)).is_some();
    assert!(accepted(1), "{part}");
    let most = (1..400).take_while(|count| accepted(*count)).last().unwrap_or(1);
    assert!(most < 399, "the loader sets no bound on {part}");
    (make(most), most)
}

/// How long they take is for `bench expressions` to say: a test that looks at a clock says what else the machine does.
#[test]
fn the_worst_accepted_expressions_are_bounded_at_load_and_run() {
    let kib = 64;
    let text = "ab".repeat(kib * 512);
    let words = vec!["\"ab\""; kib * 204].join(",");
    let digits = "7".repeat(990);
    let payload = format!(r#"{{"id":1,"s":"{text}","l":[{words}],"n":{digits},"m":0.{digits}}}"#);
    let worst = [
        longest("s.contains('abb')", " || ", "", ""),
        longest("(s + s).lowerAscii().trim().contains('abb')", " || ", "", ""),
        longest("l.exists(x, x == 'c')", " || ", "", ""),
        longest("x == 'c'", " || ", "l.exists(x, ", ")"),
        longest("x.trim().contains('c')", " || ", "l.exists(x, ", ")"),
        longest("'c' in l", " || ", "", ""),
        longest("n * n == n", " || ", "", ""),
        longest("div(n, m, 100) == 1", " || ", "", ""),
        longest("n + m + n + m == 1", " || ", "", ""),
        longest("size(s) == 1", " || ", "", ""),
    ];
    for (filter, count) in worst {
        let program = program(&file(&filter, None, DECLARED)).expect("accepted");
        let lines = common::outcome(&program, "e", &payload);
        assert!(lines == ["filtered"] || lines[0].starts_with("up"), "{count} x {filter}: {lines:?}");
    }
}

#[test]
fn what_would_be_quadratic_is_refused() {
    let refused = |filter: &str| {
        let text = file(filter, None, DECLARED);
        let findings = load(&[SourceFile::new("rules.json", text)], &context(&["d"], &[])).expect_err(filter);
        findings.iter().map(|f| f.code).collect::<Vec<_>>()
    };
    for filter in [
        "l.exists(x, l.exists(y, x == y))",
        "l.all(x, nums.exists(y, y == 1) && x == '')",
        "l.exists(x, s.contains(x))",
        "l.exists(x, (x + s) == '')",
        "nums.exists(x, x in nums)",
        "l.exists(x, size(s) > 1)",
        &format!("{}true{}", "(".repeat(40), ")".repeat(40)),
        &format!("s == '{}'", "x".repeat(5_000)),
        &format!("n > {}1", "1+".repeat(100)),
        "n * n * n * n > 1",
    ] {
        assert_eq!(refused(filter), ["rules/expression-cost"], "{filter}");
    }
    // The same over lists that are written out is bounded by the text.
    assert!(program(&file("l.exists(x, ['a', 'b'].exists(y, x == y))", None, DECLARED)).is_some());
}
