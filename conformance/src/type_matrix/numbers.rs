//! Integers to their limits, decimals with fixed and free scale, floats, booleans.

use super::{TARGETS, TypeRow, reads, refused};

const TYPE: &str = "map/wrong-type";
const RANGE: &str = "map/out-of-range";
const LOSSY: &str = "map/lossy";

pub fn rows() -> Vec<TypeRow> {
    let mut rows = integers();
    rows.extend(decimals());
    rows.extend(floats());
    rows.push(
        TypeRow::new("bool", ["boolean", "tinyint(1)", "integer INTEGER", "bool"])
            .texts("true", ["t", "1", "1", "true"])
            .texts("false", ["f", "0", "0", "false"])
            .refuses(TYPE, &["1", "0", "\"true\"", "\"\"", "[]"]),
    );
    rows
}

fn integers() -> Vec<TypeRow> {
    vec![
        TypeRow::new("i8", ["smallint", "tinyint(4)", "integer INTEGER", "long"])
            .all("-128", "-128")
            .all("127", "127")
            .all("-0", "0")
            .all("1.0", "1")
            .all("1.2e1", "12")
            .refuses(RANGE, &["128", "-129", "1e3"])
            .refuses(LOSSY, &["1.5", "1e-1"])
            .refuses(TYPE, &["\"7\"", "true", "{}"])
            .note("PostgreSQL has no 8 bits; the limits of the declared type hold all the same."),
        TypeRow::new("u8", ["smallint", "tinyint(3) unsigned", "integer INTEGER", "long"])
            .all("0", "0")
            .all("255", "255")
            .refuses(RANGE, &["-1", "256"]),
        TypeRow::new("i16", ["smallint", "smallint(6)", "integer INTEGER", "long"])
            .all("-32768", "-32768")
            .all("32767", "32767")
            .refuses(RANGE, &["-32769", "32768"]),
        TypeRow::new("u16", ["integer", "smallint(5) unsigned", "integer INTEGER", "long"])
            .all("0", "0")
            .all("65535", "65535")
            .refuses(RANGE, &["-1", "65536"]),
        TypeRow::new("i32", ["integer", "int(11)", "integer INTEGER", "long"])
            .all("-2147483648", "-2147483648")
            .all("2147483647", "2147483647")
            .refuses(RANGE, &["-2147483649", "2147483648"]),
        TypeRow::new("u32", ["bigint", "int(10) unsigned", "integer INTEGER", "long"])
            .all("0", "0")
            .all("4294967295", "4294967295")
            .refuses(RANGE, &["-1", "4294967296"]),
        TypeRow::new("i64", ["bigint", "bigint(20)", "integer INTEGER", "long"])
            .all("-9223372036854775808", "-9223372036854775808")
            .all("9007199254740993", "9007199254740993")
            .all("9223372036854775807", "9223372036854775807")
            .all("\"9223372036854775807\"", "9223372036854775807")
            .refuses(RANGE, &["-9223372036854775809", "9223372036854775808"])
            .refuses(LOSSY, &["9007199254740992.5"])
            .note(
                "Whole numbers of 64 bits may also be written as text, for producers whose JSON numbers end at 2^53.",
            ),
        TypeRow::new("u64", ["numeric(20,0)", "bigint(20) unsigned", "text TEXT", "long"])
            .all("0", "0")
            .all("9223372036854775807", "9223372036854775807")
            .but("9223372036854775808", ["9223372036854775808"; 3], RANGE)
            .but("18446744073709551615", ["18446744073709551615"; 3], RANGE)
            .but("\"18446744073709551615\"", ["18446744073709551615"; 3], RANGE)
            .refuses(RANGE, &["-1", "18446744073709551616"])
            .note(
                "SQLite's integers end at 2^63 - 1: a text keeps all digits. Numbers in texts do not sort as numbers do. MongoDB's \
                 end there too: what is beyond is refused, unless the mapping declares `decimal`.",
            ),
    ]
}

fn decimals() -> Vec<TypeRow> {
    // 35 digits before the point and 30 behind it are what MariaDB's widest decimal has.
    let widest = "12345678901234567890123456789012345.123456789012345678901234567891";
    let zeros = "0".repeat(1_000);
    let half = "0.5000000000000000000000000000000000000000";
    let seventy = "-999999999999999999999999999999.9999999999999999999999999999999999999999";
    vec![
        TypeRow::new("decimal", ["numeric", "decimal(65,30)", "text TEXT", "decimal"])
            .texts("0", ["0", "0.000000000000000000000000000000", "0", "0"])
            .texts("-0.00", ["0", "0.000000000000000000000000000000", "0", "0"])
            .texts("12.50", ["12.5", "12.500000000000000000000000000000", "12.5", "12.5"])
            .texts("\"-12.5\"", ["-12.5", "-12.500000000000000000000000000000", "-12.5", "-12.5"])
            .texts("1.5e3", ["1500", "1500.000000000000000000000000000000", "1500", "1500"])
            .texts(
                "9007199254740993",
                [
                    "9007199254740993",
                    "9007199254740993.000000000000000000000000000000",
                    "9007199254740993",
                    "9007199254740993",
                ],
            )
            .but(widest, [widest; 3], RANGE)
            .each(
                "123456789012345678901234567890123456",
                [
                    reads("123456789012345678901234567890123456"),
                    refused("1264"),
                    reads("123456789012345678901234567890123456"),
                    refused(RANGE),
                ],
            )
            .each(
                "0.0000000000000000000000000000001",
                [
                    reads("0.0000000000000000000000000000001"),
                    refused("1265"),
                    reads("0.0000000000000000000000000000001"),
                    reads("0.0000000000000000000000000000001"),
                ],
            )
            .refuses(RANGE, &["1e1001", "1e-1001"])
            .refuses(TYPE, &["\"12,50\"", "\"\"", "\"NaN\"", "true"])
            .labelled("1 and 1,000 zeros", &format!("1{zeros}"), [RANGE; TARGETS].map(refused))
            .note(
                "Without a declared scale the value counts, not the way it was written: zeros at the end of a fraction are not \
                 kept. Numbers of more than 1,000 digits are refused. MongoDB's Decimal128 has 34 digits.",
            ),
        TypeRow::new("decimal(12,2)", ["numeric(12,2)", "decimal(12,2)", "text TEXT", "decimal"])
            .texts("0", ["0.00", "0.00", "0.00", "0"])
            .texts("1.1", ["1.10", "1.10", "1.10", "1.1"])
            .texts("1.10", ["1.10", "1.10", "1.10", "1.1"])
            .texts("-0.5", ["-0.50", "-0.50", "-0.50", "-0.5"])
            .texts("1e3", ["1000.00", "1000.00", "1000.00", "1000"])
            .all("9999999999.99", "9999999999.99")
            .all("-9999999999.99", "-9999999999.99")
            .texts("\"0.30\"", ["0.30", "0.30", "0.30", "0.3"])
            .refuses(RANGE, &["10000000000", "-10000000000"])
            .refuses(LOSSY, &["0.001", "9999999999.995"]),
        TypeRow::new("decimal(38,0)", ["numeric(38,0)", "decimal(38,0)", "text TEXT", "decimal"])
            .but("99999999999999999999999999999999999999", ["99999999999999999999999999999999999999"; 3], RANGE)
            .all("-7", "-7")
            .refuses(RANGE, &["100000000000000000000000000000000000000"])
            .refuses(LOSSY, &["0.5"]),
        TypeRow::new("decimal(70,40)", ["numeric(70,40)", "varchar(73)", "text TEXT", "decimal"])
            .texts("0.5", [half, half, half, "0.5"])
            .but(seventy, [seventy; 3], RANGE)
            .refuses(RANGE, &["1000000000000000000000000000000"])
            .note("Wider than MariaDB's decimal, which ends at (65,30): a text keeps all digits."),
    ]
}

fn floats() -> Vec<TypeRow> {
    vec![
        TypeRow::new("f32", ["real", "float", "real REAL", "double"])
            .all("1.5", "1.5")
            .texts("0.1", ["0.1", "0.10000000149011612", "0.10000000149011612", "0.10000000149011612"])
            .texts("16777217", ["1.6777216e+07", "16777216", "16777216.0", "16777216.0"])
            .texts(
                "3.4028234663852886e38",
                ["3.4028235e+38", "3.4028234663852886e38", "3.4028234663852886e38", "3.4028234663852886e+38"],
            )
            .texts(
                "1.1754943508222875e-38",
                ["1.1754944e-38", "1.1754943508222875e-38", "1.1754943508222875e-38", "1.1754943508222875e-38"],
            )
            .refuses(RANGE, &["3.5e38", "-1e39", "1e-50"])
            .refuses(TYPE, &["\"1.5\"", "\"NaN\"", "\"Infinity\""])
            .note(
                "The nearest float of 32 bits, as IEEE 754 rounds. SQLite and MongoDB have doubles only, which hold it exactly; MariaDB's is \
                 read as a double here, because its client prints six digits of a float.",
            ),
        TypeRow::new("f64", ["double precision", "double", "real REAL", "double"])
            .all("0.1", "0.1")
            .texts("5", ["5", "5", "5.0", "5.0"])
            .all("-2.5e-300", "-2.5e-300")
            .texts(
                "9007199254740993",
                ["9.007199254740992e+15", "9.007199254740992e15", "9007199254740992.0", "9007199254740992.0"],
            )
            .texts(
                "1.7976931348623157e308",
                [
                    "1.7976931348623157e+308",
                    "1.7976931348623157e308",
                    "1.7976931348623157e308",
                    "1.7976931348623157e+308",
                ],
            )
            .all("2.2250738585072014e-308", "2.2250738585072014e-308")
            .texts("-0.0", ["-0", "0", "0.0", "-0.0"])
            .refuses(RANGE, &["1e309", "-1e309", "1e-400"])
            .refuses(TYPE, &["\"0.1\"", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""])
            .note(
                "The nearest double. Not a number and the infinities are refused: JSON has no number for them, and MariaDB no \
                 value. Where a producer writes them as text among numbers, a column of type `json` takes both. MariaDB and SQLite show no sign of zero.",
            ),
    ]
}
