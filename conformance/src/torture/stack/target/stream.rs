//! Streams of a run on JetStream, and all messages of one.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::Config;
use futures::StreamExt;

use super::{Received, read};
use crate::torture::stack::arms::{Peers, Server};
use crate::torture::stack::config::Layout;

/// For one answer of the server.
const LIMIT: Duration = Duration::from_secs(10);

/// A client of the gate's own. The error says that the server is not there (yet).
pub async fn connect(hosts: &str) -> Result<Context, String> {
    let options = async_nats::ConnectOptions::new().connection_timeout(Duration::from_secs(2));
    let client = options.connect(hosts).await.map_err(|error| format!("NATS: {error}"))?;
    Ok(ContextBuilder::new().timeout(LIMIT).max_ack_inflight(20_000).build(client))
}

/// Makes streams that keep their messages.
pub async fn create(peers: &Peers, names: &[&str]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let context = connect(peers.at(Server::Nats)?).await?;
    for name in names {
        let subjects = vec![Layout::subject(name)];
        let config = Config { name: (*name).to_owned(), subjects, ..Config::default() };
        context.create_stream(config).await.map_err(|error| format!("creating stream {name}: {error}"))?;
    }
    Ok(())
}

/// Left-overs cost disk only.
pub async fn delete(peers: &Peers, names: &[&str]) {
    if names.is_empty() {
        return;
    }
    let Ok(hosts) = peers.at(Server::Nats) else { return };
    if let Ok(context) = connect(hosts).await {
        for name in names {
            let _ = context.delete_stream(name).await;
        }
    }
}

/// The whole stream, in its order.
pub async fn read_all(hosts: &str, name: &str) -> Result<Received, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("reading stream {name}: {error}");
    let context = connect(hosts).await?;
    let stream = context.get_stream(name).await.map_err(|error| wrong(&error))?;
    let count = stream.cached_info().state.messages;
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| wrong(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| wrong(&error))?;
    let mut received = Received::default();
    for done in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
        let message = match next {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(wrong(&error)),
            Ok(None) | Err(_) => return Err(wrong(&format!("no message for 30 s after {done} of {count}"))),
        };
        let header = |name: &str| {
            // The id of an exporter's message is the stream's own word for it.
            let name = if name == "id" { "Nats-Msg-Id".to_owned() } else { format!("ce-{name}") };
            message.headers.as_ref()?.get(name.as_str()).map(|value| value.as_str().to_owned())
        };
        received.take(read(header, &message.payload));
    }
    Ok(received)
}
