//! `bench mariadb`: keyed upsert through the view port, checkpoint included, against LOAD DATA of the same rows into the same
//! table; and what a second unique key costs.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use gravity_connectors::mysql::{MySqlOptions, MySqlViews, TlsMode};
use gravity_model::ChangeBatch;
use gravity_model::port::view::ViewStore;
use serde_json::json;

use crate::e2e::table::Place;
use crate::figures::{Samples, machine};
use crate::views::{self, BATCH, rate, upsert_all};
use crate::workload::Row;

const DATABASE: &str = "bench_mariadb";
const TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer varchar(60), status text, note text, amount decimal(12,2), \
     placed_at datetime(6), express tinyint(1), details longtext, quantity int, KEY orders_customer (customer)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";

#[derive(clap::Args)]
pub struct MariaDbBench {
    /// mysql://USER[:PASSWORD]@HOST:PORT/ of an account that may create databases
    #[arg(long, env = "GRAVITY_TEST_MARIADB", hide_env_values = true)]
    dsn: String,
    /// Rows per round, each with a key of its own, in no order
    #[arg(long, default_value_t = 200_000)]
    rows: usize,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// The server's own client, which alone can send a file to LOAD DATA.
struct Client(Place);

impl Client {
    fn run(&self, database: &str, sql: &str) -> Result<String, String> {
        let place = &self.0;
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=tcp", "--local-infile=1"]);
        command.args(["-h", &place.host, "-P", &place.port.to_string(), "-u", &place.user]);
        command.arg(format!("--password={}", place.password)).args(["-e", sql]).arg(database).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("the command mariadb: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl MariaDbBench {
    pub async fn run(self) -> Result<(), String> {
        println!("{}", machine(&std::env::temp_dir()));
        let client = Client(Place::parse(&self.dsn)?);
        let settings = "SELECT CONCAT(version(), ', flush at commit ', @@innodb_flush_log_at_trx_commit, ', redo ', \
                        @@innodb_log_file_size DIV 1048576, ' MiB, pool ', @@innodb_buffer_pool_size DIV 1048576, ' MiB')";
        println!("MariaDB: {}", client.run("mysql", settings)?);
        println!("workload: {} rows of G-1 with distinct keys, transactions of {BATCH}, key and one index", self.rows);
        client.run("mysql", &format!("DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}"))?;
        let measured = self.measure(&client).await;
        client.run("mysql", &format!("DROP DATABASE {DATABASE}"))?;
        measured
    }

    async fn measure(&self, client: &Client) -> Result<(), String> {
        client.run(DATABASE, TABLE)?;
        let rows = views::rows(self.rows);
        let place = &client.0;
        let options = MySqlOptions {
            user: place.user.clone(),
            password: place.password.clone(),
            tls: TlsMode::Off,
            ..MySqlOptions::new(&place.host, place.port, DATABASE)
        };
        let store = MySqlViews::new(options);
        let mut checkpoint = views::attach(&store).await?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let load = load_script(folder.path(), &rows)?;
        let only = views::shape(&store).await?;
        client.run(DATABASE, "ALTER TABLE orders ADD UNIQUE second (id, customer)")?;
        let second = views::shape(&store).await?;
        let of = |shape| rows.chunks(BATCH).map(|rows| views::batch(shape, rows)).collect::<Vec<ChangeBatch>>();
        let (one_key, two_keys) = (of(&only), of(&second));
        let (mut limit, mut new, mut known, mut new_two, mut known_two, mut ratios) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            client.run(DATABASE, "TRUNCATE orders; ALTER TABLE orders DROP KEY IF EXISTS second")?;
            let loaded = rate(rows.len(), async { client.run(DATABASE, &load).map(drop) }).await?;
            client.run(DATABASE, "TRUNCATE orders")?;
            let written = rate(rows.len(), upsert_all(&store, &one_key, &mut checkpoint)).await?;
            known.push(rate(rows.len(), upsert_all(&store, &one_key, &mut checkpoint)).await?);
            client.run(DATABASE, "TRUNCATE orders; ALTER TABLE orders ADD UNIQUE second (id, customer)")?;
            new_two.push(rate(rows.len(), upsert_all(&store, &two_keys, &mut checkpoint)).await?);
            known_two.push(rate(rows.len(), upsert_all(&store, &two_keys, &mut checkpoint)).await?);
            limit.push(loaded);
            new.push(written);
            ratios.push(written / loaded);
        }
        store.close().await;
        let ratio = Samples::of(ratios);
        println!("upsert of new keys through the view port: {} rows/s", Samples::of(new).show(0));
        println!("the same again, keys known: {} rows/s", Samples::of(known).show(0));
        println!("new keys beside a second unique key: {} rows/s", Samples::of(new_two).show(0));
        println!("the same again, keys known: {} rows/s", Samples::of(known_two).show(0));
        println!("LOAD DATA into the same table: {} rows/s", Samples::of(limit).show(0));
        println!("ratio of new keys to LOAD DATA, round by round: {}", ratio.show(2));
        println!("{}", json!({"bench": "mariadb", "ratio": ratio.median()}));
        Ok(())
    }
}

/// One file and one transaction per batch, sorted as well, so that both sides fill the index alike.
fn load_script(folder: &std::path::Path, rows: &[(i64, Row)]) -> Result<String, String> {
    let mut script = "SET NAMES utf8mb4; SET time_zone = '+00:00'; ".to_owned();
    for (number, rows) in rows.chunks(BATCH).enumerate() {
        let path = folder.join(format!("{number}.tsv"));
        std::fs::write(&path, load_text(rows)).map_err(|error| error.to_string())?;
        let load = format!(
            "BEGIN; LOAD DATA LOCAL INFILE '{}' INTO TABLE orders CHARACTER SET utf8mb4; COMMIT; ",
            path.display()
        );
        script.push_str(&load);
    }
    Ok(script)
}

/// LOAD DATA's default format; backslashes of JSON are the only bytes of the workload that need an escape.
fn load_text(rows: &[(i64, Row)]) -> String {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let mut out = String::new();
    for (id, row) in sorted {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "\\N".to_owned());
        let placed = crate::workload::rfc3339(row.placed_at.unwrap_or_default()).replace('T', " ").replace('Z', "");
        let details = row.details.as_ref().map_or_else(|| "\\N".to_owned(), |d| d.to_string().replace('\\', "\\\\"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{id}\t{}\t{}\t{}\t{}\t{placed}\t{}\t{details}\t{}",
            text(&row.customer),
            text(&row.status),
            text(&row.note),
            text(&row.amount),
            u8::from(row.express.unwrap_or_default()),
            row.quantity.unwrap_or_default()
        );
    }
    out
}
