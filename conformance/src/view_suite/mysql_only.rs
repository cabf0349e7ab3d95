//! What only a MySQL server can show: cuts, kills, locks, deadlocks, and what it would change or merge without a word.

use std::time::{Duration, Instant};

use gravity_connectors::Bookkeeping;
use gravity_connectors::mysql::{MySqlOptions, TlsMode};
use gravity_model::change::RowOp;
use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState};
use gravity_model::{FaultKind, LogId, Value};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{Connection, MySqlConnection};
use tokio::net::TcpListener;

use super::proxy::{AtCommit, CuttingProxy};
use super::{
    MySqlPlace, Place, USERS, at, attach, attached, batch, checkpoint, int, kind, made, refused, request, table, text,
    write,
};

/// V3: the connection is cut at COMMIT. The store says "unknown"; the checkpoint, read anew, says what happened.
pub async fn v3_trap8_a_cut_at_commit_is_resolved_by_the_checkpoint(place: &MySqlPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let proxy = CuttingProxy::start(format!("{}:{}", place.options.host, place.options.port)).await;
    let store = place.store_with(|o| {
        o.host = "127.0.0.1".to_owned();
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

/// An account of a test's own, by which its sessions are known.
fn account(place: &MySqlPlace, password: &str) -> String {
    let user = format!("u_{}", place.options.db_name);
    place.client(&format!(
        "CREATE USER {user}@'%' IDENTIFIED BY '{password}'; GRANT ALL ON {}.* TO {user}@'%';",
        place.options.db_name
    ));
    user
}

fn kill_sessions_of(place: &MySqlPlace, user: &str) {
    let sessions = place.client(&format!("SELECT id FROM information_schema.processlist WHERE user = '{user}';"));
    assert!(!sessions.trim().is_empty(), "somebody was there to be killed");
    for id in sessions.lines() {
        place.client(&format!("KILL CONNECTION {id};"));
    }
    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(50)));
}

/// V2: the database ends our session at every step.
pub async fn v2_trap25_killed_sessions_are_replaced(place: &MySqlPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let user = account(place, "secret");
    let store = place.store_with(|o| {
        (o.user, o.password) = (user.clone(), "secret".to_owned());
        o.tls = if place.is_mariadb() { TlsMode::Off } else { TlsMode::Unverified };
    });
    store.open().await.expect("open");
    let changes = |name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text(name)]]);

    // While idle: the next call notices, and nobody else does.
    kill_sessions_of(place, &user);
    write(&*store, &mut now, &changes("after idle")).await.expect("a new connection");
    kill_sessions_of(place, &user);
    assert_eq!(store.checkpoints("r").await.expect("a new connection"), std::slice::from_ref(&now));

    // After BEGIN, and after the rows: gone, not done.
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    kill_sessions_of(place, &user);
    assert_eq!(kind(transaction.apply(&changes("lost")).await), FaultKind::Disconnected);
    transaction.rollback().await;
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    transaction.apply(&changes("lost")).await.expect("apply");
    kill_sessions_of(place, &user);
    assert_eq!(kind(transaction.commit(&[at(&now, 9)]).await), FaultKind::Disconnected);
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now));
    assert_eq!(place.rows("users", &["name"]).await, table(&[&["after idle"]]));
    write(&*store, &mut now, &changes("in the end")).await.expect("write");
    assert_eq!(place.rows("users", &["name"]).await, table(&[&["in the end"]]));
    place.client(&format!("DROP USER {user}@'%';"));
}

/// A session beside the store's, for locks.
async fn session(place: &MySqlPlace) -> MySqlConnection {
    let MySqlOptions { host, port, user, password, db_name, .. } = &place.options;
    let mut options = MySqlConnectOptions::new().host(host).port(*port).username(user).database(db_name);
    if !password.is_empty() {
        options = options.password(password);
    }
    MySqlConnection::connect_with(&options.ssl_mode(MySqlSslMode::Disabled)).await.expect("connect")
}

async fn say(session: &mut MySqlConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(session).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// V4: a lock that somebody else holds is waited for as long as the server was told, not longer, and is transient.
pub async fn v4_a_held_lock_is_transient(place: &MySqlPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let store = place.store_with(|o| o.lock_timeout = Duration::from_millis(300));
    store.open().await.expect("open");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    write(&*store, &mut now, &changes).await.expect("write");
    let mut holder = session(place).await;
    for lock in [
        "LOCK TABLES users WRITE",
        "BEGIN; SELECT * FROM users WHERE id = 1 FOR UPDATE",
        "BEGIN; SELECT * FROM gravity_checkpoints FOR UPDATE",
    ] {
        say(&mut holder, lock).await;
        let started = Instant::now();
        let fault = write(&*store, &mut now, &changes).await.expect_err("locked");
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "1205"), "{lock}: {fault}");
        assert!(started.elapsed() < Duration::from_secs(5), "{lock}: {:?}", started.elapsed());
        if lock.contains("gravity_checkpoints") {
            assert_eq!(kind(store.checkpoints("r").await), FaultKind::Transient, "the answer would not be final");
        }
        say(&mut holder, "ROLLBACK; UNLOCK TABLES").await;
        write(&*store, &mut now, &changes).await.expect("unlocked");
    }
}

/// V4: limits live in the server. MySQL limits neither statements that write nor silent transactions.
pub async fn v4_the_server_limits_statements_and_idle_transactions(place: &MySqlPlace) {
    if !place.is_mariadb() {
        println!("skipped: MySQL has neither limit");
        return;
    }
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let store = place.store_with(|o| {
        o.statement_timeout = Duration::from_millis(300);
        o.idle_in_transaction_timeout = Duration::from_millis(300);
    });
    store.open().await.expect("open");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert_eq!(kind(transaction.apply(&changes).await), FaultKind::Disconnected, "idle for too long");
    transaction.rollback().await;
    place.dba("CREATE TRIGGER slow BEFORE INSERT ON users FOR EACH ROW SET @slept = SLEEP(5)").await;
    let started = Instant::now();
    let fault = write(&*store, &mut now, &changes).await.expect_err("too slow");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "1969"), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    place.dba("DROP TRIGGER slow").await;
    write(&*store, &mut now, &changes).await.expect("fast again");
}

/// Lanes write at the same time.
pub async fn lanes_do_not_wait_for_each_other(place: &MySqlPlace) {
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

/// V5: the server ends one of two transactions that wait for each other, whole; the same batch then succeeds.
pub async fn v5_a_deadlock_is_transient(place: &MySqlPlace) {
    let store = place.store();
    store.open().await.expect("open");
    let users = made(place, &*store, &USERS).await;
    let mut lanes = [checkpoint("r", 0, 0), checkpoint("r", 1, 0)];
    for lane in &lanes {
        attach(&*store, lane).await;
    }
    let row = |id: i64, name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text(name)]]);
    for id in [1, 2] {
        write(&*store, &mut lanes[0], &row(id, "there")).await.expect("create");
    }
    let mut first = store.begin(&lanes[..1]).await.expect("begin");
    let mut second = store.begin(&lanes[1..]).await.expect("begin");
    first.apply(&row(1, "first")).await.expect("apply");
    second.apply(&row(2, "second")).await.expect("apply");
    let (one, two) = (row(2, "first"), row(1, "second"));
    let (a, b) = tokio::join!(first.apply(&one), second.apply(&two));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let (winner, loser, fault, of) = if a.is_ok() { (first, second, b, 0) } else { (second, first, a, 1) };
    let fault = fault.expect_err("the other one");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "1213"), "{fault}");
    // MySQL would let the loser go on outside of any transaction; the store does not.
    let stranded = at(&lanes[1 - of], 99);
    assert!(loser.commit(&[stranded]).await.is_err(), "the loser must not commit");
    winner.commit(&[at(&lanes[of], 50)]).await.expect("commit");
    let name = ["first", "second"][of];
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", name], &["2", name]]));
    write(&*store, &mut lanes[1 - of], &row(1, "again")).await.expect("the same lane again");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", "again"], &["2", name]]));
}

/// Peers' trap 3, where the table's shape does not say so: a unique key made after the table was looked at, one over a part of
/// a column, one beside a key of two columns. No row of another key changes.
pub async fn trap3_a_second_unique_key_never_changes_a_strangers_row(place: &MySqlPlace) {
    let (store, mut now) = attached(place).await;
    let exact = format!("ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={}", place.collation);
    place
        .dba(&format!(
            "CREATE TABLE later (id bigint PRIMARY KEY, name text, email varchar(80)) {exact}; \
             CREATE TABLE part (id bigint PRIMARY KEY, email varchar(80), UNIQUE (email(3))) {exact}; \
             CREATE TABLE pair (a bigint, b bigint, email varchar(80) UNIQUE, PRIMARY KEY (a, b)) {exact}"
        ))
        .await;
    let later = super::shape(&*store, "later", &["id"]).await;
    let rows = |rows: &[(i64, &str)]| rows.iter().map(|(id, mail)| vec![int(*id), text(mail)]).collect::<Vec<_>>();
    let put = |op, given: &[(i64, &str)]| batch(&later, op, &["email"], rows(given));
    write(&*store, &mut now, &put(RowOp::Upsert, &[(1, "a"), (2, "b")])).await.expect("create");
    place.dba("ALTER TABLE later ADD UNIQUE (email)").await;
    let want = table(&[&["1", "a"], &["2", "b"]]);
    for changes in [&[(3, "b")][..], &[(3, "c"), (4, "b")], &[(1, "b")], &[(1, "c"), (2, "d"), (3, "c")]] {
        refused(write(&*store, &mut now, &put(RowOp::Upsert, changes)).await);
        assert_eq!(place.rows("later", &["id", "email"]).await, want, "{changes:?}");
    }
    write(&*store, &mut now, &put(RowOp::Upsert, &[(1, "a"), (3, "c")])).await.expect("nobody's in the way");

    let part = super::shape(&*store, "part", &["id"]).await;
    assert_eq!(part.unique.len(), 1, "it is a key that a row can meet");
    let put = |given: &[(i64, &str)]| batch(&part, RowOp::Upsert, &["email"], rows(given));
    write(&*store, &mut now, &put(&[(1, "abcd"), (2, "bcde")])).await.expect("create");
    assert_eq!(refused(write(&*store, &mut now, &put(&[(3, "abcx")])).await).code, "1062");
    write(&*store, &mut now, &put(&[(1, "abcx"), (3, "xyz")])).await.expect("its own row");
    let want = table(&[&["1", "abcx"], &["2", "bcde"], &["3", "xyz"]]);
    assert_eq!(place.rows("part", &["id", "email"]).await, want);

    let pair = super::shape(&*store, "pair", &["a", "b"]).await;
    let row = |a: i64, b: i64, mail: &str| vec![int(a), int(b), text(mail)];
    let put = |rows: Vec<Vec<Value>>| batch(&pair, RowOp::Upsert, &["email"], rows);
    write(&*store, &mut now, &put(vec![row(1, 1, "x"), row(1, 2, "y")])).await.expect("create");
    assert_eq!(refused(write(&*store, &mut now, &put(vec![row(1, 3, "x")])).await).code, "1062");
    // What an update gives up, a new row of the same batch takes.
    write(&*store, &mut now, &put(vec![row(1, 1, "z"), row(1, 3, "x")])).await.expect("moves away first");
    let want = table(&[&["1", "1", "z"], &["1", "2", "y"], &["1", "3", "x"]]);
    assert_eq!(place.rows("pair", &["a", "b", "email"]).await, want);
}

/// SEMANTICS 1.1: two keys to Gravity are two rows, or the table is refused with the statement that mends it.
pub async fn keys_that_the_database_takes_for_one_are_refused(place: &MySqlPlace) {
    let (store, mut now) = attached(place).await;
    let loose = ["utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci", "latin1_bin"];
    for (number, collation) in loose.into_iter().enumerate() {
        let name = format!("k{number}");
        let charset = collation.split('_').next().expect("a character set");
        place
            .dba(&format!(
                "CREATE TABLE {name} (k varchar(20) CHARACTER SET {charset} COLLATE {collation} PRIMARY KEY, v text) \
                 ENGINE=InnoDB"
            ))
            .await;
        let wanted = request(&name, &[("k", "varchar(20)"), ("v", "text")], &["k"]);
        let findings = store.inspect(std::slice::from_ref(&wanted)).await.expect("inspect");
        let [finding] = &findings.iter().filter(|f| f.fatal).collect::<Vec<_>>()[..] else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.column.as_deref()), ("live/key-equality", Some("k")), "{collation}");
        assert!(finding.found.contains(collation), "{finding:?}");
        place.dba(finding.sql.as_deref().expect("what mends it").trim_end_matches(';')).await;
        let findings = store.inspect(&[wanted]).await.expect("inspect again");
        assert!(findings.iter().all(|f| !f.fatal), "{findings:?}");
        let shape = super::shape(&*store, &name, &["k"]).await;
        let keys = ["a", "A", "a ", "á", "a\0"];
        let rows = keys.iter().map(|k| vec![text(k), text("v")]).collect();
        write(&*store, &mut now, &batch(&shape, RowOp::Upsert, &["v"], rows)).await.expect("five keys");
        assert_eq!(place.rows(&name, &["k"]).await.len(), keys.len(), "{collation}");
    }
}

/// What MySQL shortens, pads, replaces or numbers without an error, strict mode or not, is refused by the store; what strict
/// mode refuses is a refusal of the event as well.
pub async fn what_the_server_would_change_is_refused(place: &MySqlPlace) {
    let (store, mut now) = attached(place).await;
    place
        .dba(&format!(
            "CREATE TABLE odd (id bigint PRIMARY KEY, c char(5), b binary(3), e enum('a','b','7'), \
             ts timestamp NOT NULL DEFAULT '2000-01-01 00:00:00', tn timestamp(6) NULL, u bigint unsigned, t tinytext, \
             three varchar(10) CHARACTER SET utf8mb3, l varchar(10) CHARACTER SET latin1, vb varbinary(3), \
             n int NOT NULL DEFAULT 5, bt bit(1), i tinyint, d date, x decimal(5,2), m mediumint unsigned) \
             ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={}",
            place.collation
        ))
        .await;
    let odd = super::shape(&*store, "odd", &["id"]).await;
    let binary = |bytes: &[u8]| Value::Binary(bytes.into());
    let decimal = |digits: &str| Value::Decimal(digits.into());
    let put = |column: &str, value: Value| batch(&odd, RowOp::Upsert, &[column], vec![vec![int(1), value]]);
    let year_2200 = 7_258_118_400_000_000;
    for (column, value, code) in [
        ("c", text("ab "), "1265"),
        ("c", text("abcdef"), "1406"),
        ("b", binary(b"\x01\x02"), "1265"),
        ("b", binary(b"\x01\x02\x03\x04"), "1406"),
        ("e", text("2"), "1265"),
        ("e", text("B"), "1265"),
        ("e", text(""), "1265"),
        ("ts", Value::Null, "1048"),
        ("tn", Value::TimestampTz(-1), "1292"),
        ("tn", Value::TimestampTz(year_2200), "1292"),
        ("u", int(-1), "1264"),
        ("u", decimal("18446744073709551616"), "1264"),
        ("t", text(&"x".repeat(256)), "1406"),
        ("three", text("🦀"), "1366"),
        ("l", text("中"), "1366"),
        ("vb", binary(b"\x01\x02\x03\x04"), "1406"),
        ("n", Value::Null, "1048"),
        ("i", int(128), "1264"),
        ("m", int(-1), "1264"),
        ("d", Value::Date(2_932_897), "1292"),
        ("x", decimal("1000"), "1264"),
        ("x", decimal("1.005"), "1265"),
    ] {
        let fault = refused(write(&*store, &mut now, &put(column, value.clone())).await);
        assert_eq!(fault.code, code, "{column} {value:?}: {fault}");
        assert_eq!(place.rows("odd", &["id"]).await, table(&[]), "{column} {value:?}");
    }
    for (column, value, shown) in [
        ("c", text("ab"), "ab"),
        ("b", binary(b"\x01\x00\x03"), "x010003"),
        ("e", text("7"), "7"),
        ("ts", Value::TimestampTz(1_000_000_000_000_000), "2001-09-09 01:46:40"),
        ("tn", Value::TimestampTz(1_000_000_000_000_001), "2001-09-09 01:46:40.000001"),
        ("u", decimal("18446744073709551615"), "18446744073709551615"),
        ("t", text(&"x".repeat(255)), &"x".repeat(255)),
        ("three", text("é"), "é"),
        ("l", text("é"), "é"),
        ("vb", binary(b""), "x"),
        ("n", int(-7), "-7"),
        ("i", int(-128), "-128"),
        ("m", int(16_777_215), "16777215"),
        ("bt", Value::Bool(true), "x1"),
        ("x", decimal("-999.99"), "-999.99"),
    ] {
        for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::Insert] {
            let changes = batch(&odd, op, &[column], vec![vec![int(1), value.clone()], vec![int(2), value.clone()]]);
            write(&*store, &mut now, &changes).await.unwrap_or_else(|f| panic!("{op:?} {column}: {f}"));
        }
        let found = place.rows("odd", &[column]).await;
        assert!(found.iter().all(|row| row[0].as_deref() == Some(shown)), "{column}: {found:?}");
    }
}

/// A key of 0 is 0, also where the server would count.
pub async fn a_counted_key_of_zero_is_zero(place: &MySqlPlace) {
    let (store, mut now) = attached(place).await;
    place.dba("CREATE TABLE counted (id bigint AUTO_INCREMENT PRIMARY KEY, v int) ENGINE=InnoDB").await;
    let counted = super::shape(&*store, "counted", &["id"]).await;
    for op in [RowOp::Upsert, RowOp::Insert, RowOp::UpdateElseInsert] {
        let rows = vec![vec![int(0), int(7)], vec![int(-3), int(7)]];
        write(&*store, &mut now, &batch(&counted, op, &["v"], rows)).await.expect("write");
        assert_eq!(place.rows("counted", &["id"]).await, table(&[&["-3"], &["0"]]), "{op:?}");
    }
}

/// Rows in a table without transactions would stay when their checkpoint is rolled back.
pub async fn tables_without_transactions_are_refused(place: &MySqlPlace) {
    // Keys of our bookkeeping are longer than MyISAM's may be, and MySQL has no other such engine.
    let other = if place.is_mariadb() { "Aria" } else { "MEMORY" };
    let (store, _) = attached(place).await;
    place.dba("CREATE TABLE light (id bigint PRIMARY KEY, name text) ENGINE=MyISAM").await;
    let wanted = request("light", &[("id", "i64"), ("name", "text")], &["id"]);
    let findings = store.inspect(std::slice::from_ref(&wanted)).await.expect("inspect");
    let fatal: Vec<_> = findings.iter().filter(|f| f.fatal).map(|f| (f.code, f.table.as_str())).collect();
    assert_eq!(fatal, [("live/engine", "light")]);
    place.dba(findings[0].sql.as_deref().expect("what mends it").trim_end_matches(';')).await;
    assert_eq!(store.inspect(&[wanted]).await.expect("inspect").iter().filter(|f| f.fatal).count(), 0);
    place.dba(&format!("ALTER TABLE gravity_checkpoints ENGINE={other}")).await;
    let fault = store.open().await.expect_err("checkpoints without transactions");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "live/engine"), "{fault}");
    let findings = store.inspect(&[]).await.expect("inspect");
    assert!(findings.iter().any(|f| f.fatal && f.code == "live/engine" && f.table == "gravity_checkpoints"));
    place.dba("ALTER TABLE gravity_checkpoints ENGINE=InnoDB").await;
    store.open().await.expect("InnoDB again");
}

/// O34: user and password reach the server byte for byte.
pub async fn o34_credentials_of_any_bytes(place: &MySqlPlace) {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "''");
    for (number, (user, password)) in [
        ("gravity", "p@ss:w/o?rd#%41&=+ x"),
        ("us@er:/?#%&é z", "пароль ' \" \\ $(id) `id`"),
        ("u", "@"),
        ("none", ""),
        ("long", &"x".repeat(300)),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("{user} {number}{}", place.options.db_name.trim_start_matches("view_"));
        let account = format!("'{}'@'%'", quoted(&user));
        place.client(&format!(
            "CREATE USER {account} IDENTIFIED BY '{}'; GRANT ALL ON {}.* TO {account};",
            quoted(password),
            place.options.db_name
        ));
        let with = |password: &str| place.store_with(|o| (o.user, o.password) = (user.clone(), password.to_owned()));
        with(password).open().await.unwrap_or_else(|fault| panic!("{user}: {fault}"));
        let fault = with("CANARY wrong").open().await.expect_err("another password");
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "1045"), "{fault}");
        assert!(!format!("{fault} {fault:?}").contains("CANARY"), "a fault shows no password: {fault:?}");
        place.client(&format!("DROP USER {account};"));
    }
}

pub async fn wrong_places_are_misconfigured_or_away(place: &MySqlPlace) {
    let absent = place.store_with(|o| o.db_name = "no_such_database".to_owned());
    let fault = absent.open().await.expect_err("no such database");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "1049"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let away = place.store_with(|o| (o.host, o.port) = ("127.0.0.1".to_owned(), port));
    assert_eq!(kind(away.open().await), FaultKind::Disconnected, "nobody listens");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let hangs = place.store_with(|o| {
        o.host = "127.0.0.1".to_owned();
        o.port = silent.local_addr().expect("an address").port();
        o.connect_timeout = Duration::from_millis(300);
    });
    assert_eq!(kind(hangs.open().await), FaultKind::Disconnected, "accepts, then hangs");
}

pub async fn manual_bookkeeping_is_never_made(place: &MySqlPlace) {
    let store = place.store_with(|o| o.bookkeeping = Bookkeeping::Manual);
    let fault = store.open().await.expect_err("not there");
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    assert!(fault.detail.contains("CREATE TABLE gravity_checkpoints"), "{fault}");
    let findings = store.inspect(&[]).await.expect("inspect");
    assert!(findings.iter().any(|f| f.fatal && f.code == "live/bookkeeping" && f.sql.is_some()), "{findings:?}");
    place.client(&store.bookkeeping_sql());
    store.open().await.expect("made by hand");
    attach(&*store, &checkpoint("r", 0, 0)).await;
}

/// SEMANTICS 3.5: a claim is for the physical table, whatever name it is called by.
pub async fn a_claim_is_for_the_physical_table(place: &MySqlPlace) {
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
    let qualified = format!("{}.users", place.options.db_name);
    store.rewrite(put(row("users", "db1"))).await.expect("claim");
    let fault = store.rewrite(put(row(&qualified, "db2"))).await.expect_err("the same table");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::NotOurs, "view-claimed"), "{fault}");
    store.rewrite(put(row("not_there_yet", "db2"))).await.expect("another table");
    // Two that claim at the same time: one at most gets it.
    let other = place.store();
    other.open().await.expect("open");
    for round in 0..10 {
        let name = format!("t{round}");
        let (a, b) = tokio::join!(store.rewrite(put(row(&name, "a"))), other.rewrite(put(row(&name, "b"))));
        assert!(!(a.is_ok() && b.is_ok()), "both got {name}");
        for fault in [a.err(), b.err()].into_iter().flatten() {
            assert!(matches!(fault.kind, FaultKind::NotOurs | FaultKind::Transient), "{fault}");
        }
    }
}

/// DDL commits by itself in MySQL: it never runs inside of a view's transaction, and none is left open by it.
pub async fn tables_made_meanwhile_commit_nothing_of_ours(place: &MySqlPlace) {
    let (store, now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    transaction.apply(&batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]])).await.expect("apply");
    store.create(&["CREATE TABLE `made` (`id` bigint PRIMARY KEY) ENGINE=InnoDB".to_owned()]).await.expect("create");
    assert_eq!(place.rows("users", &["id"]).await, table(&[]), "still open");
    transaction.rollback().await;
    assert_eq!(place.rows("users", &["id"]).await, table(&[]));
    assert!(!store.has_rows("made").await.expect("it is there"));
}
