//! Every type word against what events say: exact digits, or a refusal with a code; never an altered value (O22, O23, O27).

mod common;

use common::{Table, context, evaluate_one};
use gravity_model::Value;
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{DatabaseKind, RouteProgram, Verdict, load};

/// A table with key `id` and a column `v` of the type, PostgreSQL.
fn program(column_type: &str, mapping_type: Option<&str>) -> RouteProgram {
    let table = Table::new("t").key("id", "i64").column("v", column_type).shape();
    let mapping_type = mapping_type.map(|t| format!(r#", "type": "{t}""#)).unwrap_or_default();
    let rules = format!(
        r#"{{"rules":[{{"event":"e","table":"t","method":"update","mapping":[
            {{"source":"id","target":"id","primary":true}},{{"source":"v","target":"v"{mapping_type}}}]}}]}}"#
    );
    let set = load(&[SourceFile::new("rules.json", rules)], &context(&["d"], &[])).expect("valid rules");
    set.compile("d", None, &[table]).expect("the type fits")
}

/// What a JSON value becomes in a column: the value, or the code of the refusal.
fn convert(program: &RouteProgram, json: &str) -> Result<Value, &'static str> {
    let (verdict, out) = evaluate_one(program, "e", &format!(r#"{{"id":1,"v":{json}}}"#));
    match verdict {
        Verdict::Matched => Ok(out.row(&out.changes[0])[1].clone()),
        Verdict::Refused(refusal) => {
            assert!(out.values.is_empty(), "a refused event leaves no values");
            assert_eq!(out.changes.len(), 1, "but its key");
            Err(refusal.code)
        }
        other => panic!("{other:?}"),
    }
}

fn check(column_type: &str, cases: &[(&str, Result<Value, &'static str>)]) {
    let program = program(column_type, None);
    for (json, want) in cases {
        assert_eq!(convert(&program, json), *want, "{json} into {column_type}");
    }
}

fn int(i: i64) -> Result<Value, &'static str> {
    Ok(Value::Int(i))
}

fn decimal(digits: &str) -> Result<Value, &'static str> {
    Ok(Value::Decimal(digits.into()))
}

fn text(t: &str) -> Result<Value, &'static str> {
    Ok(Value::Text(t.into()))
}

const TYPE: Result<Value, &str> = Err("map/wrong-type");
const RANGE: Result<Value, &str> = Err("map/out-of-range");
const LOSSY: Result<Value, &str> = Err("map/lossy");
const UNREADABLE: Result<Value, &str> = Err("map/unreadable");
const NULL: Result<Value, &str> = Ok(Value::Null);

#[test]
fn bool_is_true_or_false() {
    check(
        "bool",
        &[
            ("true", Ok(Value::Bool(true))),
            ("false", Ok(Value::Bool(false))),
            ("null", NULL),
            ("1", TYPE),
            ("\"true\"", TYPE),
            ("[]", TYPE),
        ],
    );
}

#[test]
fn integers_keep_their_range() {
    check("i8", &[("127", int(127)), ("-128", int(-128)), ("128", RANGE), ("-129", RANGE)]);
    check("u8", &[("255", int(255)), ("0", int(0)), ("-0", int(0)), ("-1", RANGE), ("256", RANGE)]);
    check("i16", &[("32767", int(32767)), ("32768", RANGE)]);
    check("u16", &[("65535", int(65535)), ("65536", RANGE)]);
    check("i32", &[("-2147483648", int(i32::MIN.into())), ("2147483648", RANGE)]);
    check("u32", &[("4294967295", int(u32::MAX.into())), ("4294967296", RANGE)]);
}

#[test]
fn o22_numbers_never_pass_through_f64() {
    check(
        "i64",
        &[
            ("9007199254740993", int(9_007_199_254_740_993)),
            ("9223372036854775807", int(i64::MAX)),
            ("-9223372036854775808", int(i64::MIN)),
            ("9223372036854775808", RANGE),
            ("-9223372036854775809", RANGE),
            ("\"9007199254740993\"", int(9_007_199_254_740_993)),
            ("99999999999999999999999999999999999999999999", RANGE),
        ],
    );
    check(
        "u64",
        &[("18446744073709551615", decimal("18446744073709551615")), ("18446744073709551616", RANGE), ("7", int(7))],
    );
    let digits = "12345678901234567890123456789012345678";
    check(
        "decimal",
        &[
            (digits, decimal(digits)),
            ("0.1", decimal("0.1")),
            ("-9007199254740993.000000000000000001", decimal("-9007199254740993.000000000000000001")),
        ],
    );
    check("decimal(38,0)", &[(digits, decimal(digits))]);
}

#[test]
fn o23_what_does_not_fit_is_refused_and_never_altered() {
    check(
        "i32",
        &[
            ("1.5", LOSSY),
            ("1.0", int(1)),
            ("1e3", int(1000)),
            ("100e-2", int(1)),
            ("1e-1", LOSSY),
            ("\"x\"", TYPE),
            ("\"7\"", TYPE),
            ("{}", TYPE),
            ("true", TYPE),
        ],
    );
    check("timestamptz", &[("\"yesterday\"", UNREADABLE), ("\"\"", UNREADABLE), ("0", TYPE)]);
    check(
        "i32[]",
        &[
            ("[1,0,2]", Ok(Value::Array(Box::new([Value::Int(1), Value::Int(0), Value::Int(2)])))),
            ("[1,1.5]", LOSSY),
            ("[\"x\"]", TYPE),
            ("5", TYPE),
        ],
    );
}

#[test]
fn decimals_are_canonical_and_bounded() {
    check(
        "decimal",
        &[
            ("0", decimal("0")),
            ("-0", decimal("0")),
            ("-0.00", decimal("0")),
            ("0e5", decimal("0")),
            ("12.50", decimal("12.5")),
            ("1200", decimal("1200")),
            ("1.20e3", decimal("1200")),
            ("1.2345e2", decimal("123.45")),
            ("5e-4", decimal("0.0005")),
            ("-123e-2", decimal("-1.23")),
            ("1E+2", decimal("100")),
            ("\"12.50\"", decimal("12.5")),
            ("\"12,50\"", TYPE),
            ("\" 1\"", TYPE),
            ("\"\"", TYPE),
            ("1e1000000000000000000000", RANGE),
            ("1e-1000000000", RANGE),
            ("true", TYPE),
        ],
    );
    check(
        "decimal(5,2)",
        &[
            ("999.99", decimal("999.99")),
            ("1000", RANGE),
            ("-1000", RANGE),
            ("0.01", decimal("0.01")),
            ("0.001", LOSSY),
            ("0.010", decimal("0.01")),
            ("1e2", decimal("100")),
        ],
    );
    check("decimal(2,2)", &[("0.99", decimal("0.99")), ("1", RANGE)]);
}

#[test]
fn floats_are_finite() {
    check(
        "f64",
        &[
            ("0.1", Ok(Value::Float(0.1))),
            ("1e308", Ok(Value::Float(1e308))),
            ("1e309", RANGE),
            ("5e-324", Ok(Value::Float(5e-324))),
            ("1e-400", RANGE),
            ("-0.1e-1000", RANGE),
            ("0e-400", Ok(Value::Float(0.0))),
            ("0.00e9", Ok(Value::Float(0.0))),
            ("\"1\"", TYPE),
            ("-0.0", Ok(Value::Float(-0.0))),
        ],
    );
    check(
        "f32",
        &[
            ("0.5", Ok(Value::Float(0.5))),
            ("1e39", RANGE),
            ("1e-46", RANGE),
            ("16777217", Ok(Value::Float(16_777_216.0))),
        ],
    );
}

#[test]
fn text_is_cut_out_or_unescaped() {
    check(
        "text",
        &[
            ("\"\"", text("")),
            ("\"Fred Chien\"", text("Fred Chien")),
            (r#""a\"b\\c\/\n\u00e9\ud83d\ude00""#, text("a\"b\\c/\n\u{e9}\u{1f600}")),
            ("\"簡報\"", text("簡報")),
            ("5", TYPE),
            ("true", TYPE),
            ("{}", TYPE),
            ("[]", TYPE),
            ("null", NULL),
            (r#""a\u0000b""#, Err("map/nul-in-text")),
        ],
    );
    check(
        "varchar(3)",
        &[
            ("\"abc\"", text("abc")),
            ("\"abcd\"", Err("map/too-long")),
            ("\"簡報書\"", text("簡報書")),
            ("\"簡報書a\"", Err("map/too-long")),
        ],
    );
}

#[test]
fn nul_is_refused_by_postgresql_only() {
    let mut context = context(&["d"], &[]);
    context.databases["d"].kind = DatabaseKind::Sqlite;
    let rules = r#"{"rules":[{"event":"e","table":"t","method":"update","primaryKey":"id"}]}"#;
    let set = load(&[SourceFile::new("rules.json", rules)], &context).expect("valid");
    let table = Table::new("t").key("id", "i64").column("v", "text").shape();
    let program = set.compile("d", None, &[table]).expect("fits");
    assert_eq!(convert(&program, r#""a\u0000b""#), text("a\0b"));
}

#[test]
fn jsonb_has_no_nul_either_and_json_is_kept_as_received() {
    let table = |word: &str| Table::new("t").key("id", "i64").column("v", "json").database_type(word).shape();
    let rules = r#"{"rules":[{"event":"e","table":"t","method":"update","primaryKey":"id"}]}"#;
    let set = load(&[SourceFile::new("rules.json", rules)], &context(&["d"], &[])).expect("valid");
    let json = |t: &str| Ok(Value::Json(t.into()));
    for (word, nul) in [("json", json(r#""a\u0000b""#)), ("jsonb", Err("map/nul-in-text"))] {
        let program = set.compile("d", None, &[table(word)]).expect("fits");
        assert_eq!(convert(&program, r#""a\u0000b""#), nul);
        assert_eq!(convert(&program, r#""a\\u0000b""#), json(r#""a\\u0000b""#));
        assert_eq!(
            convert(&program, r#"{ "b" : 1.50, "a":[ 9007199254740993 ] }"#),
            json(r#"{ "b" : 1.50, "a":[ 9007199254740993 ] }"#)
        );
        assert_eq!(convert(&program, "1e400"), json("1e400"));
        assert_eq!(convert(&program, "true"), json("true"));
        assert_eq!(convert(&program, "null"), NULL);
    }
}

#[test]
fn uuids_and_binary() {
    let bytes = [0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00];
    check(
        "uuid",
        &[
            ("\"123e4567-e89b-12d3-a456-426614174000\"", Ok(Value::Uuid(bytes))),
            ("\"123E4567-E89B-12D3-A456-426614174000\"", Ok(Value::Uuid(bytes))),
            ("\"123e4567e89b12d3a456426614174000\"", Ok(Value::Uuid(bytes))),
            ("\"123e4567\"", UNREADABLE),
            ("5", TYPE),
        ],
    );
    let binary = |b: &[u8]| Ok(Value::Binary(b.into()));
    check(
        "binary",
        &[
            ("\"aGk=\"", binary(b"hi")),
            ("\"aGk\"", binary(b"hi")),
            ("\"\"", binary(b"")),
            ("\"a b\"", UNREADABLE),
            ("\"_-8=\"", UNREADABLE),
            ("1", TYPE),
        ],
    );
}

#[test]
fn dates_and_times() {
    check(
        "date",
        &[
            ("\"1970-01-01\"", Ok(Value::Date(0))),
            ("\"1969-12-31\"", Ok(Value::Date(-1))),
            ("\"2024-02-29\"", Ok(Value::Date(19_782))),
            ("\"0001-01-01\"", Ok(Value::Date(-719_162))),
            ("\"9999-12-31\"", Ok(Value::Date(2_932_896))),
            ("\"2023-02-29\"", UNREADABLE),
            ("\"2023-13-01\"", UNREADABLE),
            ("\"0000-01-01\"", UNREADABLE),
            ("\"2023-1-1\"", UNREADABLE),
            ("\"2023-01-01T00:00:00Z\"", UNREADABLE),
            ("\"today\"", UNREADABLE),
            ("19723", TYPE),
        ],
    );
    check(
        "time",
        &[
            ("\"00:00:00\"", Ok(Value::Time(0))),
            ("\"23:59:59.999999\"", Ok(Value::Time(86_399_999_999))),
            ("\"07:08\"", Ok(Value::Time(25_680_000_000))),
            ("\"07:08:09.1234567\"", LOSSY),
            ("\"07:08:09.1234560\"", Ok(Value::Time(25_689_123_456))),
            ("\"24:00:00\"", UNREADABLE),
            ("\"07:08:60\"", UNREADABLE),
            ("\"07:08:09Z\"", UNREADABLE),
            ("\"7:08:09\"", UNREADABLE),
        ],
    );
}

#[test]
fn timestamps_have_a_zone_and_microseconds() {
    let micros = 1_714_979_289_123_456;
    let with_zone = |m| Ok(Value::TimestampTz(m));
    check(
        "timestamptz",
        &[
            ("\"1970-01-01T00:00:00Z\"", with_zone(0)),
            ("\"2024-05-06T07:08:09.123456Z\"", with_zone(micros)),
            ("\"2024-05-06 07:08:09.123456z\"", with_zone(micros)),
            ("\"2024-05-06t15:08:09.123456+08:00\"", with_zone(micros)),
            ("\"2024-05-06T15:08:09.123456+0800\"", with_zone(micros)),
            ("\"2024-05-05T23:08:09.123456-08\"", with_zone(micros)),
            ("\"2024-05-06T07:08:09,123456000Z\"", with_zone(micros)),
            ("\"1969-12-31T23:59:59.999999Z\"", with_zone(-1)),
            ("\"2024-05-06T07:08:09.1234561Z\"", LOSSY),
            ("\"2024-05-06T07:08:09\"", UNREADABLE),
            ("\"2024-05-06T07:08:09 CET\"", UNREADABLE),
            ("\"2024-05-06\"", UNREADABLE),
            ("\"2024-05-06T07:08:09.Z\"", UNREADABLE),
            ("\"2024-05-06T07:08:09+24:00\"", UNREADABLE),
            ("\"2024-13-06T07:08:09Z\"", UNREADABLE),
            ("1714979289", TYPE),
        ],
    );
    // INTERFACE 4: into columns without zone as UTC.
    check(
        "timestamp",
        &[
            ("\"2024-05-06T15:08:09.123456+08:00\"", Ok(Value::Timestamp(micros))),
            ("\"2024-05-06T07:08:09.123456\"", Ok(Value::Timestamp(micros))),
            ("\"now\"", UNREADABLE),
        ],
    );
}

#[test]
fn arrays_hold_converted_elements() {
    let array = |items: Vec<Value>| Ok(Value::Array(items.into_boxed_slice()));
    check(
        "text[]",
        &[
            ("[]", array(vec![])),
            ("[ ]", array(vec![])),
            (r#"[ "a" , null , "b\n" ]"#, array(vec![Value::Text("a".into()), Value::Null, Value::Text("b\n".into())])),
            ("[[]]", TYPE),
            ("\"a\"", TYPE),
        ],
    );
    check("u64[]", &[("[18446744073709551615]", array(vec![Value::Decimal("18446744073709551615".into())]))]);
}

/// (mapping's type, column's type, JSON, result)
#[test]
fn a_declared_type_goes_into_a_wider_column() {
    let cases = [
        ("i32", "i64", "7", int(7)),
        ("i32", "i64", "2147483648", RANGE),
        ("u32", "i64", "4294967295", int(4_294_967_295)),
        ("i64", "decimal", "-7", decimal("-7")),
        ("u64", "decimal(20,0)", "18446744073709551615", decimal("18446744073709551615")),
        ("i16", "f64", "7", Ok(Value::Float(7.0))),
        ("bool", "i64", "true", int(1)),
        ("decimal", "text", "1.50", text("1.5")),
        ("decimal(12,2)", "text", "1.5", text("1.50")),
        ("decimal(12,2)", "text", "-7", text("-7.00")),
        ("decimal(4,2)", "varchar(5)", "-0.5", text("-0.50")),
        ("decimal(4,2)", "varchar(5)", "-10.5", Err("map/too-long")),
        ("decimal(4,0)", "text", "12", text("12")),
        ("json", "text", r#"{"a": 1}"#, text(r#"{"a": 1}"#)),
        ("uuid", "text", "\"123E4567E89B12D3A456426614174000\"", text("123e4567-e89b-12d3-a456-426614174000")),
        ("timestamptz", "text", "\"2024-05-06T09:08:09.5+02:00\"", text("2024-05-06T07:08:09.5Z")),
        ("timestamp", "varchar(30)", "\"2024-05-06T07:08:09\"", text("2024-05-06T07:08:09")),
        ("date", "text", "\"2024-05-06\"", text("2024-05-06")),
        ("time", "text", "\"07:08:09\"", text("07:08:09")),
        ("i64", "varchar(3)", "1000", Err("map/too-long")),
        ("i64[]", "text", "[1, 2]", text("[1,2]")),
        ("timestamptz", "timestamp", "\"1970-01-01T01:00:00+01:00\"", Ok(Value::Timestamp(0))),
        ("varchar(3)", "text", "\"abcd\"", Err("map/too-long")),
        ("decimal(4,1)", "decimal(6,2)", "123.4", decimal("123.4")),
        ("decimal(4,1)", "decimal(6,2)", "1234.5", RANGE),
        ("i32[]", "i64[]", "[1]", Ok(Value::Array(Box::new([Value::Int(1)])))),
        ("text", "json", "\"a\\nb\"", Ok(Value::Json("\"a\\nb\"".into()))),
    ];
    for (declared, column, json, want) in cases {
        assert_eq!(convert(&program(column, Some(declared)), json), want, "{json} as {declared} into {column}");
    }
}

#[test]
fn text_shares_the_bytes_of_its_block() {
    use std::sync::Arc;

    use bytes::Bytes;
    use gravity_model::{Event, Recorded, Sequence};
    use gravity_rules::Evaluation;

    let program = program("text", None);
    let block = Arc::new(Bytes::from(br#"..{"id":1,"v":"shared"}.."#.to_vec()));
    let recorded = Recorded { sequence: Sequence(1), event: Event::data("e", "web", &block[2..block.len() - 2]) };
    let mut out = Evaluation::new();
    assert_eq!(program.evaluate(&recorded, &block, &mut out), Verdict::Matched);
    let Value::Text(found) = &out.values[1] else { panic!("{:?}", out.values) };
    assert!(block.as_ptr_range().contains(&found.as_bytes().as_ptr()));
}
