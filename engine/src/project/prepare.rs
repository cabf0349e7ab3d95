//! Brings a route to the point where it may write: rules compiled against live tables, types on the log, checkpoint ours.

use std::sync::Arc;

use gravity_log::{Batch, EventLog};
use gravity_model::port::view::{
    BookkeepingRewrite, Described, TableRequest, ViewRow, ViewState, ViewStore, describe_checkpoint,
};
use gravity_model::shape::SharedShape;
use gravity_model::{BlockMark, Checkpoint, Counters, Epoch, Fault, FaultKind, Sequence, failpoint};
use gravity_rules::RouteProgram;
use parking_lot::Mutex;

use crate::control::{self, TypesResolved};
use crate::engine::SharedDatabase;
use crate::parts::DatabaseOptions;
use crate::project::apply::{Applier, Means, append_durable};
use crate::project::gauge::RouteGauge;
use crate::rulebook::{RuleBook, RulesVersion};

/// What a route is made of, for as long as the engine runs.
pub struct RouteSetup {
    /// Name of the database entry; a detached view's route is named `DATABASE/TABLE`.
    pub database: String,
    /// Restricts the route to one view that is built beside the others.
    pub only: Option<String>,
    /// Rules that a route without checkpoint begins under; the newest where none are given.
    pub begin_under: Option<Arc<RulesVersion>>,
    /// Where a view without checkpoint begins: after this sequence.
    begin_after: Sequence,
    spec: SharedDatabase,
    /// The connection and settings in use: see [`RouteSetup::renew`].
    pub store: Arc<dyn ViewStore>,
    pub options: DatabaseOptions,
    pub log: Arc<dyn EventLog>,
    pub rules: Arc<RuleBook>,
    pub gauge: Arc<RouteGauge>,
}

/// A route that may write.
pub struct Opened {
    pub applier: Applier,
    pub version: Arc<RulesVersion>,
    /// Tables of the rules that are not attached to the route: views to be built beside it.
    pub to_build: Vec<String>,
}

impl RouteSetup {
    /// For the route of a database entry.
    pub fn of_route(
        spec: SharedDatabase,
        log: Arc<dyn EventLog>,
        rules: Arc<RuleBook>,
        gauge: Arc<RouteGauge>,
    ) -> RouteSetup {
        let (store, options) = parts_of(&spec);
        let database = gauge.name.clone();
        let begin_after = Sequence::ZERO;
        RouteSetup { database, only: None, begin_under: None, begin_after, spec, store, options, log, rules, gauge }
    }

    /// A route without checkpoint begins after this sequence.
    pub fn beginning_after(self, begin_after: Sequence) -> RouteSetup {
        RouteSetup { begin_after, ..self }
    }

    /// For one view of this route, built beside it.
    pub fn of_build(&self, table: &str, version: &Arc<RulesVersion>, gauge: Arc<RouteGauge>) -> RouteSetup {
        let (only, begin_under) = (Some(table.to_owned()), Some(version.clone()));
        let options = DatabaseOptions { lanes: 1, ..self.options.clone() };
        let (database, spec, store) = (self.database.clone(), self.spec.clone(), self.store.clone());
        let (log, rules) = (self.log.clone(), self.rules.clone());
        let begin_after = self.begin_after;
        RouteSetup { database, only, begin_under, begin_after, spec, store, options, log, rules, gauge }
    }

    /// Takes the connection and settings that the newest reload brought.
    pub fn renew(&mut self) {
        (self.store, self.options) = parts_of(&self.spec);
        if self.only.is_some() {
            self.options.lanes = 1;
        }
    }

    pub fn name(&self) -> &str {
        &self.gauge.name
    }

    /// Opens the database, proves that the checkpoint is ours, compiles the rules that are in force there.
    pub async fn open(&self) -> Result<Opened, Fault> {
        self.store.open().await?;
        let mut rows = self.store.checkpoints(self.name()).await?;
        if rows.is_empty()
            && self.only.is_none()
            && let Some(was) = &self.options.was
        {
            self.take_over(was).await?;
            rows = self.store.checkpoints(self.name()).await?;
        }
        let views = self.store.views().await?;
        let (version, tables) = match rows.first() {
            None => (self.begin_under.clone().map_or_else(|| self.newest(), Ok)?, None),
            Some(row) => {
                for row in &rows {
                    self.prove_ours(row).await?;
                }
                let lowest = rows.iter().map(|row| row.sequence).min().unwrap_or_default();
                let recalled = self.rules.recall(lowest, &self.log).await;
                recalled.map_err(|e| self.misconfigured("rules/unknown-version", e.to_string()).with_source(e))?;
                // A view that is built beside the route stands there under its own route's name.
                let mine = |v: &&ViewRow| v.route == self.name() && v.log_id == row.log_id;
                let attached: Vec<&ViewRow> = views.iter().filter(mine).collect();
                // They agree; were they not to, the older rules see every change of rules that lies ahead.
                let known = attached.iter().filter_map(|v| self.rules.labelled(&newest_rules(v)?));
                let known = known.min_by_key(|version| version.sequence);
                let version = match known.or_else(|| self.rules.in_force(row.sequence.next())) {
                    Some(version) => version,
                    None => self.newest()?,
                };
                (version, Some(attached.iter().map(|v| v.table.clone()).collect::<Vec<_>>()))
            }
        };
        let (program, shapes) = self.compile(&version, tables.as_deref()).await?;
        let lanes = if rows.is_empty() {
            self.attach(&version, &shapes, &views).await?
        } else {
            self.adjust_lanes(rows).await?
        };
        let floor = lanes.iter().map(|lane| lane.sequence).min().unwrap_or_default();
        self.resolve_types(floor, &shapes).await?;
        let known: Vec<&str> = shapes.iter().map(|s| s.table.as_str()).collect();
        let to_build = match self.only {
            Some(_) => Vec::new(),
            None => {
                let wanted = version.set.requests(&self.database).into_iter().map(|r| r.table);
                wanted.filter(|table| !known.contains(&table.as_str())).collect()
            }
        };
        Ok(Opened { applier: self.applier(program, shapes, lanes), version, to_build })
    }

    /// True when the view of a build belongs to its route: the build did join, and the answer was lost.
    pub async fn has_joined(&self) -> Result<bool, Fault> {
        self.store.open().await?;
        let log_id = self.log.identity().log_id;
        let joined = |view: &ViewRow| {
            Some(&view.table) == self.only.as_ref() && view.route == self.database && view.log_id == log_id
        };
        Ok(self.store.views().await?.iter().any(joined))
    }

    /// Puts the newest rules in force from the checkpoint on, whatever the log says of the stretch ahead: for a route that
    /// stopped because older rules do not fit. The views' histories record it.
    pub async fn take_newest_rules(&self) -> Result<(), Fault> {
        self.store.open().await?;
        let rows = self.store.checkpoints(self.name()).await?;
        // Lanes that are ahead have done their events under the older rules.
        let Some(row) = rows.iter().min_by_key(|row| row.sequence) else { return Ok(()) };
        for row in &rows {
            self.prove_ours(row).await?;
        }
        let version = self.newest()?;
        let from = row.sequence.get() + 1;
        let views = self.store.views().await?;
        let put_views = views.into_iter().filter(|v| v.route == self.name() && v.log_id == row.log_id).map(|view| {
            let mut entries = parse_history(&view.history);
            entries.push((from, version.label()));
            ViewRow { history: history(&entries), ..view }
        });
        let rewrite = BookkeepingRewrite {
            expect: rows.clone(),
            put_views: put_views.collect(),
            ..BookkeepingRewrite::default()
        };
        self.store.rewrite(rewrite).await?;
        tracing::warn!(
            route = self.name(),
            from,
            rules = &version.hash()[..12],
            "takes the active rules ahead of their record"
        );
        Ok(())
    }

    /// How many lanes the route is to have.
    pub fn lanes(&self) -> usize {
        usize::from(self.options.lanes.max(1))
    }

    /// Gives the route the number of lanes that its options ask for, if all of them stand at one sequence; lane 0 keeps
    /// the counters of lanes that go.
    async fn adjust_lanes(&self, rows: Vec<Checkpoint>) -> Result<Vec<Checkpoint>, Fault> {
        let apart = rows.iter().any(|row| row.sequence != rows[0].sequence);
        if rows.len() == self.lanes() || apart {
            return Ok(rows);
        }
        let identity = self.log.identity();
        let sum = rows.iter().fold(Counters::default(), |sum, row| sum.plus(row.counters));
        let lane = |number: usize| Checkpoint {
            lane: number as u16,
            fence: identity.fence,
            owner: identity.owner,
            counters: if number == 0 { sum } else { Counters::default() },
            ..rows[0].clone()
        };
        let lanes: Vec<Checkpoint> = (0..self.lanes()).map(lane).collect();
        let gone = rows.iter().skip(lanes.len()).map(|row| (row.route.clone(), row.lane));
        let rewrite = BookkeepingRewrite {
            expect: rows.clone(),
            delete: gone.collect(),
            put: lanes.clone(),
            ..BookkeepingRewrite::default()
        };
        self.store.rewrite(rewrite).await?;
        tracing::info!(route = self.name(), from = rows.len(), to = lanes.len(), "number of lanes changed");
        Ok(lanes)
    }

    /// An applier for `program`, starting at the checkpoints of `lanes`.
    pub fn applier(&self, program: RouteProgram, shapes: Vec<SharedShape>, lanes: Vec<Checkpoint>) -> Applier {
        let program = Arc::new(program);
        let names = shapes.iter().map(|shape| Arc::from(shape.table.as_str())).collect();
        let means = Means {
            log: self.log.clone(),
            store: self.store.clone(),
            gauge: self.gauge.clone(),
            program,
            shapes,
            names,
            max_parked: self.options.max_parked,
            max_waiting_bytes: self.options.max_waiting_bytes,
            room: Mutex::default(),
        };
        Applier { means, lanes }
    }

    /// Compiles a version of the rules against the live tables. `tables` are the views that the route writes already and leaves
    /// out all others; without it the route is at its beginning, and missing tables are made where `"ddl": "create"` says so.
    pub async fn compile(
        &self,
        version: &RulesVersion,
        tables: Option<&[String]>,
    ) -> Result<(RouteProgram, Vec<SharedShape>), Fault> {
        let wanted = |request: &TableRequest| match (&self.only, tables) {
            (Some(only), _) => request.table == *only,
            (None, Some(tables)) => tables.contains(&request.table),
            (None, None) => true,
        };
        let requests: Vec<TableRequest> =
            version.set.requests(&self.database).into_iter().filter(|r| wanted(r)).collect();
        // A view that was there is not made anew: it would begin empty behind a checkpoint that says otherwise.
        if tables.is_none() {
            self.create_missing(&requests).await?;
        }
        let findings = self.store.inspect(&requests).await?;
        if let Some(finding) = findings.iter().find(|f| f.fatal) {
            let column = finding.column.as_ref().map(|c| format!(", column {c}")).unwrap_or_default();
            let lost = match finding.code {
                "live/no-table" if tables.is_some() => {
                    "; it was there before: put it back with its rows, or take it out of gravity_views"
                }
                _ => "",
            };
            return Err(self.misconfigured(
                finding.code,
                format!("table {}{column}: {}; allowed: {}{lost}", finding.table, finding.found, finding.allowed),
            ));
        }
        for finding in findings {
            tracing::warn!(
                route = self.name(), table = %finding.table, column = finding.column, code = finding.code,
                found = %finding.found, allowed = %finding.allowed, "the live table may surprise"
            );
        }
        let mut shapes = Vec::with_capacity(requests.len());
        for (request, described) in requests.iter().zip(self.store.describe(&requests).await?) {
            match described {
                Described::Present(shape) => shapes.push(Arc::new(shape)),
                Described::Missing { ddl } => {
                    let hint = match ddl {
                        Ok(sql) => format!("a DBA could run: {sql}"),
                        Err(columns) => format!("no `type` is given for {}", columns.join(", ")),
                    };
                    return Err(
                        self.misconfigured("live/no-table", format!("table {} is not there; {hint}", request.table))
                    );
                }
            }
        }
        let only: Vec<String> = requests.iter().map(|r| r.table.clone()).collect();
        let program = version.set.compile(&self.database, Some(&only), &shapes).map_err(|findings| {
            let first = findings.iter().find(|f| f.severity == gravity_rules::diagnose::Severity::Error);
            match first.or_else(|| findings.iter().next()) {
                Some(f) => self.misconfigured(f.code, format!("{}:{}:{}: {}", f.file, f.line, f.column, f.message)),
                None => self.misconfigured("rules/refused", "the rules do not fit the live tables".to_owned()),
            }
        })?;
        let program = if self.only.is_some() { program.without_routings() } else { program };
        // The program numbers its tables itself; shapes follow its order.
        let shapes = program.tables().to_vec();
        Ok((program, shapes))
    }

    async fn create_missing(&self, requests: &[TableRequest]) -> Result<(), Fault> {
        if !self.options.create {
            return Ok(());
        }
        let mut statements = Vec::new();
        for described in self.store.describe(requests).await? {
            if let Described::Missing { ddl: Ok(sql) } = described {
                statements.push(sql);
            }
        }
        if statements.is_empty() { Ok(()) } else { self.store.create(&statements).await }
    }

    /// First checkpoint of a route: the log's beginning, if nothing else was asked for. Claims the tables.
    async fn attach(
        &self,
        version: &RulesVersion,
        shapes: &[SharedShape],
        views: &[ViewRow],
    ) -> Result<Vec<Checkpoint>, Fault> {
        let identity = self.log.identity();
        let mut adopted = Vec::new();
        for shape in shapes {
            let foreign = views.iter().find(|v| v.table == shape.table && v.log_id != identity.log_id);
            if let Some(view) = foreign {
                return Err(self.not_ours(
                    "route/other-log",
                    format!("table {} is kept by route {} of log {}", view.table, view.route, view.log_id),
                ));
            }
            if !self.store.has_rows(&shape.table).await? {
                continue;
            }
            if !self.options.adopt_existing_rows {
                return Err(self.misconfigured(
                    "route/existing-rows",
                    format!(
                        "table {} holds rows but no checkpoint; empty it, or set `\"existing_rows\": \"adopt\"` on database {}",
                        shape.table, self.database
                    ),
                ));
            }
            adopted.push(shape.table.clone());
        }
        self.record_adopted(adopted).await?;
        let (after, block) = (self.begin_after, self.block_mark(self.begin_after).await?);
        let lane = |number: usize| Checkpoint {
            route: self.name().to_owned(),
            lane: number as u16,
            log_id: identity.log_id,
            epoch: Epoch(1),
            sequence: after,
            fence: identity.fence,
            owner: identity.owner,
            block,
            counters: Counters::default(),
        };
        let lanes: Vec<Checkpoint> = (0..self.lanes()).map(lane).collect();
        let state = if self.only.is_some() { ViewState::Building } else { ViewState::Attached };
        let put_views = shapes.iter().map(|shape| ViewRow {
            table: shape.table.clone(),
            log_id: identity.log_id,
            route: self.name().to_owned(),
            state,
            generation: 1,
            history: history(&[(after.next().get(), version.label())]),
        });
        let rewrite =
            BookkeepingRewrite { put: lanes.clone(), put_views: put_views.collect(), ..BookkeepingRewrite::default() };
        self.store.rewrite(rewrite).await?;
        Ok(lanes)
    }

    /// Says on the log which tables held rows before: their views are more than what a fold of the log gives.
    async fn record_adopted(&self, tables: Vec<String>) -> Result<(), Fault> {
        let mut batch = Batch::new();
        for table in tables {
            tracing::warn!(route = self.name(), %table, "adopted with its rows; the log alone cannot rebuild this view");
            let key = format!("{}/{table}", self.database);
            let (route, at) = (self.name().to_owned(), crate::clock::now());
            let record = control::Adopted { route, table, after: Sequence::ZERO, at };
            control::put(&mut batch, control::ADOPTED, &key, &record, None);
        }
        append_durable(&*self.log, batch, "record adopted rows").await
    }

    /// Protocol B, step 2: never write behind another log's, another copy's or a future self's back.
    pub(crate) async fn prove_ours(&self, row: &Checkpoint) -> Result<(), Fault> {
        if failpoint::sabotaged("project.believe_any_checkpoint") {
            return Ok(());
        }
        let identity = self.log.identity();
        let stands = describe_checkpoint(row);
        if row.log_id != identity.log_id {
            return Err(self.not_ours("route/other-log", format!("the database belongs to another log: {stands}")));
        }
        if !identity.owners.contains(&row.owner) {
            return Err(self.not_ours(
                "route/other-copy",
                format!(
                    "another copy of this data directory wrote here: {stands}; this opening has fence {}",
                    identity.fence
                ),
            ));
        }
        let last = *self.log.durable().borrow();
        if row.sequence > last {
            return Err(self.not_ours(
                "route/ahead-of-log",
                format!("the view is ahead of the log, which ends at {last} (restored from an older copy?): {stands}"),
            ));
        }
        if row.sequence > Sequence::ZERO {
            let mark = self.block_mark(row.sequence).await?;
            if mark != row.block {
                return Err(self.not_ours(
                    "route/other-history",
                    format!(
                        "the block that holds sequence {} has digest {} here and {} there: {stands}",
                        row.sequence, mark.digest, row.block.digest
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What the log holds at a checkpoint; nothing before its beginning.
    async fn block_mark(&self, at: Sequence) -> Result<BlockMark, Fault> {
        if at == Sequence::ZERO {
            return Ok(BlockMark::default());
        }
        let log = self.log.clone();
        let mark = tokio::task::spawn_blocking(move || log.block_mark(at)).await;
        let mark = mark.map_err(|e| e.to_string()).and_then(|m| m.map_err(|e| e.to_string()));
        mark.map_err(|detail| Fault::new(FaultKind::Transient, "log/read", "read the checkpoint's block", detail))
    }

    /// Puts the live column types on the log where they differ from what it holds, so that folds need no database.
    pub async fn resolve_types(&self, after: Sequence, shapes: &[SharedShape]) -> Result<(), Fault> {
        let tables: Vec<_> = shapes.iter().map(|s| (**s).clone()).collect();
        let known = self.log.state().into_iter().find(|e| e.name == control::TYPES_RESOLVED && e.key == self.name());
        if let Some(entry) = known {
            let known: TypesResolved = control::read(&entry.name, entry.sequence, &entry.payload)
                .map_err(|e| Fault::new(FaultKind::NotOurs, "log/control", "read resolved types", e.to_string()))?;
            if known.tables == tables {
                return Ok(());
            }
        }
        let mut batch = Batch::new();
        let resolved = TypesResolved { route: self.name().to_owned(), after, tables };
        control::put(&mut batch, control::TYPES_RESOLVED, self.name(), &resolved, None);
        append_durable(&*self.log, batch, "record the types of the live tables").await
    }

    fn newest(&self) -> Result<Arc<RulesVersion>, Fault> {
        self.rules.newest().ok_or_else(|| self.misconfigured("rules/none", "no rules are in force".to_owned()))
    }

    fn misconfigured(&self, code: &'static str, detail: String) -> Fault {
        Fault::new(FaultKind::Misconfigured, code, format!("prepare route {}", self.name()), detail)
    }

    fn not_ours(&self, code: &'static str, detail: String) -> Fault {
        Fault::new(FaultKind::NotOurs, code, format!("prepare route {}", self.name()), detail)
    }
}

fn parts_of(spec: &SharedDatabase) -> (Arc<dyn ViewStore>, DatabaseOptions) {
    let spec = spec.lock();
    (spec.store.clone(), spec.options.clone())
}

/// JSON of a view's history: `[[from sequence, rules version], …]`, newest last.
pub fn history(entries: &[(u64, String)]) -> String {
    serde_json::to_string(entries).unwrap_or_default()
}

pub fn parse_history(text: &str) -> Vec<(u64, String)> {
    serde_json::from_str(text).unwrap_or_default()
}

fn newest_rules(view: &ViewRow) -> Option<String> {
    parse_history(&view.history).pop().map(|(_, label)| label)
}
