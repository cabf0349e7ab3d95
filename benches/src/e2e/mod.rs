//! Kafka to PostgreSQL on workload G-1: takes a command, a topic and a DSN, and knows no system.

mod g1_config;
mod latency;
mod report;
pub mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

pub use g1_config::G1Config;

use self::report::Round;
use self::table::Place;
use crate::figures::machine;
use crate::process::{System, Usage};
use crate::random::KeyLaw;
use crate::topic::{self, Feed, PARTITIONS};
use crate::workload::{Oracle, Workload};

/// How often the drain is asked whether it is done: the error of its time.
const POLL: Duration = Duration::from_millis(10);
/// After the end marks are there, a system that writes out of order gets this long to become right.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct E2e {
    /// Shell command of the system under test; {brokers} {topic} {dsn} {host} {port} {user} {password} {database} {dir}
    /// are replaced, {dir} is a fresh directory for its data
    #[arg(long)]
    command: String,
    /// Stem of the topics' and databases' names: one of each per round, dropped afterwards
    #[arg(long, default_value = "g1-orders")]
    topic: String,
    /// postgres://USER[:PASSWORD]@HOST:PORT/DATABASE of an account that may create databases
    #[arg(long, env = "GRAVITY_TEST_POSTGRES", hide_env_values = true)]
    dsn: String,
    /// HOST:PORT of Kafka
    #[arg(long, env = "GRAVITY_TEST_KAFKA")]
    brokers: String,
    /// Key laws, interleaved round by round
    #[arg(long = "keys", value_delimiter = ',', default_values = ["uniform", "zipf"])]
    laws: Vec<KeyLaw>,
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Distinct keys
    #[arg(long, default_value_t = 100_000)]
    distinct: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compression of the topic's messages: none, lz4, zstd …
    #[arg(long, default_value = "none")]
    compression: String,
    /// Events a second in the open loop
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Length of the open loop; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Longest drain before a round is given up, in seconds
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// Where the rounds' directories are made (and its disk is measured); default: the system's temporary directory
    #[arg(long)]
    directory: Option<PathBuf>,
}

impl E2e {
    pub async fn run(self) -> Result<(), String> {
        let server = Place::parse(&self.dsn)?;
        let directory = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        println!("{}", machine(&directory));
        println!("{}", table::settings(&server).await?);
        println!(
            "Kafka: librdkafka {}, {PARTITIONS} partitions, compression {}",
            rdkafka::util::get_rdkafka_version().1,
            self.compression
        );
        println!(
            "workload: {} events over {} keys, seed {}, open loop {} events/s for {} s\ncommand: {}\n",
            self.events, self.distinct, self.seed, self.rate, self.seconds, self.command
        );
        let mut rounds = Vec::new();
        for number in 1..=self.rounds {
            for law in &self.laws {
                let round = self.round(&server, &directory, *law, number).await?;
                println!("{}", round.line());
                rounds.push(round);
            }
        }
        report::summary(&self.laws, &rounds)
    }

    /// One round in a topic, a database and a directory of its own, all gone afterwards.
    async fn round(&self, server: &Place, directory: &Path, law: KeyLaw, number: u32) -> Result<Round, String> {
        let name = format!("{}-{}-{number}", self.topic, law.name());
        let place = server.with_database(&name.replace('-', "_"));
        let work = tempfile::Builder::new().prefix("bench-e2e-").tempdir_in(directory).map_err(|e| e.to_string())?;
        topic::delete(&self.brokers, &name).await;
        table::create(server, &place).await?;
        // A topic that was just deleted may take the broker a moment.
        let mut made = topic::create(&self.brokers, &name).await;
        for _ in 0..20 {
            if made.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            made = topic::create(&self.brokers, &name).await;
        }
        made?;
        let round = self.measure(&name, &place, work.path(), law, number).await.map_err(|why| {
            let log = std::fs::read_to_string(work.path().join("command.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("round {name}: {why}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
        });
        topic::delete(&self.brokers, &name).await;
        table::drop_database(server, &place).await?;
        round
    }

    async fn measure(
        &self,
        topic: &str,
        place: &Place,
        work: &Path,
        law: KeyLaw,
        number: u32,
    ) -> Result<Round, String> {
        let mut oracle = Oracle::default();
        let mut workload = Workload::new(self.seed + u64::from(number), law, self.distinct);
        let marks: Vec<i64> = (0..i64::from(PARTITIONS)).map(|p| self.distinct as i64 + 1 + p).collect();
        let bytes = self.fill(topic, &mut workload, &mut oracle, &marks)?;
        table::checkpoint(place).await?;
        let mut connection = table::connect(place).await?;
        let mut system = System::start(&self.fill_in(topic, place, work), &work.join("command.log"))?;
        let drain = self.drain(&mut system, &mut connection, &oracle, &marks).await?;
        let mut round = Round {
            law: law.name(),
            number,
            events: self.events + marks.len() as u64,
            bytes,
            drain,
            visible: None,
            differences: 0,
        };
        round.differences = round.drain.difference.count;
        if self.seconds > 0 && round.differences == 0 {
            round.visible = Some(self.open_loop(topic, place, &mut workload, &mut oracle).await?);
            round.differences = self.settle(&mut connection, &oracle).await?.0.count;
        }
        system.check()?;
        round.drain.peak_bytes_after = system.usage().peak_bytes;
        system.stop(Duration::from_secs(30))?;
        Ok(round)
    }

    /// Produces the events of the drain, then one mark at the end of each partition. Returns the payload bytes.
    fn fill(&self, topic: &str, workload: &mut Workload, oracle: &mut Oracle, marks: &[i64]) -> Result<u64, String> {
        let mut feed = Feed::new(&self.brokers, topic, &self.compression, Duration::from_millis(20))?;
        let mut bytes = 0;
        for _ in 0..self.events {
            let order = workload.next();
            bytes += feed.send(&order, None)? as u64;
            oracle.take(order);
        }
        // Marks go behind everything else of their partition.
        feed.flush()?;
        for (partition, id) in marks.iter().enumerate() {
            let order = workload.mark(*id);
            feed.send(&order, Some(partition as i32))?;
            oracle.take(order);
        }
        feed.flush()?;
        Ok(bytes)
    }

    fn fill_in(&self, topic: &str, place: &Place, work: &Path) -> String {
        let port = place.port.to_string();
        let directory = work.display().to_string();
        let words = [
            ("{brokers}", self.brokers.as_str()),
            ("{topic}", topic),
            ("{dsn}", &place.dsn),
            ("{host}", &place.host),
            ("{port}", &port),
            ("{user}", &place.user),
            ("{password}", &place.password),
            ("{database}", &place.database),
            ("{dir}", &directory),
        ];
        words.iter().fold(self.command.clone(), |command, (name, value)| command.replace(name, value))
    }

    async fn drain(
        &self,
        system: &mut System,
        connection: &mut PgConnection,
        oracle: &Oracle,
        marks: &[i64],
    ) -> Result<Drain, String> {
        let mut first = None;
        loop {
            tokio::time::sleep(POLL).await;
            system.check()?;
            if first.is_none() && table::has_rows(connection).await? {
                first = Some(Instant::now());
            }
            if first.is_some() && table::present(connection, marks).await? == marks.len() as i64 {
                break;
            }
            if system.started.elapsed() > Duration::from_secs(self.patience) {
                return Err(format!("not drained after {} s", self.patience));
            }
        }
        let marked = Instant::now();
        let usage = system.usage();
        let (difference, late) = self.settle(connection, oracle).await?;
        let end = late.unwrap_or(marked);
        Ok(Drain {
            cold: end - system.started,
            warm: end - first.unwrap_or(end),
            usage,
            peak_bytes_after: 0,
            late: late.is_some(),
            difference,
        })
    }

    /// Compares until the table is right. The time is set when it was not right at the first look.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        oracle: &Oracle,
    ) -> Result<(table::Difference, Option<Instant>), String> {
        let started = Instant::now();
        let mut late = None;
        loop {
            let difference = table::compare(connection, oracle).await?;
            if difference.count == 0 || started.elapsed() > SETTLE {
                return Ok((difference, late));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            late = Some(Instant::now());
        }
    }

    async fn open_loop(
        &self,
        topic: &str,
        place: &Place,
        workload: &mut Workload,
        oracle: &mut Oracle,
    ) -> Result<latency::Visible, String> {
        let mut feed = Feed::new(&self.brokers, topic, &self.compression, Duration::ZERO)?;
        let mut connection = table::connect(place).await?;
        let (out, seen) = latency::channel();
        let pace = (self.rate, self.seconds);
        let (published, watched) = std::thread::scope(|scope| {
            let publisher = scope.spawn(move || {
                let published = latency::publish(&mut feed, workload, oracle, pace, &out);
                drop(out);
                published
            });
            let watched = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(latency::watch(&mut connection, seen))
            });
            (publisher.join().unwrap_or_else(|_| Err("the publisher panicked".to_owned())), watched)
        });
        published?;
        watched
    }
}

/// The first phase of a round.
pub struct Drain {
    /// From the start of the command, and from the first visible row, to the table being right.
    pub cold: Duration,
    pub warm: Duration,
    /// At the moment at which the last end mark was seen.
    pub usage: Usage,
    /// After the open loop.
    pub peak_bytes_after: u64,
    /// Right only some time after the end marks were there.
    pub late: bool,
    pub difference: table::Difference,
}
