//! What only a server can show: cuts, locks, limits, TLS, credentials (Protocol B step 5, V2–V5, O33, O34).

use std::time::{Duration, Instant};

use gravity_connectors::Bookkeeping;
use gravity_connectors::postgres::TlsMode;
use gravity_model::change::RowOp;
use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState};
use gravity_model::{FaultKind, LogId};
use tokio::net::TcpListener;

use super::proxy::{AtCommit, CuttingProxy, TlsProxy, eavesdrop};
use super::{
    Place, PostgresPlace, USERS, at, attach, attached, batch, checkpoint, int, kind, made, table, text, write,
};

/// V3: the connection is cut at COMMIT. The store says "unknown"; the checkpoint, read anew, says what happened.
pub async fn v3_trap8_a_cut_at_commit_is_resolved_by_the_checkpoint(place: &PostgresPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let proxy = CuttingProxy::start(format!("{}:{}", place.options.host, place.options.port)).await;
    let store = place.store_with(|o| {
        o.port = proxy.address.port();
        o.statement_timeout = Duration::from_millis(300);
        o.answer_grace = Duration::from_millis(300);
    });
    store.open().await.expect("open");
    let rounds = [
        (AtCommit::Pass, true, "pass"),
        (AtCommit::CutBefore, false, "before"),
        (AtCommit::CutAfter, true, "after"),
        (AtCommit::CutBefore, false, "before again"),
        (AtCommit::Silence, true, "silence"),
        (AtCommit::Pass, true, "pass again"),
    ];
    let mut want = Vec::new();
    for (id, (mode, done, name)) in rounds.into_iter().enumerate() {
        proxy.at_commit(mode);
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id as i64), text(name)]]);
        let result = write(&*store, &mut now.clone(), &changes).await;
        if mode == AtCommit::Pass {
            result.expect("nothing in the way");
        } else {
            assert_eq!(kind(result), FaultKind::Disconnected, "{name}");
        }
        proxy.at_commit(AtCommit::Pass);
        let found = store.checkpoints("r").await.expect("read on a new connection").pop().expect("a row");
        let next = at(&now, now.sequence.0 + 1);
        assert_eq!(found, if done { next } else { now.clone() }, "{name}");
        if done {
            want.push(vec![Some(id.to_string()), Some(name.to_owned())]);
        }
        assert_eq!(place.rows("users", &["id", "name"]).await, want, "{name}");
        now = found;
    }
}

/// V14, the control: the driver's own pool loses a write that it reported as done after a `begin` was dropped. Should this
/// stop being so, `v14_dropped_futures_lose_no_later_write` shows less than it did, and the driver's notes want reading.
pub async fn v14_control_the_drivers_pool_loses_writes(place: &PostgresPlace) {
    place.dba("CREATE TABLE kept (id bigint PRIMARY KEY)").await;
    let mut reported = 0;
    // For one of these counts BEGIN is on its way and its answer is not here yet: which, and whether at all, is the machine's
    // to say, so it is asked more than once.
    for round in 0..50i64 {
        for polls in 1..12i64 {
            let options = sqlx::postgres::PgPoolOptions::new().max_connections(1);
            let pool = options.connect(&place.url).await.expect("connect");
            let begin = super::bookkeeping::dropped_after(polls as usize, pool.begin()).await;
            drop(begin);
            let insert = format!("INSERT INTO {}.kept VALUES ({})", place.schema, round * 100 + polls);
            if sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.is_ok() {
                reported += 1;
            }
            pool.close().await;
        }
        let found = place.rows("kept", &["id"]).await.len();
        if found < reported {
            return println!("v14 control: {reported} writes reported as done, {found} there");
        }
    }
    panic!("{reported} writes, and the driver's pool lost none of them");
}

fn kill_all_but_psql(place: &PostgresPlace, application: &str) {
    let killed = place.client(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{application}';"
    ));
    assert_ne!(killed.trim(), "0", "somebody was there to be killed");
    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(50)));
}

/// V2: the database ends our session at every step.
pub async fn v2_trap25_killed_sessions_are_replaced(place: &PostgresPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let application = format!("killed_{}", place.schema);
    let store = place.store_with(|o| o.application_name = application.clone());
    store.open().await.expect("open");
    let changes = |name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text(name)]]);

    // While idle: the next call notices, and nobody else does.
    kill_all_but_psql(place, &application);
    write(&*store, &mut now, &changes("after idle")).await.expect("a new connection");
    kill_all_but_psql(place, &application);
    assert_eq!(store.checkpoints("r").await.expect("a new connection"), std::slice::from_ref(&now));

    // After BEGIN, and after the rows: gone, not done.
    let transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    kill_all_but_psql(place, &application);
    let mut transaction = transaction;
    assert_eq!(kind(transaction.apply(&changes("lost")).await), FaultKind::Disconnected);
    transaction.rollback().await;
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    transaction.apply(&changes("lost")).await.expect("apply");
    kill_all_but_psql(place, &application);
    assert_eq!(kind(transaction.commit(&[at(&now, 9)]).await), FaultKind::Disconnected);
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now));
    assert_eq!(place.rows("users", &["name"]).await, table(&[&["after idle"]]));
    write(&*store, &mut now, &changes("in the end")).await.expect("write");
    assert_eq!(place.rows("users", &["name"]).await, table(&[&["in the end"]]));
}

/// V4: a lock that somebody else holds is waited for as long as the server was told, not longer, and is transient.
pub async fn v4_a_held_lock_is_transient(place: &PostgresPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let store = place.store_with(|o| o.lock_timeout = Duration::from_millis(200));
    store.open().await.expect("open");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    let holder = sqlx::PgPool::connect(&place.url).await.expect("connect");
    let mut lock = holder.begin().await.expect("begin");
    let statement = format!("LOCK TABLE {}.users IN ACCESS EXCLUSIVE MODE", place.schema);
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.expect("lock");
    let started = Instant::now();
    let fault = write(&*store, &mut now, &changes).await.expect_err("locked");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "55P03"), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    lock.rollback().await.expect("unlock");
    write(&*store, &mut now, &changes).await.expect("unlocked");
    // The checkpoint row itself.
    let mut lock = holder.begin().await.expect("begin");
    let statement = format!("SELECT FROM {}.gravity_checkpoints FOR UPDATE", place.schema);
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.expect("lock");
    assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Transient);
    assert_eq!(kind(store.checkpoints("r").await), FaultKind::Transient, "the answer would not be final");
    lock.rollback().await.expect("unlock");
    write(&*store, &mut now, &changes).await.expect("unlocked");
}

/// V4: limits live in the server.
pub async fn v4_the_server_limits_statements_and_idle_transactions(place: &PostgresPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let store = place.store_with(|o| {
        o.statement_timeout = Duration::from_millis(300);
        o.idle_in_transaction_timeout = Duration::from_millis(300);
    });
    store.open().await.expect("open");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(kind(transaction.apply(&changes).await), FaultKind::Disconnected, "idle for too long");
    transaction.rollback().await;
    place
        .dba(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NEW; END'; \
             CREATE TRIGGER slow BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let started = Instant::now();
    let fault = write(&*store, &mut now, &changes).await.expect_err("too slow");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "57014"), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    place.dba("DROP TRIGGER slow ON users").await;
    write(&*store, &mut now, &changes).await.expect("fast again");
}

/// Lanes write at the same time.
pub async fn lanes_do_not_wait_for_each_other(place: &PostgresPlace) {
    let store = place.store();
    store.open().await.expect("open");
    let users = made(place, &*store, &USERS).await;
    let lanes = [checkpoint("r", 0, 0), checkpoint("r", 1, 0)];
    for lane in &lanes {
        attach(&*store, lane).await;
    }
    let mut first = store.begin(&lanes[..1]).await.expect("begin");
    let mut second = store.begin(&lanes[1..]).await.expect("begin while the other is open");
    first.apply(&batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a")]])).await.expect("apply");
    second.apply(&batch(&users, RowOp::Upsert, &["name"], vec![vec![int(2), text("b")]])).await.expect("apply");
    second.commit(&[at(&lanes[1], 2)]).await.expect("commit");
    first.commit(&[at(&lanes[0], 1)]).await.expect("commit");
    assert_eq!(store.checkpoints("r").await.expect("read"), [at(&lanes[0], 1), at(&lanes[1], 2)]);
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["1"], &["2"]]));
}

/// A deferred constraint speaks at COMMIT: a refusal that the server answered, not an unknown outcome.
pub async fn a_refusal_at_commit_is_no_unknown_outcome(place: &PostgresPlace) {
    let (store, now) = attached(place).await;
    place
        .dba(
            "CREATE TABLE shops (id bigint PRIMARY KEY); \
             CREATE TABLE sales (id bigint PRIMARY KEY, shop bigint REFERENCES shops DEFERRABLE INITIALLY DEFERRED)",
        )
        .await;
    let sales = super::shape(&*store, "sales", &["id"]).await;
    let changes = batch(&sales, RowOp::Upsert, &["shop"], vec![vec![int(1), int(404)]]);
    let fault = write(&*store, &mut now.clone(), &changes).await.expect_err("no such shop");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::RefusedEvent, "23503"), "{fault}");
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
}

/// O34: user and password reach the server byte for byte.
pub async fn o34_credentials_of_any_bytes(place: &PostgresPlace) {
    for (user, password) in
        [("gravity", "p@ss:w/o?rd#%41&=+ x"), ("us@er:/?#%&é z", "пароль ' \" \\ $(id) `id`"), ("u", "@"), ("u", "%00")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let listening = tokio::spawn(eavesdrop(listener));
        let store = place.store_with(|o| {
            o.host = "127.0.0.1".to_owned();
            o.port = port;
            o.user = user.to_owned();
            o.password = password.to_owned();
            o.db_name = "da/ta?b=1&".to_owned();
        });
        let fault = store.open().await.expect_err("nobody is there");
        let (startup, sent) = listening.await.expect("joins");
        let holds = |needle: &[u8]| startup.windows(needle.len()).any(|w| w == needle);
        assert!(holds([b"user\0", user.as_bytes(), b"\0"].concat().as_slice()), "{user}");
        assert!(holds(b"database\0da/ta?b=1&\0"));
        assert_eq!(sent, [password.as_bytes(), b"\0"].concat(), "{password}");
        let shown = format!("{fault} {fault:?}");
        assert!(!shown.contains(password) || password.len() < 3, "a fault shows no password: {shown}");
    }
}

/// O33: verified TLS works, and what does not verify is refused as a matter of configuration.
pub async fn o33_tls_is_verified(place: &PostgresPlace) {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |name: &str, subject: &str, alt: &str| {
        let (certificate, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", subject, "-addext", alt])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (certificate, key)
    };
    let (certificate, key) = make("right", "/CN=right", "subjectAltName=DNS:localhost");
    let (other, _) = make("other", "/CN=other", "subjectAltName=DNS:localhost");
    let proxy = TlsProxy::start(format!("{}:{}", place.options.host, place.options.port), &certificate, &key).await;
    let open = async |host: &str, tls: TlsMode, ca: Option<&std::path::PathBuf>, port: u16| {
        let store = place.store_with(|o| {
            o.host = host.to_owned();
            o.port = port;
            o.tls = tls;
            o.ca_file = ca.cloned();
        });
        store.open().await
    };
    let port = proxy.address.port();
    open("localhost", TlsMode::VerifyFull, Some(&certificate), port).await.expect("the right name and authority");
    open("localhost", TlsMode::Unverified, None, port).await.expect("as asked");
    open("127.0.0.1", TlsMode::VerifyChain, Some(&certificate), port).await.expect("any name");
    for (host, ca, why) in [
        ("127.0.0.1", Some(&certificate), "another name"),
        ("localhost", Some(&other), "another authority"),
        ("localhost", None, "nobody's authority"),
    ] {
        let fault = open(host, TlsMode::VerifyFull, ca, port).await.expect_err(why);
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "tls"), "{why}: {fault}");
    }
    let nowhere = folder.path().join("nowhere.pem");
    let fault = open("localhost", TlsMode::VerifyFull, Some(&nowhere), port).await.expect_err("no such file");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "tls"), "{fault}");
    let plain = open(&place.options.host, TlsMode::VerifyFull, None, place.options.port).await;
    if let Err(fault) = plain {
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "tls"), "a server without TLS: {fault}");
    }
}

pub async fn wrong_places_are_misconfigured_or_away(place: &PostgresPlace) {
    let absent = place.store_with(|o| o.db_name = "no_such_database".to_owned());
    let fault = absent.open().await.expect_err("no such database");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "3D000"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let away = place.store_with(|o| {
        o.host = "127.0.0.1".to_owned();
        o.port = port;
    });
    assert_eq!(kind(away.open().await), FaultKind::Disconnected, "nobody listens");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let hangs = place.store_with(|o| {
        o.host = "127.0.0.1".to_owned();
        o.port = silent.local_addr().expect("an address").port();
        o.connect_timeout = Duration::from_millis(300);
    });
    assert_eq!(kind(hangs.open().await), FaultKind::Disconnected, "accepts, then hangs");
}

pub async fn manual_bookkeeping_is_never_made(place: &PostgresPlace) {
    let store = place.store_with(|o| o.bookkeeping = Bookkeeping::Manual);
    let fault = store.open().await.expect_err("not there");
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    assert!(fault.detail.contains("CREATE TABLE gravity_checkpoints"), "{fault}");
    place.dba(&store.bookkeeping_sql()).await;
    store.open().await.expect("made by hand");
    attach(&*store, &checkpoint("r", 0, 0)).await;
}

/// SEMANTICS 3.5: a claim is for the physical table, whatever name it is called by.
pub async fn a_claim_is_for_the_physical_table(place: &PostgresPlace) {
    let (store, _) = attached(place).await;
    made(place, &*store, &USERS).await;
    let row = |table: &str, route: &str| ViewRow {
        table: table.to_owned(),
        log_id: LogId([1; 16]),
        route: route.to_owned(),
        state: ViewState::Attached,
        generation: 1,
        history: "[]".to_owned(),
    };
    let put = |row: ViewRow| BookkeepingRewrite { put_views: vec![row], ..BookkeepingRewrite::default() };
    let qualified = format!("{}.users", place.schema);
    store.rewrite(put(row("users", "db1"))).await.expect("claim");
    let fault = store.rewrite(put(row(&qualified, "db2"))).await.expect_err("the same table");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::NotOurs, "view-claimed"), "{fault}");
    store.rewrite(put(row("not_there_yet", "db2"))).await.expect("another table");
}
