//! Documents, lists of every kind, and the labels of enumerations.

use super::{Each, Target, TypeRow, reads, refused};

const TYPE: &str = "map/wrong-type";
const RANGE: &str = "map/out-of-range";
const LOSSY: &str = "map/lossy";
const UNREADABLE: &str = "map/unreadable";
/// What the databases say of a text that is no label.
const NO_LABEL: [&str; 3] = ["22P02", "1265", "SQLITE_CONSTRAINT_CHECK"];

/// Refused by a database that knows its labels; MongoDB knows none.
fn no_label(text: &str) -> Each {
    let [postgres, mariadb, sqlite] = NO_LABEL.map(refused);
    [postgres, mariadb, sqlite, reads(text)]
}

/// `[[…1…]]`, so many lists deep.
fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

pub fn rows() -> Vec<TypeRow> {
    let mut rows = vec![json()];
    rows.extend(arrays());
    rows.push(enumeration());
    rows
}

fn json() -> TypeRow {
    let kept = r#"{ "b" : 1.50, "a":[ 9007199254740993, null ], "é":"\u00e9" }"#;
    let (deep, deepest) = (nested(32), nested(60));
    TypeRow::new("json", ["jsonb", "longtext", "text TEXT", "array,bool,object,string"])
        .texts(
            kept,
            [
                r#"{"a": [9007199254740993, null], "b": 1.50, "é": "é"}"#,
                kept,
                kept,
                r#"{"b":1.5,"a":[9007199254740993,null],"é":"é"}"#,
            ],
        )
        .but("12345678901234567890.123", ["12345678901234567890.123"; 3], LOSSY)
        .all("\"text\"", "\"text\"")
        .all("true", "true")
        .all("[]", "[]")
        .all("{}", "{}")
        .but(r#"{"k":1,"k":2}"#, [r#"{"k": 2}"#, r#"{"k":1,"k":2}"#, r#"{"k":1,"k":2}"#], UNREADABLE)
        .but(r#"{"a.b":1}"#, [r#"{"a.b": 1}"#, r#"{"a.b":1}"#, r#"{"a.b":1}"#], TYPE)
        .each(
            r#""a\u0000b""#,
            [
                refused("map/nul-in-text"),
                reads(r#""a\u0000b""#),
                reads(r#""a\u0000b""#),
                reads(r#""a\u0000b""#),
            ],
        )
        .labelled("a list 31 deep", &nested(31), Target::ALL.map(|_| reads(nested(31))))
        .labelled(
            "a list 32 deep",
            &deep,
            [reads(deep.as_str()), refused("4025"), reads(deep.as_str()), reads(deep.as_str())],
        )
        .labelled(
            "a list 60 deep",
            &deepest,
            [reads(deepest.as_str()), refused("4025"), reads(deepest.as_str()), reads(deepest.as_str())],
        )
        .labelled("a list 64 deep", &nested(64), Target::ALL.map(|_| refused("map/too-deep")))
        .note(
            "MariaDB and SQLite keep the document as it came, blanks and order included; PostgreSQL's `jsonb` keeps its value: \
             the last of two equal names, no blanks, every digit. The value null is a NULL of the column. MariaDB's `json_valid`, \
             which guards the column, takes no document deeper than 31; an event may be 64 deep as a whole. MongoDB stores the value \
             itself: numbers as 64-bit integers or as doubles that have the same digits, and no name twice, empty, beginning \
             with `$` or with a dot in it.",
        )
}

fn arrays() -> Vec<TypeRow> {
    let text = |shown: [&'static str; 2]| [shown[0], shown[1], shown[1], shown[1]];
    let other = |shown: [&'static str; 3]| [shown[0], shown[1], shown[1], shown[2]];
    vec![
        TypeRow::new("i64[]", ["bigint[]", "longtext", "text TEXT", "array"])
            .texts("[1, null, -9223372036854775808]", text(["{1,NULL,-9223372036854775808}", "[1,null,-9223372036854775808]"]))
            .texts("[ ]", text(["{}", "[]"]))
            .refuses(RANGE, &["[9223372036854775808]"])
            .refuses(LOSSY, &["[1, 1.5]"])
            .refuses(TYPE, &["1", "{}", "[[1]]", "[\"x\"]"])
            .note(
                "PostgreSQL and MongoDB have arrays. Elsewhere a list is JSON: numbers with all their digits, everything else as \
                 text, bytes as base64. Lists of lists need the type `json`.",
            ),
        TypeRow::new("u64[]", ["numeric(20,0)[]", "longtext", "text TEXT", "array"])
            .texts("[7]", text(["{7}", "[7]"]))
            .but(
                "[18446744073709551615]",
                ["{18446744073709551615}", "[18446744073709551615]", "[18446744073709551615]"],
                RANGE,
            )
            .refuses(RANGE, &["[18446744073709551616]", "[-1]"]),
        TypeRow::new("decimal(12,2)[]", ["numeric(12,2)[]", "longtext", "text TEXT", "array"])
            .texts("[1.1, 1e3]", other(["{1.10,1000.00}", "[1.10,1000.00]", "[1.1,1000]"]))
            .refuses(LOSSY, &["[0.001]"]),
        TypeRow::new("f64[]", ["double precision[]", "longtext", "text TEXT", "array"])
            .texts("[0.1, -2]", other(["{0.1,-2}", "[0.1,-2]", "[0.1,-2.0]"]))
            .refuses(TYPE, &["[\"NaN\"]"]),
        TypeRow::new("bool[]", ["boolean[]", "longtext", "text TEXT", "array"])
            .texts("[true, false, null]", text(["{t,f,NULL}", "[true,false,null]"])),
        TypeRow::new("text[]", ["text[]", "longtext", "text TEXT", "array"])
            .texts(
                r#"["a\"b\\", "NULL", "", "x,y{}", null]"#,
                text([r#"{"a\"b\\","NULL","","x,y{}",NULL}"#, r#"["a\"b\\","NULL","","x,y{}",null]"#]),
            )
            .refuses(TYPE, &["[1]"]),
        TypeRow::new("uuid[]", ["uuid[]", "longtext", "text TEXT", "array"])
            .texts(
                "[\"123E4567E89B12D3A456426614174000\"]",
                text(["{123e4567-e89b-12d3-a456-426614174000}", "[\"123e4567-e89b-12d3-a456-426614174000\"]"]),
            )
            .refuses(UNREADABLE, &["[\"x\"]"]),
        TypeRow::new("date[]", ["date[]", "longtext", "text TEXT", "array"])
            .texts("[\"2024-02-29\"]", other(["{2024-02-29}", "[\"2024-02-29\"]", "[\"2024-02-29T00:00:00.000Z\"]"])),
        TypeRow::new("timestamptz[]", ["timestamp with time zone[]", "longtext", "text TEXT", "array"])
            .texts(
                "[\"2024-05-06T09:08:09.5+02:00\"]",
                other([
                    "{\"2024-05-06 07:08:09.5+00\"}",
                    "[\"2024-05-06T07:08:09.500000Z\"]",
                    "[\"2024-05-06T07:08:09.500Z\"]",
                ]),
            ),
        TypeRow::new("binary[]", ["bytea[]", "longtext", "text TEXT", "array"])
            .texts("[\"AP8=\"]", other([r#"{"\\x00ff"}"#, "[\"AP8=\"]", "[x00FF]"])),
        TypeRow::new("json[]", ["jsonb[]", "longtext", "text TEXT", "array"])
            .texts(r#"[{"a":"b"}, 1.50]"#, other([r#"{"{\"a\": \"b\"}",1.50}"#, r#"[{"a":"b"},1.50]"#, r#"[{"a":"b"},1.5]"#])),
    ]
}

/// No type word makes an enumeration: the DBA does, and reviews every new label.
fn enumeration() -> TypeRow {
    let long = "x".repeat(300);
    TypeRow::new("text", ["mood", "enum('sad','happy','1')", "text TEXT", "string"])
        .made(["mood", "enum('sad','happy','1')", "TEXT CHECK (v IN ('sad', 'happy', '1'))", ""])
        .all("\"happy\"", "happy")
        .all("\"1\"", "1")
        .each("\"angry\"", no_label("angry"))
        .each("\"2\"", no_label("2"))
        .each("\"Happy\"", no_label("Happy"))
        .each("\"\"", no_label(""))
        .labelled("a text of 300 characters", &format!("\"{long}\""), no_label(&long))
        .note(
            "A column that a DBA made: `CREATE TYPE mood AS ENUM ('sad', 'happy', '1')`, MariaDB's `enum`, a CHECK. A label that the \
             column does not have makes a dead letter, also where the database would take a number in a text for a label's place. \
             MongoDB's collection here has no validator, and takes any text; what one refuses is parked with its code, 121.",
        )
}
