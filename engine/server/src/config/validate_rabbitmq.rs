//! What the shape of a RabbitMQ entry cannot say: how many messages may be under way, and where a message is routed.

use super::codes;
use super::exporter::RabbitMqExporterKeys;
use super::load::Checking;
use super::source::{RabbitMqSourceKeys, StartWord};
use super::validate::{credentials, host, list, transport};

/// Beyond this a queue that is full of large messages would fill the memory.
const MOST_PREFETCH: u16 = 10_000;
/// AMQP's short strings, in bytes.
const LONGEST: usize = 255;

/// A `rabbitmq` entry of sources.json.
pub fn source(keys: &RabbitMqSourceKeys, checking: &mut Checking<'_>) {
    host(&keys.host, checking);
    transport(&keys.transport, std::iter::once(keys.host.as_str()), checking);
    credentials(keys.username.as_deref(), keys.password.is_some(), checking);
    list("queues", &keys.queues, checking);
    for (index, queue) in keys.queues.iter().enumerate() {
        short(&format!("queues/{index}"), queue, checking);
    }
    short("virtualHost", keys.virtual_host.as_deref().unwrap_or_default(), checking);
    if keys.prefetch.is_some_and(|prefetch| !(1..=MOST_PREFETCH).contains(&prefetch)) {
        let message = format!("`prefetch` must be between 1 and {MOST_PREFETCH}");
        let hint = Some("0 would mean: no bound, so that a long queue fills the memory");
        checking.refuse(gravity_rules::codes::BAD_VALUE, "prefetch", message, hint);
    }
    if keys.intake.start == StartWord::Latest {
        let message = "a queue has no past to skip: what is in it has not been read yet";
        checking.refuse_key(codes::UNUSED_KEY, "start", message, Some("remove it; purge the queue at the broker"));
    }
}

/// A `rabbitmq` entry of exporter.json.
pub fn exporter(keys: &RabbitMqExporterKeys, checking: &mut Checking<'_>) {
    host(&keys.host, checking);
    credentials(keys.username.as_deref(), keys.password.is_some(), checking);
    transport(&keys.transport, std::iter::once(keys.host.as_str()), checking);
    short("virtualHost", keys.virtual_host.as_deref().unwrap_or_default(), checking);
    short("exchange", &keys.exchange, checking);
    short("routingKey", keys.routing_key.as_deref().unwrap_or_default(), checking);
    if keys.exchange.is_empty() && keys.routing_key.as_deref().is_none_or(str::is_empty) {
        let message = "the default exchange, an empty `exchange`, routes by the name of a queue: it needs `routingKey`";
        checking.refuse_key(gravity_rules::codes::MISSING_KEY, "exchange", message, Some("add `routingKey`"));
    }
}

fn short(key: &str, value: &str, checking: &mut Checking<'_>) {
    if value.len() > LONGEST {
        let message = format!("`{key}` has {} bytes, AMQP takes {LONGEST}", value.len());
        checking.refuse(gravity_rules::codes::BAD_VALUE, key, message, None);
    }
}
