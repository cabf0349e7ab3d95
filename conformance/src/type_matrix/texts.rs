//! Text and its limits, identifiers, bytes.

use super::{Target, TypeRow, reads, refused};

const TYPE: &str = "map/wrong-type";
const TOO_LONG: &str = "map/too-long";
const UNREADABLE: &str = "map/unreadable";

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub fn rows() -> Vec<TypeRow> {
    let long = "é".repeat(70_000);
    let crabs = "🦀".repeat(5_000);
    let bytes = [0u8, 1, 127, 128, 255, b'\'', b'\\'];
    let base64 = "\"AAF/gP8nXA==\"";
    assert_eq!(bytes.len(), 7);
    vec![
        TypeRow::new("text", ["text", "longtext", "text TEXT", "string"])
            .all("\"\"", "")
            .all("\" blanks \"", " blanks ")
            .all("\"007\"", "007")
            .all("\"NULL\"", "NULL")
            .all("\"'; DROP TABLE users; --\"", "'; DROP TABLE users; --")
            .all(r#""tab\tline\nquote\"back\\slash\/""#, "tab\tline\nquote\"back\\slash/")
            .all(r#""簡報 \u00e9 \ud83e\udd80 e\u0301""#, "簡報 é 🦀 e\u{301}")
            .each(r#""a\u0000b""#, [refused("map/nul-in-text"), reads("a\0b"), reads("a\0b"), reads("a\0b")])
            .labelled("70,000 times é (140,000 bytes)", &quoted(&long), Target::ALL.map(|_| reads(long.as_str())))
            .refuses(TYPE, &["5", "true", "{}", "[]"])
            .note("PostgreSQL's text has no character NUL. Texts are never normalised, trimmed or folded."),
        TypeRow::new("varchar(3)", ["character varying(3)", "varchar(3)", "text TEXT", "string"])
            .all("\"abc\"", "abc")
            .all("\"簡報書\"", "簡報書")
            .all("\"🦀🦀🦀\"", "🦀🦀🦀")
            .all("\"a  \"", "a  ")
            .refuses(TOO_LONG, &["\"abcd\"", "\"abc \"", "\"🦀🦀🦀🦀\""])
            .note("Characters are counted, not bytes. Nothing is cut, blanks neither."),
        TypeRow::new("varchar(5000)", ["character varying(5000)", "longtext", "text TEXT", "string"])
            .labelled("5,000 times 🦀", &quoted(&crabs), Target::ALL.map(|_| reads(crabs.as_str())))
            .labelled("5,001 times 🦀", &quoted(&format!("{crabs}🦀")), Target::ALL.map(|_| refused(TOO_LONG)))
            .note("A row of MariaDB ends at 65,535 bytes: beyond 4,000 characters the column is a longtext."),
        TypeRow::new("uuid", ["uuid", "uuid", "text TEXT", "binData"])
            .all("\"123e4567-e89b-12d3-a456-426614174000\"", "123e4567-e89b-12d3-a456-426614174000")
            .all("\"123E4567-E89B-12D3-A456-426614174000\"", "123e4567-e89b-12d3-a456-426614174000")
            .all("\"123e4567e89b12d3a456426614174000\"", "123e4567-e89b-12d3-a456-426614174000")
            .all("\"00000000-0000-0000-0000-000000000000\"", "00000000-0000-0000-0000-000000000000")
            .all("\"ffffffff-ffff-ffff-ffff-ffffffffffff\"", "ffffffff-ffff-ffff-ffff-ffffffffffff")
            .refuses(UNREADABLE, &["\"123e4567\"", "\"123e4567-e89b-12d3-a456-42661417400g\"", "\"\""])
            .refuses(TYPE, &["5"])
            .note("MySQL, which has no such type, keeps a `binary(16)`; MongoDB binary data of subtype 4."),
        TypeRow::new("binary", ["bytea", "longblob", "blob BLOB", "binData"])
            .texts("\"\"", ["\\x", "x", "x", "x"])
            .texts(base64, ["\\x00017f80ff275c", "x00017F80FF275C", "x00017F80FF275C", "x00017F80FF275C"])
            .texts("\"aGk\"", ["\\x6869", "x6869", "x6869", "x6869"])
            .refuses(UNREADABLE, &["\"a b\"", "\"_-8=\"", "\"aGk=====\""])
            .refuses(TYPE, &["1", "[1,2]"])
            .note("Base64 in JSON, with or without padding, in its standard alphabet. Shown as hexadecimal digits."),
    ]
}
