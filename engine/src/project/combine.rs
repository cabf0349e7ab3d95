//! Whether two changes of one row are one, column by column, where values join those that are there (SEMANTICS 2.7, 3.3).
//!
//! The rule is that of the fold: one statement only where it has the effect of both *and is refused exactly where one of them
//! would be*. A sum that has left its column's range must not come back into it unseen, so sums of different signs stay apart;
//! nor may a value that is simply set hide that the sum before it had no place.

use std::cmp::Ordering;

use gravity_model::{ColumnOp, ColumnSet, RowOp, TableShape, Value};

/// Longest text that is put together here. Longer ones are joined by the database, a change at a time: copying the whole
/// text again and again would take time with the square of its length.
const MOST_TEXT: usize = 16 << 10;

/// What a row of a change carries beside its key.
#[derive(Clone, Copy)]
pub struct Carried<'c> {
    pub columns: &'c ColumnSet,
    /// `set`, then `on_create`.
    pub values: &'c [Value],
}

impl Carried<'_> {
    fn set(&self) -> impl Iterator<Item = (u16, ColumnOp, &Value)> {
        let cells = self.columns.set.iter().zip(self.values).enumerate();
        cells.map(|(index, (column, value))| (*column, self.columns.op(index), value))
    }
}

/// The database may refuse what these columns come to, whatever is written afterwards.
pub fn may_be_refused(columns: &ColumnSet) -> bool {
    columns.ops.iter().any(|op| matches!(op, ColumnOp::Add | ColumnOp::Append))
}

/// `later` over `earlier`, as one change that runs as `result`; `None` where only the database can tell.
pub fn combined(
    shape: &TableShape,
    result: RowOp,
    earlier: Carried<'_>,
    later: Carried<'_>,
) -> Option<(ColumnSet, Vec<Value>)> {
    let patches = matches!(result, RowOp::Patch | RowOp::PatchRequired);
    let untouched = |column: &u16| later.columns.set.binary_search(column).is_err();
    let mut cells: Vec<(u16, ColumnOp, Value)> = Vec::with_capacity(earlier.values.len() + later.values.len());
    cells.extend(earlier.set().filter(|(c, ..)| untouched(c)).map(|(c, op, value)| (c, op, value.clone())));
    for (column, op, value) in later.set() {
        let shape = &shape.columns[usize::from(column)];
        let (op, value) = match earlier.columns.set.binary_search(&column) {
            Ok(at) => joined(shape, (earlier.columns.op(at), &earlier.values[at]), (op, value))?,
            // The row that the earlier change creates has a value there already, which this one joins.
            Err(_) if op != ColumnOp::Set && !patches && filled(&earlier, column, shape) => return None,
            Err(_) => (op, value.clone()),
        };
        cells.push((column, op, value));
    }
    cells.sort_unstable_by_key(|(column, ..)| *column);
    // The earlier change makes the row exist, so the later one's own `default`s never apply.
    let created = earlier.columns.on_create.iter().zip(&earlier.values[earlier.columns.set.len()..]);
    let created: Vec<(u16, &Value)> = match patches {
        true => Vec::new(),
        false => created.filter(|(c, _)| untouched(c)).map(|(c, value)| (*c, value)).collect(),
    };
    let joins = cells.iter().any(|(_, op, _)| *op != ColumnOp::Set);
    let columns = ColumnSet {
        set: cells.iter().map(|(column, ..)| *column).collect(),
        on_create: created.iter().map(|(column, _)| *column).collect(),
        ops: if joins { cells.iter().map(|(_, op, _)| *op).collect() } else { Box::default() },
    };
    let created = created.into_iter().map(|(_, value)| value.clone());
    Some((columns, cells.into_iter().map(|(.., value)| value).chain(created).collect()))
}

/// A new row would have a value in the column though the change carries none.
fn filled(earlier: &Carried<'_>, column: u16, shape: &gravity_model::ColumnShape) -> bool {
    shape.has_default || earlier.columns.on_create.binary_search(&column).is_ok()
}

/// Two values for one column, in order, as one.
fn joined(
    shape: &gravity_model::ColumnShape,
    (first, before): (ColumnOp, &Value),
    (then, value): (ColumnOp, &Value),
) -> Option<(ColumnOp, Value)> {
    match (first, then) {
        (ColumnOp::Add | ColumnOp::Append, ColumnOp::Set) => return None,
        (_, ColumnOp::Set) => return Some((ColumnOp::Set, value.clone())),
        (ColumnOp::Set, _) => {}
        (first, then) if first != then => return None,
        (ColumnOp::Add, _) if sign(before)?.reverse() == sign(value)? && sign(value)? != Ordering::Equal => {
            return None;
        }
        _ => {}
    }
    let is_float = |value: &Value| matches!(value, Value::Float(_));
    // Sums of floats depend on their order, and a null is nothing that rules carry with an op.
    if value.is_null() || (then == ColumnOp::Add && (is_float(before) || is_float(value))) {
        return None;
    }
    if then == ColumnOp::Append && before.weight() + value.weight() > MOST_TEXT {
        return None;
    }
    Some((first, then.join(&shape.column_type, before, value).ok()?))
}

/// Of a number that is no float.
fn sign(value: &Value) -> Option<Ordering> {
    match value {
        Value::Int(number) => Some(number.cmp(&0)),
        Value::Decimal(digits) if digits.as_str() == "0" => Some(Ordering::Equal),
        Value::Decimal(digits) if digits.as_str().starts_with('-') => Some(Ordering::Less),
        Value::Decimal(_) => Some(Ordering::Greater),
        _ => None,
    }
}
