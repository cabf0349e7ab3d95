//! Many events folded into one batch leave the rows that they leave one by one, and are refused when one of them is.

use std::sync::Arc;

use gravity_connectors::memory::view::MemoryViews;
use gravity_model::ident::Digest;
use gravity_model::port::view::{BookkeepingRewrite, EventOutcome, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_model::{
    BlockMark, Checkpoint, ColumnOp, ColumnSet, ColumnShape, Counters, Epoch, FaultKind, Fence, LogId, OwnerId,
    Sequence, Step, TableShape, Value,
};
use gravity_rules::{Change, ChangeOp};

use super::evaluate::{Judged, Stretch, Wants};
use super::fold::{Fold, Folded};

/// Narrow types, so that sums and texts leave them often.
fn shape() -> SharedShape {
    let column = |name: &str, word: &str| ColumnShape {
        name: name.to_owned(),
        column_type: word.parse().expect("a type word"),
        database_type: word.to_owned(),
        not_null: name == "id",
        has_default: false,
        generated: false,
    };
    let columns = [
        ("id", "i64"),
        ("small", "i8"),
        ("money", "decimal(3,1)"),
        ("best", "i64"),
        ("words", "varchar(7)"),
        ("list", "json"),
        ("float", "f64"),
    ];
    let columns = columns.map(|(name, word)| column(name, word)).into();
    Arc::new(TableShape { table: "t".to_owned(), columns, primary_key: vec![0], unique: Vec::new() })
}

/// Numbers without chance: the same ones in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// A cell of `column` with one of the ops that it takes.
fn cell(dice: &mut Dice, column: u16, may_join: bool) -> (ColumnOp, Value) {
    use ColumnOp::{Add, Append, Max, Min, Set};
    let number = dice.roll(150) as i64 - 60;
    let (ops, value): (&[ColumnOp], Value) = match column {
        1 => (&[Set, Add, Add, Add, Min, Max], Value::Int(number)),
        2 => {
            let digits = gravity_model::decimal::canonical(&format!("{}.{}", number / 2, dice.roll(10)));
            (&[Set, Add, Add, Add, Min, Max], Value::Decimal(digits.expect("digits").into()))
        }
        3 => (&[Set, Min, Max, Max], Value::Int(number)),
        4 => (&[Set, Min, Max, Append, Append], Value::Text(dice.pick(&["", "a", "é", "b ", " ", "zz"]).into())),
        5 => (&[Set, Append, Append], Value::Json(dice.pick(&["[1]", "[]", "[{\"a\":2}]", "[3,4]"]).into())),
        _ => (&[Set, Add, Max], Value::Float(number as f64 / 10.0)),
    };
    let op = if may_join { dice.pick(ops) } else { Set };
    match op {
        Set if dice.roll(8) == 0 => (op, Value::Null),
        Set if column == 5 && dice.roll(6) == 0 => (op, Value::Json("{\"no\":\"list\"}".into())),
        op => (op, value),
    }
}

#[derive(Default)]
struct Events {
    stretch: Stretch,
    sets: Vec<Arc<ColumnSet>>,
}

impl Events {
    fn add(&mut self, dice: &mut Dice) {
        use ChangeOp::{Delete, DeleteAll, Insert, InsertIgnore, Move, Patch, UpdateElseInsert, Upsert};
        let first = self.stretch.evaluation.changes.len() as u32;
        let of_each = [
            Upsert,
            Upsert,
            Upsert,
            Upsert,
            UpdateElseInsert,
            UpdateElseInsert,
            Patch,
            Patch,
            Patch,
            Delete,
            Insert,
            InsertIgnore,
            Move,
            DeleteAll,
        ];
        for _ in 0..=dice.roll(6) / 5 {
            let op = dice.pick(&of_each);
            let rare = op == DeleteAll && dice.roll(3) > 0;
            self.change(dice, if rare { Upsert } else { op });
        }
        let sequence = Sequence(self.stretch.events.len() as u64 + 1);
        let changes = first..self.stretch.evaluation.changes.len() as u32;
        self.stretch.events.push(Judged { sequence, wants: Wants::Changes, changes });
    }

    fn change(&mut self, dice: &mut Dice, op: ChangeOp) {
        let evaluation = &mut self.stretch.evaluation;
        let key_of = |keys: &mut Vec<u8>, id: i64| {
            let start = keys.len() as u32;
            Value::Int(id).write_canonical(keys);
            start..keys.len() as u32
        };
        let mut change = Change {
            table: 0,
            op,
            columns: self.sets.len() as u32,
            key: 0..0,
            old_key: None,
            values: 0..0,
            rule: 0,
            park_if_missing: op == ChangeOp::Patch && dice.roll(4) == 0,
        };
        let mut set = ColumnSet::default();
        let start = evaluation.values.len() as u32;
        if op != ChangeOp::DeleteAll {
            let id = dice.roll(3) as i64;
            if op == ChangeOp::Move {
                let old = (id + 1 + dice.roll(2) as i64) % 3;
                change.old_key = Some(key_of(&mut evaluation.keys, old));
                evaluation.values.push(Value::Int(old));
            }
            change.key = key_of(&mut evaluation.keys, id);
            evaluation.values.push(Value::Int(id));
        }
        if !matches!(op, ChangeOp::Delete | ChangeOp::DeleteAll) {
            let may_join = !matches!(op, ChangeOp::Insert | ChangeOp::InsertIgnore);
            let columns: Vec<u16> = (1..7).filter(|_| dice.roll(3) == 0).collect();
            let (mut ops, mut created) = (Vec::new(), Vec::new());
            for column in &columns {
                let (op, value) = cell(dice, *column, may_join);
                ops.push(op);
                evaluation.values.push(value);
            }
            for column in (1..7).filter(|c| !columns.contains(c) && op != ChangeOp::Patch) {
                if dice.roll(8) == 0 {
                    created.push(column);
                    evaluation.values.push(cell(dice, column, false).1);
                }
            }
            let ops = if ops.iter().all(|op| *op == ColumnOp::Set) { Vec::new() } else { ops };
            set = ColumnSet { set: columns.into(), on_create: created.into(), ops: ops.into() };
        }
        change.values = start..evaluation.values.len() as u32;
        evaluation.changes.push(change);
        self.sets.push(Arc::new(set));
    }

    /// The events of a range as one batch.
    fn folded(&self, shapes: &[SharedShape], events: std::ops::Range<usize>) -> Folded {
        let mut fold = Fold::new(&self.stretch.evaluation, shapes);
        for event in events {
            let judged = &self.stretch.events[event];
            for change in &self.stretch.evaluation.changes[judged.changes.start as usize..judged.changes.end as usize] {
                fold.add(event as u32, change, &self.sets[change.columns as usize]);
            }
        }
        fold.finish(Vec::new())
    }
}

async fn place(shape: &SharedShape) -> (MemoryViews, Checkpoint) {
    let (views, checkpoint) = (
        MemoryViews::new(),
        Checkpoint {
            route: "r".to_owned(),
            lane: 0,
            log_id: LogId([1; 16]),
            epoch: Epoch(1),
            sequence: Sequence::ZERO,
            fence: Fence(1),
            owner: OwnerId([2; 16]),
            block: BlockMark { first: Sequence::ZERO, digest: Digest([3; 32]) },
            counters: Counters::default(),
        },
    );
    views.put_table((**shape).clone());
    let rewrite = BookkeepingRewrite { put: vec![checkpoint.clone()], ..BookkeepingRewrite::default() };
    views.rewrite(rewrite).await.expect("a checkpoint");
    (views, checkpoint)
}

#[tokio::test]
async fn s3_3_folding_changes_no_outcome() {
    let shapes = [shape()];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut merged, mut missed_once) = (0, 0, 0);
    const RUNS: usize = 6_000;
    for run in 0..RUNS {
        let mut events = Events::default();
        for _ in 0..2 + dice.roll(9) {
            events.add(&mut dice);
        }
        let count = events.stretch.events.len();
        let (views, checkpoint) = place(&shapes[0]).await;
        let expect = std::slice::from_ref(&checkpoint);
        let mut transaction = views.begin(expect).await.expect("begin");
        let (mut wanted_missed, mut bad) = (Vec::new(), false);
        for event in 0..count {
            let folded = events.folded(&shapes, event..event + 1);
            match transaction.apply_event(&folded.batch).await.expect("an answer") {
                EventOutcome::Applied(applied) => {
                    wanted_missed.extend(folded.missed(&applied.missed, &events.stretch).iter().map(|j| j.sequence));
                }
                EventOutcome::Refused(_) => bad = true,
            }
        }
        transaction.commit(expect).await.expect("commit");
        let wanted = views.rows("t");

        let (views, _) = place(&shapes[0]).await;
        let folded = events.folded(&shapes, 0..count);
        let mut transaction = views.begin(expect).await.expect("begin");
        match transaction.apply(&folded.batch).await {
            Ok(applied) => {
                transaction.commit(expect).await.expect("commit");
                assert!(!bad, "run {run}: an event is refused alone and not in the batch {:#?}", folded.batch);
                assert_eq!(views.rows("t"), wanted, "run {run}: {:#?}", folded.batch);
                let missed: Vec<Sequence> =
                    folded.missed(&applied.missed, &events.stretch).iter().map(|j| j.sequence).collect();
                assert_eq!(missed, wanted_missed, "run {run}");
                missed_once += missed.len();
            }
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::RefusedEvent, "run {run}: {fault}");
                assert!(bad, "run {run}: the batch is refused and no event alone: {fault} {:#?}", folded.batch);
                refused += 1;
            }
        }
        merged += usize::from(folded.batch.rows() < events.stretch.evaluation.changes.len());
    }
    println!(
        "{RUNS} runs, {refused} refused, {merged} with changes merged, {missed_once} events that missed their row"
    );
    assert!(refused > RUNS / 20 && RUNS - refused > RUNS / 4 && merged > RUNS / 4 && missed_once > 100);
}

/// Rows of each step of a batch.
fn steps(events: &Events, shapes: &[SharedShape]) -> Vec<usize> {
    let folded = events.folded(shapes, 0..events.stretch.events.len());
    folded.batch.tables.iter().flat_map(|table| &table.steps).map(Step::rows).collect()
}

/// Upserts of one row: (column, op, value) each.
fn upserts(changes: &[&[(u16, ColumnOp, Value)]]) -> Events {
    let mut events = Events::default();
    for cells in changes {
        let evaluation = &mut events.stretch.evaluation;
        let (key_from, from) = (evaluation.keys.len() as u32, evaluation.values.len() as u32);
        Value::Int(1).write_canonical(&mut evaluation.keys);
        evaluation.values.push(Value::Int(1));
        evaluation.values.extend(cells.iter().map(|(.., value)| value.clone()));
        let at = evaluation.changes.len() as u32;
        evaluation.changes.push(Change {
            table: 0,
            op: ChangeOp::Upsert,
            columns: at,
            key: key_from..evaluation.keys.len() as u32,
            old_key: None,
            values: from..evaluation.values.len() as u32,
            rule: 0,
            park_if_missing: false,
        });
        events.sets.push(Arc::new(ColumnSet {
            set: cells.iter().map(|(column, ..)| *column).collect(),
            on_create: Box::default(),
            ops: cells.iter().map(|(_, op, _)| *op).collect(),
        }));
        let sequence = Sequence(u64::from(at) + 1);
        events.stretch.events.push(Judged { sequence, wants: Wants::Changes, changes: at..at + 1 });
    }
    events
}

#[test]
fn s2_7_what_joins_exactly_is_one_row_and_the_rest_is_cut() {
    use ColumnOp::{Add, Append, Max, Min, Set};
    let shapes = [shape()];
    let int = |n: i64| Value::Int(n);
    let text = |t: &str| Value::Text(t.into());
    let pair = |column: u16, first: (ColumnOp, Value), then: (ColumnOp, Value)| {
        steps(&upserts(&[&[(column, first.0, first.1)], &[(column, then.0, then.1)]]), &shapes).len()
    };
    for (first, then, want) in [
        ((Add, int(1)), (Add, int(2)), 1),
        ((Add, int(-1)), (Add, int(-2)), 1),
        // 127 and 1 and -1: the first sum is refused, whatever follows.
        ((Add, int(1)), (Add, int(-1)), 2),
        ((Add, int(100)), (Add, int(100)), 2),
        ((Set, int(100)), (Add, int(-100)), 1),
        ((Set, int(100)), (Add, int(100)), 2),
        ((Set, Value::Null), (Add, int(100)), 1),
        ((Add, int(1)), (Set, int(5)), 2),
        ((Min, int(1)), (Min, int(5)), 1),
        ((Min, int(1)), (Max, int(5)), 2),
        ((Min, int(1)), (Set, int(5)), 1),
        ((Set, int(1)), (Max, int(5)), 1),
        ((Add, int(1)), (Max, int(5)), 2),
    ] {
        assert_eq!(pair(1, first.clone(), then.clone()), want, "{first:?} {then:?}");
    }
    assert_eq!(pair(4, (Append, text("abcd")), (Append, text("efg"))), 1);
    assert_eq!(pair(4, (Append, text("abcd")), (Append, text("efgh"))), 2);
    assert_eq!(pair(6, (Add, Value::Float(0.1)), (Add, Value::Float(0.2))), 2);
    assert_eq!(pair(6, (Set, Value::Float(0.1)), (Add, Value::Float(0.2))), 2);

    // A row that the first change creates has the column's default, and a sum goes on from there.
    let mut with_default = (*shapes[0]).clone();
    with_default.columns[1].has_default = true;
    let apart = upserts(&[&[(3, Set, int(1))], &[(1, Add, int(1))]]);
    assert_eq!(steps(&apart, &shapes), [1]);
    assert_eq!(steps(&apart, &[Arc::new(with_default)]), [1, 1]);
}

/// One key that everything adds to, as long as a route's longest stretch.
#[test]
fn s2_7_a_hot_counter_is_one_row() {
    let shapes = [shape()];
    let one = [(2, ColumnOp::Add, Value::Decimal("0.1".into()))];
    let events = upserts(&vec![&one[..]; 900]);
    assert_eq!(steps(&events, &shapes), [1]);
    let folded = events.folded(&shapes, 0..900);
    let Step::Rows(group) = &folded.batch.tables[0].steps[0] else { panic!("rows") };
    assert_eq!(group.row(0), [Value::Int(1), Value::Decimal("90".into())]);
}
