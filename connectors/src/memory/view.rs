//! A view store in memory: the port's meaning in a page of maps, with faults that a test scripts.
//!
//! It passes the same contract suite as the databases, so an engine test that runs on it says something about them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::failpoint::{self, Hit};
use gravity_model::join::JoinRefusal;
use gravity_model::port::view::{
    Applied, BookkeepingRewrite, Described, EventOutcome, LiveFinding, TableRequest, ViewRow, ViewStore,
    ViewTransaction, describe_checkpoint,
};
use gravity_model::{
    ChangeBatch, Checkpoint, ColumnShape, ColumnType, Fault, FaultKind, RowGroup, RowOp, Step, TableShape, Value,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Where a scripted fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    Open,
    Describe,
    Begin,
    /// `apply` and `apply_event`.
    Apply,
    Commit,
    /// `checkpoints` and `views`.
    Read,
    Rewrite,
}

/// What happens there, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripted {
    /// The call fails and did nothing. `Fail(Disconnected)` at a commit: unknown outcome, not done.
    Fail(FaultKind),
    /// The call does its work and fails. `FailAfter(Disconnected)` at a commit: unknown outcome, done.
    FailAfter(FaultKind),
    /// The call waits for [`MemoryViews::release`], then goes on.
    Hang,
}

/// See the module.
#[derive(Clone, Default)]
pub struct MemoryViews {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    script: Mutex<HashMap<Point, VecDeque<Scripted>>>,
    /// Values that their column refuses, as a CHECK constraint would.
    refused: Mutex<Vec<(String, String, Value)>>,
    released: Notify,
    /// One transaction at a time.
    writer: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            state: Mutex::default(),
            script: Mutex::default(),
            refused: Mutex::default(),
            released: Notify::new(),
            writer: Arc::new(Semaphore::new(1)),
        }
    }
}

/// What is committed; cheap to copy, so a transaction works on a copy.
#[derive(Clone, Default)]
struct State {
    tables: BTreeMap<String, Arc<Table>>,
    checkpoints: BTreeMap<(String, u16), Checkpoint>,
    views: BTreeMap<String, ViewRow>,
}

#[derive(Clone)]
struct Table {
    shape: TableShape,
    /// By canonical key; a row has a value per column.
    rows: BTreeMap<Vec<u8>, Vec<Value>>,
}

/// Everything that was committed at one moment.
#[derive(Clone)]
pub struct Backup(State);

impl MemoryViews {
    pub fn new() -> MemoryViews {
        MemoryViews::default()
    }

    /// Makes a table, as a DBA would have.
    pub fn put_table(&self, shape: TableShape) {
        let table = Table { shape, rows: BTreeMap::new() };
        self.shared.state.lock().tables.insert(table.shape.table.clone(), Arc::new(table));
    }

    /// Drops a table, as a DBA should not have.
    pub fn drop_table(&self, table: &str) {
        self.shared.state.lock().tables.remove(table);
    }

    /// Committed rows in key order, a value per column.
    pub fn rows(&self, table: &str) -> Vec<Vec<Value>> {
        let state = self.shared.state.lock();
        state.tables.get(table).map(|t| t.rows.values().cloned().collect()).unwrap_or_default()
    }

    /// Takes over a table of another database with its rows, and nothing of its bookkeeping.
    pub fn put_rows_of(&self, other: &MemoryViews, table: &str) {
        let found = other.shared.state.lock().tables.get(table).cloned();
        self.shared.state.lock().tables.extend(found.map(|rows| (table.to_owned(), rows)));
    }

    pub fn backup(&self) -> Backup {
        Backup(self.shared.state.lock().clone())
    }

    /// Puts a backup back, as an operator would with a real database (fault V6).
    pub fn restore(&self, backup: &Backup) {
        *self.shared.state.lock() = backup.0.clone();
    }

    /// Adds a fault to the queue of a point; each passage takes one.
    pub fn script(&self, point: Point, what: Scripted) {
        self.shared.script.lock().entry(point).or_default().push_back(what);
    }

    /// Lets one hanging call go on, or the next one that would hang.
    pub fn release(&self) {
        self.shared.released.notify_one();
    }

    /// From now on nothing is refused.
    pub fn accept_all(&self) {
        self.shared.refused.lock().clear();
    }

    /// From now on `column` of `table` refuses `value`.
    pub fn refuse(&self, table: &str, column: &str, value: Value) {
        self.shared.refused.lock().push((table.to_owned(), column.to_owned(), value));
    }
}

impl Shared {
    /// Passes a point; the answer is a fault that strikes after the work.
    async fn pass(&self, point: Point) -> Result<Option<Fault>, Fault> {
        let next = self.script.lock().get_mut(&point).and_then(VecDeque::pop_front);
        let scripted = |kind| Fault::new(kind, "scripted", format!("pass {point:?}"), "a test asked for this");
        match next {
            None => Ok(None),
            Some(Scripted::Fail(kind)) => Err(scripted(kind)),
            Some(Scripted::FailAfter(kind)) => Ok(Some(scripted(kind))),
            Some(Scripted::Hang) => {
                self.released.notified().await;
                Ok(None)
            }
        }
    }
}

fn struck(after: Option<Fault>) -> Result<(), Fault> {
    after.map_or(Ok(()), Err)
}

fn not_ours(doing: &str, detail: String) -> Fault {
    Fault::new(FaultKind::NotOurs, "checkpoint-changed", doing, detail)
}

/// `Err` unless the rows of `expect` are there and unchanged.
fn compare(state: &State, expect: &[Checkpoint], doing: &str) -> Result<(), Fault> {
    for expected in expect {
        let found = state.checkpoints.get(&(expected.route.clone(), expected.lane));
        let same = |c: &Checkpoint| {
            (c.log_id, c.epoch, c.sequence, c.fence)
                == (expected.log_id, expected.epoch, expected.sequence, expected.fence)
                && (c.owner == expected.owner || failpoint::sabotaged("view.cas_without_owner"))
        };
        if !found.is_some_and(same) {
            let found = found.map_or_else(|| "no row".to_owned(), describe_checkpoint);
            return Err(not_ours(doing, format!("found {found}, expected {}", describe_checkpoint(expected))));
        }
    }
    Ok(())
}

impl State {
    fn rewrite(&mut self, rewrite: &BookkeepingRewrite) -> Result<(), Fault> {
        const DOING: &str = "rewrite the bookkeeping";
        compare(self, &rewrite.expect, DOING)?;
        let keys = rewrite.put.iter().map(|c| (c.route.clone(), c.lane)).chain(rewrite.delete.iter().cloned());
        for key in keys {
            if !rewrite.expect.iter().any(|e| (&e.route, e.lane) == (&key.0, key.1))
                && let Some(found) = self.checkpoints.get(&key)
            {
                return Err(not_ours(DOING, format!("found {}, expected no row", describe_checkpoint(found))));
            }
        }
        for key in &rewrite.delete {
            self.checkpoints.remove(key);
        }
        for put in &rewrite.put {
            self.checkpoints.insert((put.route.clone(), put.lane), put.clone());
        }
        for table in &rewrite.delete_views {
            self.views.remove(table);
        }
        for put in &rewrite.put_views {
            if let Some(holder) = self.views.get(&put.table)
                && (holder.log_id, &holder.route) != (put.log_id, &put.route)
            {
                let detail = format!("route {} of log {} holds table {}", holder.route, holder.log_id, holder.table);
                return Err(Fault::new(FaultKind::NotOurs, "view-claimed", DOING, detail));
            }
            self.views.insert(put.table.clone(), put.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl ViewStore for MemoryViews {
    async fn open(&self) -> Result<(), Fault> {
        struck(self.shared.pass(Point::Open).await?)
    }

    async fn describe(&self, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
        struck(self.shared.pass(Point::Describe).await?)?;
        let state = self.shared.state.lock();
        Ok(requests
            .iter()
            .map(|request| match state.tables.get(&request.table) {
                Some(table) => Described::Present(table.shape.clone()),
                None => Described::Missing { ddl: proposed(request) },
            })
            .collect())
    }

    async fn inspect(&self, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
        let state = self.shared.state.lock();
        let finding = |code, table: &str, column: Option<&str>, found: &str| LiveFinding {
            code,
            fatal: true,
            table: table.to_owned(),
            column: column.map(str::to_owned),
            found: found.to_owned(),
            allowed: "what the rules write".to_owned(),
            sql: None,
        };
        let mut findings = Vec::new();
        for request in requests {
            let Some(table) = state.tables.get(&request.table) else {
                findings.push(finding("live/no-table", &request.table, None, "no such table"));
                continue;
            };
            for column in request.columns.iter().filter(|c| table.shape.column(&c.name).is_none()) {
                findings.push(finding("live/no-column", &request.table, Some(&column.name), "no such column"));
            }
        }
        Ok(findings)
    }

    fn bookkeeping_sql(&self) -> String {
        String::new()
    }

    async fn create(&self, statements: &[String]) -> Result<(), Fault> {
        for statement in statements {
            let shape = statement.strip_prefix("CREATE TABLE ").and_then(|json| serde_json::from_str(json).ok());
            let shape: TableShape = shape.ok_or_else(|| {
                Fault::new(FaultKind::Misconfigured, "live/ddl", "create a table", format!("not ours: {statement:?}"))
            })?;
            self.put_table(shape);
        }
        Ok(())
    }

    async fn has_rows(&self, table: &str) -> Result<bool, Fault> {
        match self.shared.state.lock().tables.get(table) {
            Some(table) => Ok(!table.rows.is_empty()),
            None => Err(no_table(table)),
        }
    }

    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault> {
        struck(self.shared.pass(Point::Read).await?)?;
        let state = self.shared.state.lock();
        Ok(state.checkpoints.values().filter(|c| c.route == route).cloned().collect())
    }

    async fn views(&self) -> Result<Vec<ViewRow>, Fault> {
        struck(self.shared.pass(Point::Read).await?)?;
        Ok(self.shared.state.lock().views.values().cloned().collect())
    }

    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault> {
        let after = self.shared.pass(Point::Rewrite).await?;
        let _writer = writer(&self.shared).await?;
        let mut state = self.shared.state.lock().clone();
        state.rewrite(&rewrite)?;
        *self.shared.state.lock() = state;
        struck(after)
    }

    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault> {
        struck(self.shared.pass(Point::Begin).await?)?;
        let writer = writer(&self.shared).await?;
        let state = self.shared.state.lock().clone();
        compare(&state, expect, "begin a view transaction")?;
        let read = expect.to_vec();
        Ok(Box::new(MemoryTransaction { shared: self.shared.clone(), state, read, failed: false, _writer: writer }))
    }

    async fn close(&self) {}
}

async fn writer(shared: &Shared) -> Result<OwnedSemaphorePermit, Fault> {
    let closed = |_| Fault::new(FaultKind::Closed, "closed", "begin a view transaction", "the view store was closed");
    shared.writer.clone().acquire_owned().await.map_err(closed)
}

fn no_table(table: &str) -> Fault {
    Fault::new(FaultKind::Misconfigured, "42P01", format!("find table {table}"), "no such table")
}

/// A CREATE statement that only [`MemoryViews::create`] reads: the shape as JSON.
fn proposed(request: &TableRequest) -> Result<String, Vec<String>> {
    let lacking: Vec<String> =
        request.columns.iter().filter(|c| c.declared.is_none()).map(|c| c.name.clone()).collect();
    let mut columns = Vec::new();
    for column in &request.columns {
        let Some(declared) = &column.declared else { return Err(lacking) };
        columns.push(ColumnShape {
            name: column.name.clone(),
            column_type: declared.clone(),
            database_type: declared.to_string(),
            not_null: request.key.contains(&column.name),
            has_default: false,
            generated: false,
        });
    }
    if columns.is_empty() {
        return Err(lacking);
    }
    let place = |name: &String| columns.iter().position(|c| &c.name == name).map(|i| i as u16);
    let Some(primary_key) = request.key.iter().map(place).collect::<Option<Vec<_>>>() else {
        return Err(request.key.clone());
    };
    let shape = TableShape { table: request.table.clone(), columns, primary_key, unique: Vec::new() };
    serde_json::to_string(&shape).map(|json| format!("CREATE TABLE {json}")).map_err(|_| lacking)
}

struct MemoryTransaction {
    shared: Arc<Shared>,
    /// The state as this transaction sees it.
    state: State,
    read: Vec<Checkpoint>,
    failed: bool,
    _writer: OwnedSemaphorePermit,
}

#[async_trait]
impl ViewTransaction for MemoryTransaction {
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault> {
        if self.failed {
            return Err(Fault::new(FaultKind::Transient, "25P02", "apply a batch", "an earlier statement failed"));
        }
        self.failed = true;
        let after = self.shared.pass(Point::Apply).await?;
        let applied = write_batch(&mut self.state, &self.shared.refused.lock(), batch)?;
        struck(after)?;
        self.failed = false;
        Ok(applied)
    }

    async fn apply_event(&mut self, changes: &ChangeBatch) -> Result<EventOutcome, Fault> {
        if self.failed {
            return Err(Fault::new(FaultKind::Transient, "25P02", "apply one event", "an earlier statement failed"));
        }
        self.failed = true;
        let after = self.shared.pass(Point::Apply).await?;
        let savepoint = self.state.clone();
        let result = write_batch(&mut self.state, &self.shared.refused.lock(), changes);
        let outcome = match result {
            Ok(applied) => EventOutcome::Applied(applied),
            Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                self.state = savepoint;
                EventOutcome::Refused(fault)
            }
            Err(fault) => return Err(fault),
        };
        struck(after)?;
        self.failed = false;
        Ok(outcome)
    }

    async fn commit(mut self: Box<Self>, next: &[Checkpoint]) -> Result<(), Fault> {
        const DOING: &str = "commit a view transaction";
        if self.failed {
            return Err(Fault::new(FaultKind::Transient, "25P02", DOING, "an earlier statement failed: roll back"));
        }
        let lanes = |checkpoints: &[Checkpoint]| {
            let mut lanes: Vec<_> = checkpoints.iter().map(|c| (c.route.clone(), c.lane)).collect();
            lanes.sort();
            lanes
        };
        if lanes(&self.read) != lanes(next) {
            let detail = "the checkpoints to write are not those that the transaction was begun with";
            return Err(Fault::new(FaultKind::Misconfigured, "checkpoint-lanes", DOING, detail));
        }
        compare(&self.shared.state.lock(), &self.read, DOING)?;
        let after = self.shared.pass(Point::Commit).await?;
        for checkpoint in next {
            self.state.checkpoints.insert((checkpoint.route.clone(), checkpoint.lane), checkpoint.clone());
        }
        let cut = |when: &str| Fault::new(FaultKind::Disconnected, "failpoint", DOING, format!("cut {when} COMMIT"));
        if failpoint::hit("view.before_commit") == Hit::Fail {
            return Err(cut("before"));
        }
        *self.shared.state.lock() = self.state;
        if failpoint::hit("view.after_commit") == Hit::Fail {
            return Err(cut("after"));
        }
        struck(after)
    }

    async fn rollback(self: Box<Self>) {}
}

type RefusedValues = [(String, String, Value)];

fn write_batch(state: &mut State, refused: &RefusedValues, batch: &ChangeBatch) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    for (t, changes) in batch.tables.iter().enumerate() {
        let name = &changes.shape.table;
        let table = Arc::make_mut(state.tables.get_mut(name).ok_or_else(|| no_table(name))?);
        for (s, step) in changes.steps.iter().enumerate() {
            match step {
                Step::DeleteAll => table.rows.clear(),
                Step::Rows(group) => {
                    for row in 0..group.len() {
                        if !table.write(&changes.shape, refused, group, row)? {
                            applied.missed.push((t as u32, s as u32, row as u32));
                        }
                    }
                }
            }
        }
    }
    Ok(applied)
}

fn canonical(key: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    key.iter().for_each(|v| v.write_canonical(&mut out));
    out
}

fn refusal(code: &'static str, table: &str, detail: String) -> Fault {
    Fault::new(FaultKind::RefusedEvent, code, format!("write a row of {table}"), detail)
}

/// PostgreSQL's codes for the same.
fn code_of(refusal: JoinRefusal) -> &'static str {
    match refusal {
        JoinRefusal::OutOfRange => "22003",
        JoinRefusal::TooLong => "22001",
        JoinRefusal::NoList => "22023",
        JoinRefusal::OtherType => "42804",
    }
}

impl Table {
    /// One row; `false` when a patch found none.
    fn write(
        &mut self,
        shape: &TableShape,
        refused: &RefusedValues,
        group: &RowGroup,
        row: usize,
    ) -> Result<bool, Fault> {
        let values = group.row(row);
        let keys = shape.primary_key.len();
        let (old, rest) = values.split_at(keys);
        let (new, rest) = if group.op == RowOp::Move { rest.split_at(keys) } else { (old, rest) };
        let (set, on_create) = rest.split_at(group.columns.set.len());
        let old_key = canonical(old);
        let exists = self.rows.get(&old_key).cloned();
        // Column by its name: the caller's shape may be older than the table.
        let place = |c: &u16| {
            let name = &shape.columns[usize::from(*c)].name;
            self.shape.column(name).map(usize::from).ok_or_else(|| {
                Fault::new(
                    FaultKind::Misconfigured,
                    "42703",
                    format!("write a row of {}", shape.table),
                    format!("no column {name}"),
                )
            })
        };
        let assign = |target: &mut Vec<Value>, columns: &[u16], values: &[Value]| {
            for (column, value) in columns.iter().zip(values) {
                target[place(column)?] = value.clone();
            }
            Ok::<(), Fault>(())
        };
        let mut fresh = vec![Value::Null; self.shape.columns.len()];
        assign(&mut fresh, &shape.primary_key, new)?;
        assign(&mut fresh, &group.columns.set, set)?;
        assign(&mut fresh, &group.columns.on_create, on_create)?;
        let written = match (group.op, exists) {
            (RowOp::Delete, _) => {
                self.rows.remove(&old_key);
                return Ok(true);
            }
            (RowOp::Patch, None) => return Ok(false),
            (RowOp::PatchRequired, None) => {
                return Err(refusal("row-missing", &shape.table, format!("there is no row with key {old:?}")));
            }
            (RowOp::InsertIgnore, Some(_)) => return Ok(true),
            (RowOp::Insert, Some(existing)) => {
                let mut same = existing.clone();
                assign(&mut same, &group.columns.set, set)?;
                assign(&mut same, &group.columns.on_create, on_create)?;
                if same == existing {
                    return Ok(true);
                }
                return Err(refusal("23505", &shape.table, format!("a row with key {old:?} exists with other values")));
            }
            (_, None) => fresh,
            (_, Some(mut existing)) => {
                assign(&mut existing, &shape.primary_key, new)?;
                for (index, (column, value)) in group.columns.set.iter().zip(set).enumerate() {
                    let (at, op) = (place(column)?, group.columns.op(index));
                    let column = &self.shape.columns[at];
                    existing[at] = op.join(&column.column_type, &existing[at], value).map_err(|refused| {
                        let detail = format!("column {}, {}: {refused}", column.name, op.word());
                        refusal(code_of(refused), &shape.table, detail)
                    })?;
                }
                existing
            }
        };
        let new_key = canonical(new);
        if group.op == RowOp::Move && new_key != old_key && self.rows.contains_key(&new_key) {
            return Err(refusal("23505", &shape.table, format!("a row with key {new:?} exists")));
        }
        self.check(&written, &old_key, refused)?;
        self.rows.remove(&old_key);
        self.rows.insert(new_key, written);
        Ok(true)
    }

    /// The constraints that a database would hold.
    fn check(&self, row: &[Value], own_key: &[u8], refused: &RefusedValues) -> Result<(), Fault> {
        let table = &self.shape.table;
        for (column, value) in self.shape.columns.iter().zip(row) {
            if column.not_null && !column.has_default && value.is_null() {
                return Err(refusal("23502", table, format!("column {} must not be null", column.name)));
            }
            if let (ColumnType::Varchar(longest), Value::Text(text)) = (&column.column_type, value)
                && text.as_str().chars().count() > *longest as usize
            {
                return Err(refusal("22001", table, format!("column {}: longer than {longest}", column.name)));
            }
            if refused.iter().any(|(t, c, v)| t == table && *c == column.name && v == value) {
                return Err(refusal("23514", table, format!("column {} refuses {value:?}", column.name)));
            }
        }
        for unique in &self.shape.unique {
            let pick = |row: &[Value]| unique.iter().map(|c| row[usize::from(*c)].clone()).collect::<Vec<_>>();
            let mine = pick(row);
            if !mine.iter().any(Value::is_null)
                && self.rows.iter().any(|(key, other)| key.as_slice() != own_key && pick(other) == mine)
            {
                return Err(refusal("23505", table, format!("another row has {mine:?}")));
            }
        }
        Ok(())
    }
}
