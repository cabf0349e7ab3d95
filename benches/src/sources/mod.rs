//! `bench sources`: how fast each broker's messages come into the durable log, against a bare client of the same broker that
//! acknowledges each message, and one that acknowledges nothing.

mod intake;
mod kafka;
mod nats;
mod rabbitmq;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;

use crate::figures::{Samples, machine};

/// Longest wait for the next message.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of each message.
const MESSAGE_BYTES: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Broker {
    Kafka,
    JetStream,
    RabbitmqClassic,
    RabbitmqQuorum,
}

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Broker::Kafka => "Kafka, four partitions",
            Broker::JetStream => "JetStream, file storage",
            Broker::RabbitmqClassic => "RabbitMQ, classic queue",
            Broker::RabbitmqQuorum => "RabbitMQ, quorum queue",
        }
    }
}

#[derive(clap::Args)]
pub struct SourcesBench {
    /// Which brokers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Broker::Kafka, Broker::JetStream, Broker::RabbitmqClassic, Broker::RabbitmqQuorum])]
    brokers: Vec<Broker>,
    /// HOST:PORT of Kafka
    #[arg(long, env = "GRAVITY_TEST_KAFKA")]
    kafka: Option<String>,
    /// HOST:PORT of NATS
    #[arg(long, env = "GRAVITY_TEST_NATS")]
    nats: Option<String>,
    /// HOST:PORT of RabbitMQ, signed in to as guest
    #[arg(long, env = "GRAVITY_TEST_RABBITMQ")]
    rabbitmq: Option<String>,
    /// Messages of 500 bytes per round
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// One broker in one round, messages/s. Each was measured on messages of its own.
struct Round {
    into_log: f64,
    /// `None` where the protocol acknowledges positions only.
    ack_each: Option<f64>,
    /// What the broker and a bare client can do at most.
    no_ack: f64,
}

impl SourcesBench {
    pub async fn run(self) -> Result<(), String> {
        println!("{}", machine(&std::env::temp_dir()));
        println!("workload: {} messages of {MESSAGE_BYTES} bytes, published before they are read", self.messages);
        let mut rounds: Vec<Vec<Round>> = self.brokers.iter().map(|_| Vec::new()).collect();
        for number in 1..=self.rounds {
            for (which, broker) in self.brokers.iter().enumerate() {
                let name = format!("bench-{}-{number}", std::process::id());
                rounds[which]
                    .push(self.round(*broker, &name).await.map_err(|why| format!("{}: {why}", broker.name()))?);
            }
        }
        let mut lines = Vec::new();
        for (broker, rounds) in self.brokers.iter().zip(&rounds) {
            lines.push(report(*broker, rounds));
        }
        println!("{}", json!({"bench": "sources", "brokers": lines}));
        Ok(())
    }

    async fn round(&self, broker: Broker, name: &str) -> Result<Round, String> {
        let place = |place: &Option<String>, variable: &str| {
            place.clone().ok_or_else(|| format!("no address; {variable} is not set"))
        };
        match broker {
            Broker::Kafka => kafka::round(&place(&self.kafka, "GRAVITY_TEST_KAFKA")?, name, self.messages).await,
            Broker::JetStream => nats::round(&place(&self.nats, "GRAVITY_TEST_NATS")?, name, self.messages).await,
            Broker::RabbitmqClassic | Broker::RabbitmqQuorum => {
                let kind = if broker == Broker::RabbitmqClassic { "classic" } else { "quorum" };
                rabbitmq::round(&place(&self.rabbitmq, "GRAVITY_TEST_RABBITMQ")?, name, kind, self.messages).await
            }
        }
    }
}

fn report(broker: Broker, rounds: &[Round]) -> serde_json::Value {
    let of = |value: &dyn Fn(&Round) -> Option<f64>| Samples::of(rounds.iter().filter_map(value).collect());
    let to_each = of(&|r| r.ack_each.map(|each| r.into_log / each));
    let to_none = of(&|r| Some(r.into_log / r.no_ack));
    println!("{}", broker.name());
    println!("  into the durable log, acknowledged: {} messages/s", of(&|r| Some(r.into_log)).show(0));
    println!(
        "  a bare client that acknowledges nothing: {} messages/s; ratio {}",
        of(&|r| Some(r.no_ack)).show(0),
        to_none.show(2)
    );
    let each = of(&|r| r.ack_each);
    if each.median().is_nan() {
        println!("  acknowledging each message: not in this protocol");
        return json!({"broker": broker.name(), "to_no_ack": to_none.median()});
    }
    println!("  a bare client that acknowledges each: {} messages/s; ratio {}", each.show(0), to_each.show(2));
    json!({"broker": broker.name(), "to_no_ack": to_none.median(), "to_ack_each": to_each.median()})
}

/// Message number `index`: an event in Gravity's own form, padded.
fn message(index: u64) -> Vec<u8> {
    let head = format!(r#"{{"event":"orderPlaced","payload":{{"id":{index},"note":""#);
    let pad = MESSAGE_BYTES.saturating_sub(head.len() + 3);
    format!(r#"{head}{}"}}}}"#, "x".repeat(pad)).into_bytes()
}

/// Time from the first messages seen to the last.
struct Pace {
    messages: u64,
    began: Option<(Instant, u64)>,
}

impl Pace {
    fn new(messages: u64) -> Pace {
        Pace { messages, began: None }
    }

    /// `count` messages are there by now; the rate once that is all of them.
    fn at(&mut self, count: u64) -> Option<f64> {
        let (began, before) = match self.began {
            Some(began) => began,
            None if count == 0 => return None,
            None => *self.began.insert((Instant::now(), count)),
        };
        (count >= self.messages).then(|| (self.messages - before) as f64 / began.elapsed().as_secs_f64())
    }
}
