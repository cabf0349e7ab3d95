//! A MariaDB of a test's own: killed and started again, set up badly, with TLS, with small messages.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gravity_connectors::mysql::{MySqlOptions, TlsMode};
use gravity_model::change::RowOp;
use gravity_model::port::view::{BookkeepingRewrite, EventOutcome, ViewRow, ViewState, ViewStore};
use gravity_model::{FaultKind, LogId};

use super::places_mysql::mysql_options_of;
use super::{MySqlPlace, Place, USERS, at, attached, batch, int, kind, made, refused, table, text, write};
use crate::blackbox::mariadb;
use crate::blackbox::server::PrivateMariaDb;

/// `None` where MariaDB is not among the servers under test.
fn own(options: &str) -> Option<(PrivateMariaDb, MySqlPlace)> {
    mariadb()?;
    let server = PrivateMariaDb::start(options);
    let place = MySqlPlace::on(mysql_options_of(&server.url()), "utf8mb4_nopad_bin");
    Some((server, place))
}

/// V2: `kill -9` of the server before and after COMMIT, and a proper restart while nothing is under way.
pub async fn v2_a_crash_of_the_server_keeps_rows_and_checkpoint_together() {
    let Some((server, place)) = own("") else { return };
    let (store, mut now) = attached(&place).await;
    let users = made(&place, &*store, &USERS).await;
    let changes = |id: i64| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
    let mut want: Vec<Vec<Option<String>>> = Vec::new();
    for round in 0..3 {
        let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
        transaction.apply(&changes(100 + round)).await.expect("apply");
        server.restart(true);
        assert_eq!(kind(transaction.commit(&[at(&now, 99)]).await), FaultKind::Disconnected);
        assert_eq!(store.checkpoints("r").await.expect("a new connection"), std::slice::from_ref(&now));
        write(&*store, &mut now, &changes(round)).await.expect("write");
        want.push(vec![Some(round.to_string())]);
        server.restart(true);
        assert_eq!(store.checkpoints("r").await.expect("a new connection"), std::slice::from_ref(&now), "told so");
        assert_eq!(place.rows("users", &["id"]).await, want);
    }
    server.restart(false);
    write(&*store, &mut now, &changes(9)).await.expect("an idle connection is replaced");
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
}

/// V11: batches are cut to what the server takes in one message; a row beyond that is its event's fault, and no other's.
pub async fn v11_trap12_messages_keep_within_the_servers_limit() {
    let Some((_server, place)) = own("--max-allowed-packet=1M") else { return };
    let (store, mut now) = attached(&place).await;
    let users = made(&place, &*store, &USERS).await;
    let long = "x".repeat(300 << 10);
    for op in [RowOp::Insert, RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::Insert] {
        let rows = (0..40).map(|id| vec![int(id), text(&long)]).collect();
        write(&*store, &mut now, &batch(&users, op, &["name"], rows)).await.unwrap_or_else(|f| panic!("{op:?}: {f}"));
    }
    assert_eq!(place.client("SELECT COUNT(*), MIN(LENGTH(name)) FROM users;\n").trim(), format!("40\t{}", 300 << 10));
    let huge = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(41), text(&"x".repeat(1 << 20))]]);
    assert_eq!(refused(write(&*store, &mut now, &huge).await).code, "1153");
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    let outcome = transaction.apply_event(&huge).await.expect("an answer");
    assert!(matches!(&outcome, EventOutcome::Refused(f) if f.code == "1153"), "{outcome:?}");
    let small = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(42), text("small")]]);
    transaction.apply_event(&small).await.expect("the connection is as good as before");
    transaction.commit(&[at(&now, 7)]).await.expect("commit");
    assert_eq!(place.client("SELECT id FROM users WHERE id > 40;\n").trim(), "42");
}

/// What the server's settings forbid or endanger.
pub async fn unfit_servers_are_refused_or_named() {
    let options = "--log-bin=gravity-bin --binlog-format=STATEMENT --innodb-flush-log-at-trx-commit=2 \
                   --innodb-log-file-size=64M --innodb-doublewrite=0 --lower-case-table-names=1 \
                   --sql-mode= --default-time-zone=+05:00 --autocommit=0 --completion-type=CHAIN";
    let Some((_server, place)) = own(options) else { return };
    let fault = place.store().open().await.expect_err("InnoDB would refuse every write");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "live/server"), "{fault}");
    place.dba("SET GLOBAL binlog_format = MIXED").await;
    // Settings of the server that would change what statements mean are the session's own by now.
    let (store, mut now) = attached(&place).await;
    let users = made(&place, &*store, &USERS).await;
    for id in 0..3 {
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
        write(&*store, &mut now, &changes).await.expect("write");
    }
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["0"], &["1"], &["2"]]));
    let findings = store.inspect(&[]).await.expect("inspect");
    let found: Vec<_> = findings.iter().map(|f| (f.code, f.fatal)).collect();
    assert_eq!(found, [("live/asynchronous-commit", false), ("live/no-sync", false), ("live/small-redo-log", false)]);
    // Names of tables in other letters are the same table here.
    let claim = |table: &str, route: &str| BookkeepingRewrite {
        put_views: vec![ViewRow {
            table: table.to_owned(),
            log_id: LogId([1; 16]),
            route: route.to_owned(),
            state: ViewState::Attached,
            generation: 1,
            history: "[]".to_owned(),
        }],
        ..BookkeepingRewrite::default()
    };
    store.rewrite(claim("users", "db1")).await.expect("claim");
    assert_eq!(kind(store.rewrite(claim("Users", "db2")).await), FaultKind::NotOurs);
    place.dba("SET GLOBAL read_only = 1").await;
    let fault = store.open().await.expect_err("a read-only server");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "1290"), "{fault}");
}

/// O33: verified TLS works, and what does not verify is refused as a matter of configuration.
pub async fn o33_tls_is_verified() {
    if mariadb().is_none() {
        return;
    }
    // Where the server's own user can read it.
    let folder = tempfile::Builder::new().prefix("gravity-tls-").tempdir_in("/var/tmp").expect("a folder");
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    open(folder.path(), 0o755);
    let make = |name: &str| -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=mariadb", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        open(&key, 0o644);
        (certificate, key)
    };
    let ((certificate, key), (other, _)) = (make("right"), make("other"));
    let Some((_server, place)) = own(&format!("--ssl-cert={} --ssl-key={}", certificate.display(), key.display()))
    else {
        return;
    };
    let store = |host: &str, tls: TlsMode, ca: Option<&PathBuf>| -> Arc<dyn ViewStore> {
        place.store_with(|o: &mut MySqlOptions| {
            o.host = host.to_owned();
            o.tls = tls;
            o.ca_file = ca.cloned();
            o.connect_timeout = Duration::from_secs(5);
        })
    };
    store("localhost", TlsMode::VerifyFull, Some(&certificate)).open().await.expect("the right name and authority");
    store("localhost", TlsMode::Unverified, None).open().await.expect("as asked");
    store("127.0.0.1", TlsMode::VerifyChain, Some(&certificate)).open().await.expect("any name");
    // An account that must use TLS is refused without.
    place.client("CREATE USER careful@'%' IDENTIFIED BY 'x' REQUIRE SSL; GRANT ALL ON *.* TO careful@'%';");
    let careful = |tls| {
        place.store_with(|o| {
            (o.user, o.password) = ("careful".to_owned(), "x".to_owned());
            o.tls = tls;
        })
    };
    careful(TlsMode::Unverified).open().await.expect("with TLS");
    assert_eq!(kind(careful(TlsMode::Off).open().await), FaultKind::Misconfigured, "without");
    let nowhere = folder.path().join("nowhere.pem");
    for (host, ca, why) in [
        ("127.0.0.1", Some(&certificate), "another name"),
        ("localhost", Some(&other), "another authority"),
        ("localhost", None, "nobody's authority"),
        ("localhost", Some(&nowhere), "no such file"),
    ] {
        let fault = store(host, TlsMode::VerifyFull, ca).open().await.expect_err(why);
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "tls"), "{why}: {fault}");
    }
}
