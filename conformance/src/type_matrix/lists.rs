//! Documents, lists of every kind, and the labels of enumerations.

use super::{TypeRow, reads, refused};

const TYPE: &str = "map/wrong-type";
const RANGE: &str = "map/out-of-range";
const LOSSY: &str = "map/lossy";
const UNREADABLE: &str = "map/unreadable";
/// What the databases say of a text that is no label.
const NO_LABEL: [&str; 3] = ["22P02", "1265", "SQLITE_CONSTRAINT_CHECK"];

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
    TypeRow::new("json", ["jsonb", "longtext", "text TEXT"])
        .texts(kept, [r#"{"a": [9007199254740993, null], "b": 1.50, "é": "é"}"#, kept, kept])
        .all("12345678901234567890.123", "12345678901234567890.123")
        .all("\"text\"", "\"text\"")
        .all("true", "true")
        .all("[]", "[]")
        .all("{}", "{}")
        .texts(r#"{"k":1,"k":2}"#, [r#"{"k": 2}"#, r#"{"k":1,"k":2}"#, r#"{"k":1,"k":2}"#])
        .each(
            r#""a\u0000b""#,
            [refused("map/nul-in-text"), reads(r#""a\u0000b""#), reads(r#""a\u0000b""#)],
        )
        .labelled("a list 31 deep", &nested(31), [reads(nested(31)), reads(nested(31)), reads(nested(31))])
        .labelled("a list 32 deep", &deep, [reads(deep.as_str()), refused("4025"), reads(deep.as_str())])
        .labelled("a list 60 deep", &deepest, [reads(deepest.as_str()), refused("4025"), reads(deepest.as_str())])
        .labelled("a list 64 deep", &nested(64), ["map/too-deep"; 3].map(refused))
        .note(
            "MariaDB and SQLite keep the document as it came, blanks and order included; PostgreSQL's `jsonb` keeps its value: \
             the last of two equal names, no blanks, every digit. The value null is a NULL of the column. MariaDB's `json_valid`, \
             which guards the column, takes no document deeper than 31; an event may be 64 deep as a whole.",
        )
}

fn arrays() -> Vec<TypeRow> {
    let text = |shown: [&'static str; 2]| [shown[0], shown[1], shown[1]];
    vec![
        TypeRow::new("i64[]", ["bigint[]", "longtext", "text TEXT"])
            .texts("[1, null, -9223372036854775808]", text(["{1,NULL,-9223372036854775808}", "[1,null,-9223372036854775808]"]))
            .texts("[ ]", text(["{}", "[]"]))
            .refuses(RANGE, &["[9223372036854775808]"])
            .refuses(LOSSY, &["[1, 1.5]"])
            .refuses(TYPE, &["1", "{}", "[[1]]", "[\"x\"]"])
            .note(
                "Only PostgreSQL has arrays. Elsewhere a list is JSON: numbers with all their digits, everything else as text, bytes \
                 as base64. Lists of lists need the type `json`.",
            ),
        TypeRow::new("u64[]", ["numeric(20,0)[]", "longtext", "text TEXT"])
            .texts("[18446744073709551615]", text(["{18446744073709551615}", "[18446744073709551615]"]))
            .refuses(RANGE, &["[18446744073709551616]", "[-1]"]),
        TypeRow::new("decimal(12,2)[]", ["numeric(12,2)[]", "longtext", "text TEXT"])
            .texts("[1.1, 1e3]", text(["{1.10,1000.00}", "[1.10,1000.00]"]))
            .refuses(LOSSY, &["[0.001]"]),
        TypeRow::new("f64[]", ["double precision[]", "longtext", "text TEXT"])
            .texts("[0.1, -2]", text(["{0.1,-2}", "[0.1,-2]"]))
            .refuses(TYPE, &["[\"NaN\"]"]),
        TypeRow::new("bool[]", ["boolean[]", "longtext", "text TEXT"])
            .texts("[true, false, null]", text(["{t,f,NULL}", "[true,false,null]"])),
        TypeRow::new("text[]", ["text[]", "longtext", "text TEXT"])
            .texts(
                r#"["a\"b\\", "NULL", "", "x,y{}", null]"#,
                text([r#"{"a\"b\\","NULL","","x,y{}",NULL}"#, r#"["a\"b\\","NULL","","x,y{}",null]"#]),
            )
            .refuses(TYPE, &["[1]"]),
        TypeRow::new("uuid[]", ["uuid[]", "longtext", "text TEXT"])
            .texts(
                "[\"123E4567E89B12D3A456426614174000\"]",
                text(["{123e4567-e89b-12d3-a456-426614174000}", "[\"123e4567-e89b-12d3-a456-426614174000\"]"]),
            )
            .refuses(UNREADABLE, &["[\"x\"]"]),
        TypeRow::new("date[]", ["date[]", "longtext", "text TEXT"])
            .texts("[\"2024-02-29\"]", text(["{2024-02-29}", "[\"2024-02-29\"]"])),
        TypeRow::new("timestamptz[]", ["timestamp with time zone[]", "longtext", "text TEXT"])
            .texts(
                "[\"2024-05-06T09:08:09.5+02:00\"]",
                text(["{\"2024-05-06 07:08:09.5+00\"}", "[\"2024-05-06T07:08:09.500000Z\"]"]),
            ),
        TypeRow::new("binary[]", ["bytea[]", "longtext", "text TEXT"])
            .texts("[\"AP8=\"]", text([r#"{"\\x00ff"}"#, "[\"AP8=\"]"])),
        TypeRow::new("json[]", ["jsonb[]", "longtext", "text TEXT"])
            .texts(r#"[{"a":"b"}, 1.50]"#, text([r#"{"{\"a\": \"b\"}",1.50}"#, r#"[{"a":"b"},1.50]"#])),
    ]
}

/// No type word makes an enumeration: the DBA does, and reviews every new label.
fn enumeration() -> TypeRow {
    TypeRow::new("text", ["mood", "enum('sad','happy','1')", "text TEXT"])
        .made(["mood", "enum('sad','happy','1')", "TEXT CHECK (v IN ('sad', 'happy', '1'))"])
        .all("\"happy\"", "happy")
        .all("\"1\"", "1")
        .each("\"angry\"", NO_LABEL.map(refused))
        .each("\"2\"", NO_LABEL.map(refused))
        .each("\"Happy\"", NO_LABEL.map(refused))
        .each("\"\"", NO_LABEL.map(refused))
        .labelled("a text of 300 characters", &format!("\"{}\"", "x".repeat(300)), {
            NO_LABEL.map(refused)
        })
        .note(
            "A column that a DBA made: `CREATE TYPE mood AS ENUM ('sad', 'happy', '1')`, MariaDB's `enum`, a CHECK. A label that the \
             column does not have makes a dead letter, also where the database would take a number in a text for a label's place.",
        )
}
