//! Expressions for values that join those of the row (SEMANTICS 2.7), computed by the server inside the statement that writes:
//! exact like [`ColumnOp::join`](gravity_model::ColumnOp::join), and an error of class 22 where that refuses.

use gravity_model::{ColumnOp, ColumnType};

use super::codec::Wire;
use super::plan::Cell;
use crate::sql::statement::StatementBuilder;

/// White space of JSON.
const BLANKS: &str = "E' \\t\\n\\r'";

/// Writes what `cell` is to hold: `given` (written by the caller) joined with the column of the row, whose table is `t`. A null
/// on either side leaves the other.
pub(super) fn joined(b: &mut StatementBuilder, cell: &Cell, op: ColumnOp, given: &dyn Fn(&mut StatementBuilder)) {
    let present = |b: &mut StatementBuilder| _ = b.add("t.").name(&cell.name);
    match (op, &cell.column_type) {
        (ColumnOp::Set, _) => given(b),
        (ColumnOp::Add, _) => either(b, "+", &present, given, |_| {}),
        (ColumnOp::Min, of) => extreme(b, "<", of, &present, given),
        (ColumnOp::Max, of) => extreme(b, ">", of, &present, given),
        (ColumnOp::Append, ColumnType::Json) if cell.wire == Wire::Json => longer_json(b, &present, given),
        (ColumnOp::Append, ColumnType::Json) => {
            b.add("CASE WHEN ");
            present(b);
            // Of what is no list there is no length: an error, where `||` would make a list of it.
            b.add(" IS NULL THEN ");
            given(b);
            b.add(" WHEN jsonb_array_length(");
            present(b);
            b.add(") >= 0 THEN ");
            either(b, "||", &present, given, |_| {});
            b.add(" END");
        }
        (ColumnOp::Append, ColumnType::Varchar(longest)) => {
            // The server cuts blanks beyond the length without a word; behind them stands a point then, which it does not.
            either(b, "||", &present, given, |b| {
                b.add(" || CASE WHEN char_length(");
                present(b);
                b.add(" || ");
                given(b);
                b.add(") > ").number(*longest as usize).add(" THEN '.' ELSE '' END");
            });
        }
        (ColumnOp::Append, _) if cell.wire == Wire::Literal => {
            b.add("(");
            let text = |b: &mut StatementBuilder, of: &dyn Fn(&mut StatementBuilder)| {
                of(b);
                b.add("::text");
            };
            let (present, given) =
                (|b: &mut StatementBuilder| text(b, &present), |b: &mut StatementBuilder| text(b, given));
            either(b, "||", &present, &given, |_| {});
            b.add(")::").type_word(&cell.own_type);
        }
        (ColumnOp::Append, _) => either(b, "||", &present, given, |_| {}),
    }
}

/// `COALESCE(t.c + given, given, t.c)`
fn either(
    b: &mut StatementBuilder,
    operator: &'static str,
    present: &dyn Fn(&mut StatementBuilder),
    given: &dyn Fn(&mut StatementBuilder),
    more: impl Fn(&mut StatementBuilder),
) {
    b.add("COALESCE(");
    present(b);
    b.add(" ").add(operator).add(" ");
    given(b);
    more(b);
    b.add(", ");
    given(b);
    b.add(", ");
    present(b);
    b.add(")");
}

/// The given value where nothing is there or it is smaller (larger); texts by their bytes, whatever the column's collation.
fn extreme(
    b: &mut StatementBuilder,
    comparison: &'static str,
    of: &ColumnType,
    present: &dyn Fn(&mut StatementBuilder),
    given: &dyn Fn(&mut StatementBuilder),
) {
    let bytes = match of {
        ColumnType::Text | ColumnType::Varchar(_) => "::text COLLATE \"C\"",
        _ => "",
    };
    b.add("CASE WHEN ");
    present(b);
    b.add(" IS NULL OR ");
    given(b);
    b.add(bytes).add(" ").add(comparison).add(" ");
    present(b);
    b.add(bytes).add(" THEN ");
    given(b);
    b.add(" ELSE ");
    present(b);
    b.add(" END");
}

/// `json` is the text that was written; its own operators would go through jsonb and forget that text.
fn longer_json(
    b: &mut StatementBuilder,
    present: &dyn Fn(&mut StatementBuilder),
    given: &dyn Fn(&mut StatementBuilder),
) {
    let empty = |b: &mut StatementBuilder, of: &dyn Fn(&mut StatementBuilder)| {
        b.add("json_array_length(");
        of(b);
        b.add(") = 0");
    };
    b.add("CASE WHEN ");
    present(b);
    b.add(" IS NULL OR ");
    empty(b, present);
    b.add(" THEN COALESCE(");
    given(b);
    b.add(", ");
    present(b);
    b.add(") WHEN ");
    given(b);
    b.add(" IS NULL OR ");
    empty(b, given);
    b.add(" THEN ");
    present(b);
    b.add(" ELSE (left(rtrim(");
    present(b);
    b.add("::text, ").add(BLANKS).add("), -1) || ',' || substr(ltrim(");
    given(b);
    b.add("::text, ").add(BLANKS).add("), 2))::json END");
}
