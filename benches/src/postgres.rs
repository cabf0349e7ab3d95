//! `bench postgres`: keyed upsert through the view port, checkpoint included, against COPY of the same rows into the same table.

use std::fmt::Write as _;

use gravity_connectors::postgres::{PostgresOptions, PostgresViews, TlsMode};
use gravity_model::port::view::ViewStore;
use gravity_model::{ChangeBatch, Fault};
use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::e2e::table::{self, Place, wrong};
use crate::figures::{Samples, machine};
use crate::views::{self, BATCH, rate, upsert_all};
use crate::workload::Row;

const DATABASE: &str = "bench_postgres";

#[derive(clap::Args)]
pub struct PostgresBench {
    /// postgres://USER[:PASSWORD]@HOST:PORT/DATABASE of an account that may create databases
    #[arg(long, env = "GRAVITY_TEST_POSTGRES", hide_env_values = true)]
    dsn: String,
    /// Rows per round, each with a key of its own, in no order
    #[arg(long, default_value_t = 200_000)]
    rows: usize,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

impl PostgresBench {
    pub async fn run(self) -> Result<(), String> {
        println!("{}", machine(&std::env::temp_dir()));
        let server = Place::parse(&self.dsn)?;
        println!("{}", table::settings(&server).await?);
        println!("workload: {} rows of G-1 with distinct keys, transactions of {BATCH}, key and one index", self.rows);
        let place = server.with_database(DATABASE);
        table::create(&server, &place).await?;
        let measured = self.measure(&place).await;
        table::drop_database(&server, &place).await?;
        measured
    }

    async fn measure(&self, place: &Place) -> Result<(), String> {
        let rows = views::rows(self.rows);
        let fault = |fault: Fault| fault.to_string();
        let options = PostgresOptions {
            user: place.user.clone(),
            password: place.password.clone(),
            tls: TlsMode::Off,
            ..PostgresOptions::new(&place.host, place.port, &place.database)
        };
        let store = PostgresViews::new(options).map_err(fault)?;
        let mut checkpoint = views::attach(&store).await?;
        let shape = views::shape(&store).await?;
        let batches: Vec<ChangeBatch> = rows.chunks(BATCH).map(|rows| views::batch(&shape, rows)).collect();
        let texts: Vec<String> = rows.chunks(BATCH).map(copy_text).collect();
        let mut connection = table::connect(place).await?;
        let (mut upsert, mut copy, mut update, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            empty(&mut connection).await?;
            let copied = rate(rows.len(), copy_all(&mut connection, &texts)).await?;
            empty(&mut connection).await?;
            let written = rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?;
            // Once more: now every key is there.
            update.push(rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?);
            copy.push(copied);
            upsert.push(written);
            ratios.push(written / copied);
        }
        store.close().await;
        let ratio = Samples::of(ratios);
        println!("upsert of new keys through the view port: {} rows/s", Samples::of(upsert).show(0));
        println!("the same again, keys known: {} rows/s", Samples::of(update).show(0));
        println!("COPY into the same table: {} rows/s", Samples::of(copy).show(0));
        println!("ratio of new keys to COPY, round by round: {}", ratio.show(2));
        println!("{}", json!({"bench": "postgres", "ratio": ratio.median()}));
        Ok(())
    }
}

async fn empty(connection: &mut PgConnection) -> Result<(), String> {
    connection.execute("TRUNCATE orders").await.map_err(wrong)?;
    connection.execute("CHECKPOINT").await.map_err(wrong).map(drop)
}

async fn copy_all(connection: &mut PgConnection, texts: &[String]) -> Result<(), String> {
    for text in texts {
        let mut transaction = connection.begin().await.map_err(wrong)?;
        let mut copy = transaction.copy_in_raw("COPY orders FROM STDIN").await.map_err(wrong)?;
        copy.send(text.as_bytes()).await.map_err(wrong)?;
        copy.finish().await.map_err(wrong)?;
        transaction.commit().await.map_err(wrong)?;
    }
    Ok(())
}

/// COPY's text format; no value of the workload needs an escape. Sorted as well, so that both sides fill the index alike.
fn copy_text(rows: &[(i64, Row)]) -> String {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let mut out = String::new();
    for (id, row) in sorted {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "\\N".to_owned());
        let placed = crate::workload::rfc3339(row.placed_at.unwrap_or_default());
        let details = row.details.as_ref().map_or_else(|| "\\N".to_owned(), serde_json::Value::to_string);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{id}\t{}\t{}\t{}\t{}\t{placed}\t{}\t{details}\t{}",
            text(&row.customer),
            text(&row.status),
            text(&row.note),
            text(&row.amount),
            row.express.unwrap_or_default(),
            row.quantity.unwrap_or_default()
        );
    }
    out
}
