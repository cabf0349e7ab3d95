//! The ways in: one place of its own on each kind of source, published to by a client that nobody here wrote.

use std::io::Write;

use serde_json::{Value, json};

use super::broker::create_topic;
use super::server::unique;
use super::tools::{Nats, amqp_declare_queue, amqp_publish, curl, kcat_publish};
use super::{kafka, nats, rabbitmq};

/// A topic, a stream, a queue, or the engine's own endpoint.
pub enum Door {
    Kafka { hosts: String, topic: String },
    Nats { client: Nats, stream: String },
    RabbitMq { address: String, queue: String },
    Http,
}

impl Door {
    /// With `kcat`. `None`, like those below, after saying what is missing.
    pub fn kafka() -> Option<Door> {
        let (hosts, topic) = (kafka()?, unique("door"));
        create_topic(&hosts, &topic, 1, &[]);
        Some(Door::Kafka { hosts, topic })
    }

    /// With `nats`, into a stream that keeps what it gets.
    pub fn nats() -> Option<Door> {
        let (client, stream) = (Nats::find(&nats()?)?, unique("door"));
        client.add_stream(&stream);
        Some(Door::Nats { client, stream })
    }

    /// With `amqp-publish`, which gives messages no id.
    pub fn rabbitmq() -> Option<Door> {
        let (address, queue) = (rabbitmq()?, unique("door"));
        amqp_declare_queue(&address, &queue);
        Some(Door::RabbitMq { address, queue })
    }

    /// With `curl`.
    pub fn http() -> Option<Door> {
        Some(Door::Http)
    }

    /// Its entry in sources.json.
    pub fn source(&self) -> Value {
        match self {
            Door::Kafka { hosts, topic } => {
                json!({"type": "kafka", "hosts": [hosts], "topics": [topic], "group": topic})
            }
            Door::Nats { client, stream } => {
                json!({"type": "nats", "hosts": [client.server], "stream": stream, "subjects": [format!("{stream}.>")]})
            }
            Door::RabbitMq { address, queue } => {
                let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
                json!({"type": "rabbitmq", "host": host, "port": port.parse::<u16>().expect("a port"), "queues": [queue]})
            }
            Door::Http => json!({"type": "http"}),
        }
    }

    /// A broker keeps what is published while the engine is away.
    pub fn keeps(&self) -> bool {
        !matches!(self, Door::Http)
    }

    /// Publishes one message; ready when whoever takes it has it. Only Kafka has keys and null values: elsewhere there is no
    /// key, and an empty message stands for null.
    #[track_caller]
    pub fn publish(&self, engine: &str, key: Option<&str>, headers: &[(&str, &str)], value: Option<&str>) {
        let body = value.unwrap_or_default();
        match self {
            Door::Kafka { hosts, topic } => {
                let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                kcat_publish(hosts, topic, key, &headers, value.map(str::as_bytes));
            }
            Door::Nats { client, stream } => client.publish(&format!("{stream}.all"), headers, body),
            Door::RabbitMq { address, queue } => amqp_publish(address, queue, headers, body),
            Door::Http => {
                let mut file = tempfile::NamedTempFile::new().expect("a file");
                file.write_all(body.as_bytes()).expect("written");
                let (to, data) = (format!("{engine}/v1/events"), format!("@{}", file.path().display()));
                let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let mut args = vec!["-H", "content-type: application/json", "--data-binary", &data];
                args.extend(headers.iter().flat_map(|header| ["-H", header]));
                args.push(&to);
                let (status, answer) = curl(&args);
                assert_eq!(status, 200, "{answer}");
            }
        }
    }
}
