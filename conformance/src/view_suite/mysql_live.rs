//! What `describe` and `inspect` say of MariaDB tables that a DBA made: one line per finding.

use gravity_model::ColumnType;
use gravity_model::port::view::{Described, TableRequest};

use super::live::lines;
use super::{MySqlPlace, Place, attached, kind, request};

pub async fn mariadb_types_are_resolved(place: &MySqlPlace) {
    let (store, _) = attached(place).await;
    place
        .dba(
            "CREATE TABLE many (id bigint AUTO_INCREMENT PRIMARY KEY, a smallint, b int DEFAULT 7, c float, d double, \
             e decimal(12,2), f tinyint(1), g text, h varchar(9), i char(3), j uuid, k date, l time(6), m datetime(6), \
             n timestamp NULL, o json, p longblob, q enum('x','y'), r bigint unsigned, s tinyint unsigned, t binary(16), \
             u set('x'), v year, w bit(1), x bit(8), y point, z bigint GENERATED ALWAYS AS (a * 2) STORED, `not this one` int, \
             aa mediumint unsigned, ab inet6) ENGINE=InnoDB",
        )
        .await;
    let shape = super::shape(&*store, "many", &[]).await;
    let found: Vec<_> = shape.columns.iter().map(|c| format!("{} {}", c.name, c.column_type)).collect();
    let want = [
        "id i64",
        "a i16",
        "b i32",
        "c f32",
        "d f64",
        "e decimal(12,2)",
        "f bool",
        "g text",
        "h varchar(9)",
        "i varchar(3)",
        "j uuid",
        "k date",
        "l time",
        "m timestamp",
        "n timestamptz",
        "o json",
        "p binary",
        "q text",
        "r u64",
        "s u8",
        "t binary",
        "w bool",
        "z i64",
        "aa u32",
    ];
    assert_eq!(found, want);
    let named = |name: &str| shape.columns.iter().find(|c| c.name == name).expect("a column");
    assert!(named("id").has_default && named("id").not_null && !named("id").generated);
    assert!(named("z").generated && named("b").has_default && !named("a").has_default);
    assert_eq!(named("e").database_type, "decimal(12,2)");
    // The mapping's type where the column keeps it.
    let wanted = request(
        "many",
        &[("g", "decimal"), ("h", "timestamptz"), ("m", "timestamptz"), ("t", "uuid"), ("o", "i64[]"), ("c", "f64")],
        &["id"],
    );
    let described = store.describe(&[wanted]).await.expect("describe").pop();
    let Some(Described::Present(shape)) = described else { panic!("{described:?}") };
    let of = |name: &str| shape.columns.iter().find(|c| c.name == name).expect("a column").column_type.clone();
    assert_eq!(of("g"), ColumnType::Decimal(None));
    assert_eq!(of("h"), ColumnType::TimestampTz);
    assert_eq!(of("m"), ColumnType::TimestampTz);
    assert_eq!(of("t"), ColumnType::Uuid);
    assert_eq!(of("o"), ColumnType::Array(Box::new(ColumnType::I64)));
    assert_eq!(of("c"), ColumnType::F32);
}

pub async fn mariadb_findings(place: &MySqlPlace) {
    let (store, _) = attached(place).await;
    place
        .dba(
            "CREATE TABLE good (id bigint PRIMARY KEY, name text) ENGINE=InnoDB; \
             CREATE VIEW seen AS SELECT * FROM good; \
             CREATE TABLE keyless (id bigint, name text) ENGINE=InnoDB; \
             CREATE TABLE part (id bigint, name varchar(50), UNIQUE (name(3))) ENGINE=InnoDB; \
             CREATE TABLE second (id bigint PRIMARY KEY, code bigint NOT NULL UNIQUE, name text) ENGINE=InnoDB; \
             CREATE TABLE blanks (id char(9) COLLATE latin1_nopad_bin PRIMARY KEY, at datetime(3) UNIQUE, e enum('a') UNIQUE, \
               vb varbinary(9) UNIQUE, name text) ENGINE=InnoDB; \
             CREATE TABLE light (id bigint PRIMARY KEY, name text) ENGINE=Aria; \
             CREATE TABLE parts (id bigint PRIMARY KEY, name text) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 2; \
             CREATE TABLE strict (id bigint PRIMARY KEY, name text, must int NOT NULL, g int GENERATED ALWAYS AS (1) STORED, \
               `odd name` text, iv set('x'), ts datetime(0), small int, f float, fd float(7,2), d double, \
               changed timestamp NULL ON UPDATE CURRENT_TIMESTAMP) ENGINE=InnoDB; \
             CREATE TRIGGER t1 BEFORE INSERT ON strict FOR EACH ROW SET @nothing = 1",
        )
        .await;
    let plain = |table: &str| request(table, &[("id", "i64"), ("name", "text")], &["id"]);
    for (wanted, want) in [
        (plain("good"), &[][..]),
        (TableRequest { columns: Vec::new(), key: Vec::new(), ..plain("good") }, &[]),
        (plain("absent"), &["live/no-table absent - !"]),
        (plain("Good"), &["live/no-table Good - !"]),
        (plain("seen"), &["live/not-a-table seen - !"]),
        (plain("keyless"), &["live/key keyless - !"]),
        (
            request("part", &[("id", "i64"), ("name", "varchar(50)")], &["name"]),
            &["live/key part - !", "live/key-equality part name !"],
        ),
        (request("second", &[("id", "i64"), ("code", "i64")], &["code"]), &[]),
        (request("second", &[("id", "i64"), ("code", "i64")], &["code", "id"]), &["live/key second - !"]),
        (request("blanks", &[("id", "varchar(9)")], &["id"]), &["live/key-equality blanks id !"]),
        (request("blanks", &[("id", "varchar(9)"), ("at", "timestamp")], &["at"]), &["live/precision blanks at !"]),
        (request("blanks", &[("id", "varchar(9)"), ("e", "text")], &["e"]), &[]),
        (request("blanks", &[("id", "varchar(9)"), ("vb", "binary")], &["vb"]), &[]),
        (plain("light"), &["live/engine light - !"]),
        (plain("parts"), &["live/partitioned parts - ~"]),
        (
            request(
                "strict",
                &[
                    ("id", "i64"),
                    ("nam", "text"),
                    ("g", "i32"),
                    ("iv", "text"),
                    ("ts", "timestamp"),
                    ("small", "i64"),
                    ("f", "decimal"),
                    ("fd", "f32"),
                    ("d", "f64"),
                ],
                &["id"],
            ),
            &[
                "live/no-column strict nam !",
                "live/generated strict g !",
                "live/column-required strict must ~",
                "live/column-name strict odd name ~",
                "live/column-type strict iv !",
                "live/precision strict ts ~",
                "live/narrower strict small ~",
                "live/lossy strict f !",
                "live/precision strict fd ~",
                "live/on-update strict changed ~",
                "live/trigger strict - ~",
            ],
        ),
    ] {
        let findings = store.inspect(std::slice::from_ref(&wanted)).await.expect("inspect");
        assert!(findings.iter().all(|f| !f.found.is_empty() && !f.allowed.is_empty()), "{findings:?}");
        // The server's own settings are another test's.
        let of_table: Vec<_> = findings.into_iter().filter(|f| !f.table.is_empty()).collect();
        assert_eq!(lines(&of_table), want, "{wanted:?}");
    }
    // The proposal runs.
    let findings =
        store.inspect(&[request("strict", &[("id", "i64"), ("nam", "decimal(9,1)")], &["id"])]).await.expect("inspect");
    let sql = findings.iter().find_map(|f| f.sql.clone()).expect("ALTER TABLE");
    place.client(&sql);
    let described = store.describe(&[request("strict", &[("nam", "decimal(9,1)")], &["id"])]).await.expect("describe");
    assert!(matches!(&described[0], Described::Present(s) if s.column("nam").is_some()));
}

/// V8: permissions, before and while a route runs; those of a role count.
pub async fn trap13_mariadb_privileges(place: &MySqlPlace) {
    let (owner, mut now) = attached(place).await;
    let database = &place.options.db_name;
    let (user, role) = (format!("reader_{database}"), format!("role_{database}"));
    let users = super::made(place, &*owner, &super::USERS).await;
    place
        .dba(&format!(
            "CREATE USER {user}@'%'; CREATE ROLE {role}; GRANT SELECT, UPDATE ON {database}.users TO {role}; \
             GRANT {role} TO {user}@'%'; SET DEFAULT ROLE {role} FOR {user}@'%'; \
             GRANT ALL ON {database}.gravity_checkpoints TO {user}@'%'; GRANT SELECT ON {database}.gravity_views TO {user}@'%'"
        ))
        .await;
    let store = place.store_with(|o| (o.user, o.password) = (user.clone(), String::new()));
    store.open().await.expect("both bookkeeping tables are there");
    let wanted = request("users", &[("id", "i64"), ("name", "text")], &["id"]);
    let findings = store.inspect(std::slice::from_ref(&wanted)).await.expect("inspect");
    let want = [
        "live/privilege users id !",
        "live/privilege users name !",
        "live/privilege users - ~",
        "live/bookkeeping gravity_views - !",
    ];
    let of_table: Vec<_> = findings.into_iter().filter(|f| !f.table.is_empty()).collect();
    assert_eq!(lines(&of_table), want);
    let changes =
        super::batch(&users, gravity_model::RowOp::Upsert, &["name"], vec![vec![super::int(1), super::text("x")]]);
    let fault = super::write(&*store, &mut now, &changes).await.expect_err("not allowed");
    assert_eq!((fault.kind, &*fault.code), (gravity_model::FaultKind::Misconfigured, "1142"), "{fault}");
    place.dba("DROP TABLE gravity_views").await;
    assert_eq!(kind(store.open().await), gravity_model::FaultKind::Misconfigured, "may not create");
    place.dba(&format!("DROP ROLE {role}; DROP USER {user}@'%'")).await;
}
