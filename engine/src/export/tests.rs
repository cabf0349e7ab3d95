//! A subscription beside a route that is scripted by hand: moments that a whole engine does not stand still in.

use std::sync::Arc;
use std::time::Duration;

use gravity_connectors::memory::export::{Answer, MemoryExporter, MemoryTarget};
use gravity_log::{Batch, EventLog, MemoryDisk, MemoryLog};
use gravity_model::port::export::Exporter;
use gravity_model::{Counters, Event, Sequence};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::{self, Released};
use crate::export::gauge::SubscriptionGauge;
use crate::export::message::Letterhead;
use crate::export::task::SubscriptionTask;
use crate::parts::{ExporterSpec, MessageFormat, RulesInForce};
use crate::project::gauge::RouteGauge;
use crate::project::route::Orders;
use crate::rulebook::RuleBook;
use crate::status::RunState;

struct Stand {
    log: Arc<MemoryLog>,
    rules: RulesInForce,
    route: Arc<RouteGauge>,
    gauge: Arc<SubscriptionGauge>,
    target: MemoryTarget,
    cancel: CancellationToken,
    _orders: watch::Sender<Orders>,
    task: Option<SubscriptionTask>,
}

impl Stand {
    async fn new() -> Stand {
        let log = MemoryLog::open(&MemoryDisk::default()).expect("opens");
        let text = r#"{"rules": [{"event": "ping", "database": "db1", "exporter": ["out"]}]}"#;
        let files = vec![SourceFile::new("rules.json", text)];
        let database = DatabaseContext { kind: DatabaseKind::Postgres, ddl: Ddl::None, unknown_fields: None };
        let databases = [("db1".to_owned(), database)].into_iter().collect();
        let context = Context { databases, exporters: vec!["out".to_owned()] };
        let set = Arc::new(gravity_rules::load(&files, &context).expect("the test's rules are good"));
        let rules = RulesInForce { set, files, context, actor: "test".to_owned() };
        let (book, _) = RuleBook::open(&*log, &rules, &[]).await.expect("records the rules");
        let route = Arc::new(RouteGauge::new("db1", "memory"));
        let gauge = Arc::new(SubscriptionGauge::new("out", "db1", "memory"));
        let (target, cancel) = (MemoryTarget::default(), CancellationToken::new());
        let exporter = Arc::new(MemoryExporter::new("out", target.clone()));
        let spec = ExporterSpec {
            name: "out".to_owned(),
            kind: "memory",
            exporter: exporter.clone(),
            format: MessageFormat::CloudEvents,
            park_on_refused: false,
        };
        let (orders, receiver) = watch::channel(Orders::default());
        let task = SubscriptionTask {
            letterhead: Letterhead {
                log_id: log.identity().log_id,
                exporter: "out".to_owned(),
                route: "db1".to_owned(),
                format: MessageFormat::CloudEvents,
                binding: exporter.binding(),
            },
            spec: Arc::new(Mutex::new(spec)),
            renewed: 0,
            exporter,
            log: log.clone(),
            route: route.clone(),
            rules: Arc::new(book),
            gauge: gauge.clone(),
            park_on_refused: false,
            max_parked: 10,
            max_waiting_bytes: 1 << 20,
            added: *log.durable().borrow(),
            begin_after: None,
            orders: receiver,
            cancel: cancel.clone(),
        };
        Stand { log, rules, route, gauge, target, cancel, _orders: orders, task: Some(task) }
    }

    fn append(&self, batch: impl FnOnce(&mut Batch)) -> Sequence {
        let mut events = Batch::new();
        batch(&mut events);
        self.log.append(&mut events).expect("is taken").range.last
    }

    fn ping(&self) -> Sequence {
        self.append(|batch| batch.push(&Event::data("ping", "web", b"{}")))
    }

    fn prepare(&self) {
        let program = self.rules.set.compile("db1", None, &[]).expect("compiles");
        self.route.set_program(Sequence(1), Arc::new(program));
    }

    fn told(&self) -> Vec<Sequence> {
        self.target.arrived().iter().map(|message| message.sequence).collect()
    }

    async fn until(&self, holds: impl Fn(&Stand) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("did not come true: told {:?}, state {:?}", self.told(), self.gauge.state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_for_rules_that_its_route_has_not_prepared() {
    let mut stand = Stand::new().await;
    let ping = stand.ping();
    stand.route.committed(ping, Counters::default());
    let task = tokio::spawn(stand.task.take().expect("not started").run());
    stand.until(|stand| stand.gauge.state().0 == RunState::Degraded).await;
    assert!(stand.gauge.cursor() < ping, "never: no rules, so no message");
    stand.prepare();
    stand.until(|stand| stand.told() == [ping]).await;
    stand.until(|stand| stand.gauge.cursor() == ping && stand.gauge.state().0 == RunState::Running).await;
    stand.cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_whose_view_went_back_is_told_when_it_is_carried_out_again() {
    let mut stand = Stand::new().await;
    stand.prepare();
    let first = stand.ping();
    let ping = stand.ping();
    let parked = crate::project::park::parked("db1", ping, "ping".to_owned(), None, Vec::new(), false, None);
    stand.route.ledger.lock().park(Arc::new(parked));
    let record = stand.append(|batch| {
        let decision = control::Decision { route: "db1".to_owned(), sequences: None, actor: "op".to_owned(), at: 0 };
        control::tell(batch, control::RETRY, &control::numbered("db1", 1), &decision, None);
    });
    // While the first message is under way the database goes back to before the decision, whose outcome is unknown again.
    stand.target.script([Answer::Slow(Duration::from_millis(400))]);
    stand.route.committed(record, Counters::default());
    let task = tokio::spawn(stand.task.take().expect("not started").run());
    tokio::time::sleep(Duration::from_millis(100)).await;
    stand.route.read_back(ping, Counters::default());
    stand.until(|stand| stand.told() == [first] && stand.gauge.cursor() >= ping).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(stand.gauge.cursor() < record, "the decision is not behind the view, so not behind the cursor");
    let released = Released { route: "db1".to_owned(), record, applied: vec![ping], ..Released::default() };
    stand.route.ledger.lock().release(Arc::new(released));
    stand.route.committed(record, Counters::default());
    stand.until(|stand| stand.told() == [first, ping] && stand.gauge.cursor() == record).await;
    stand.cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscription_begins_where_it_was_told_to_and_keeps_to_it() {
    let mut stand = Stand::new().await;
    stand.prepare();
    let _untold = stand.ping();
    let first = stand.ping();
    let mut task = stand.task.take().expect("not started");
    task.added = stand.ping();
    task.begin_after = Some(Sequence(first.get() - 1));
    let (log, name) = (stand.log.clone(), stand.gauge.name());
    let noted = move || {
        let state = log.state();
        let entry = state.iter().find(|entry| entry.name == control::CURSOR && entry.key == name).cloned();
        entry.map(|e| control::read::<control::Cursor>(&e.name, e.sequence, &e.payload).expect("ours").through)
    };
    let added = task.added;
    let task = tokio::spawn(task.run());
    stand.until(|_| noted() == Some(Sequence(first.get() - 1))).await;
    stand.route.committed(added, Counters::default());
    stand.until(|stand| stand.gauge.cursor() == added).await;
    assert_eq!(stand.told(), [first, added]);
    stand.cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_before_a_subscription_was_away_is_not_where_it_goes_on() {
    let mut stand = Stand::new().await;
    stand.prepare();
    let before = *stand.log.durable().borrow();
    let cursor = control::Cursor { through: before, delivered: 3, ..control::Cursor::default() };
    stand.append(|batch| control::put(batch, control::CURSOR, "out@db1", &cursor, None));
    let missed = stand.ping();
    let mut task = stand.task.take().expect("not started");
    task.added = missed;
    let last = stand.ping();
    stand.route.committed(last, Counters::default());
    let task = tokio::spawn(task.run());
    stand.until(|stand| stand.gauge.cursor() == last).await;
    assert_eq!(stand.told(), [last]);
    assert_eq!(stand.gauge.status(last, Default::default()).delivered, 4, "its account goes on");
    stand.cancel.cancel();
    task.await.expect("ends");
}
