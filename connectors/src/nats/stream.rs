//! Finds a stream and what it is, and makes the consumer through which it is read.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Info, RetentionPolicy, Stream};
use gravity_model::port::source::{PositionBook, Start};
use gravity_model::{Fault, FaultKind};

use super::config::NatsSourceOptions;
use super::connect::{ASK_LIMIT, Link, Version};
use super::error::{of_consumer, of_get_stream, of_request};
use super::positions::{Begin, Losses, Shown, resolve};
use super::subject::{covers, overlaps};
use crate::printable::printable;

/// The server forgets an ephemeral consumer that nobody has pulled from for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Several filters on one consumer.
const SEVERAL_FILTERS: Version = Version(2, 10);

/// A stream, its place in the log, and which of its messages are wanted.
pub(super) struct Found {
    pub stream: Stream<Info>,
    pub slot: Arc<str>,
    pub begin: Begin,
    pub last: u64,
    pub losses: Losses,
    pub retention: RetentionPolicy,
    /// Empty: all of them.
    pub filters: Vec<String>,
}

/// Looks the stream up and decides where to begin; refuses what cannot be read as asked.
pub(super) async fn find(
    link: &Link,
    source: &str,
    options: &NatsSourceOptions,
    (name, durable): (&str, Option<&str>),
    (book, start): (&dyn PositionBook, Start),
    begun: Option<(&str, u64)>,
) -> Result<Found, Fault> {
    let doing = || format!("open stream {name} for source {source}");
    let refuse = |code: &'static str, detail: String| Fault::new(FaultKind::Misconfigured, code, doing(), detail);
    if !link.info.jetstream {
        return Err(refuse("nats-no-jetstream", "the server runs without JetStream".to_owned()));
    }
    let context = ContextBuilder::new().timeout(ASK_LIMIT).build(link.client.clone());
    let stream = context.get_stream(name).await.map_err(|error| link.explain(of_get_stream(error, doing())))?;
    let info = stream.cached_info();
    let retention = info.config.retention;
    let queue = !matches!(retention, RetentionPolicy::Limits);
    match (queue, durable) {
        (true, None) => {
            let kind = if retention == RetentionPolicy::WorkQueue { "a work queue" } else { "kept by interest" };
            let detail = format!("stream {name} is {kind}: say \"durable\", the name of the consumer to read with");
            return Err(refuse("nats-durable-missing", detail));
        }
        (false, Some(durable)) => {
            let detail = format!(
                "stream {name} keeps its messages: it is read from the log's own position, \"durable\": {durable:?} has no \
                 meaning"
            );
            return Err(refuse("nats-durable-unused", detail));
        }
        _ => {}
    }
    let filters = filters(name, &info.config.subjects, &options.subjects).map_err(|d| refuse("nats-subjects", d))?;
    if filters.len() > 1 && link.version < SEVERAL_FILTERS {
        let detail = format!(
            "the server is nats-server {}: it knows one subject per consumer, and the {} given are not all of the stream's; \
             2.10 or newer takes several",
            printable(&link.info.version),
            filters.len()
        );
        return Err(refuse("nats-server-version", detail));
    }
    let losses = match retention {
        RetentionPolicy::Limits if info.config.max_messages_per_subject == 1 => Losses::Compaction,
        RetentionPolicy::Limits => Losses::Halt,
        RetentionPolicy::WorkQueue | RetentionPolicy::Interest => Losses::Acknowledged,
    };
    let shown = shown(info, losses);
    let name_in_log = super::positions::slot_name(shown.stream, shown.created);
    let begun = begun.filter(|(slot, _)| *slot == name_in_log).map(|(_, next)| next);
    let (slot, begin) = resolve(source, &book.positions(), shown, start, begun, options.accept)?;
    let last = shown.last;
    Ok(Found { slot, begin, last, losses, retention, filters, stream })
}

fn shown(info: &Info, losses: Losses) -> Shown<'_> {
    Shown {
        stream: &info.config.name,
        created: info.created.unix_timestamp_nanos(),
        first: first_of(info),
        last: info.state.last_sequence,
        losses,
    }
}

/// The lowest sequence that is left, one behind the last where nothing is: a stream whose newest messages were deleted one by
/// one does not always say so itself.
fn first_of(info: &Info) -> u64 {
    if info.state.messages == 0 { info.state.last_sequence + 1 } else { info.state.first_sequence }
}

/// The stream's present first and last sequence.
pub(super) async fn ends(link: &Link, stream: &Stream<Info>, doing: String) -> Result<(u64, u64), Fault> {
    let info = stream.get_info().await.map_err(|error| link.explain(of_request(error, doing)))?;
    Ok((first_of(&info), info.state.last_sequence))
}

/// Which filters a consumer needs: none where `wanted` takes in all that the stream has.
fn filters(stream: &str, has: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    // Mirrors and streams that gather others name no subjects of their own.
    if has.is_empty() {
        return Ok(if wanted.iter().any(|pattern| pattern == ">") { Vec::new() } else { wanted.to_vec() });
    }
    if let Some(stray) = wanted.iter().find(|pattern| !has.iter().any(|subject| overlaps(pattern, subject))) {
        let has = printable(&has.join(", "));
        return Err(format!("stream {stream} holds {has}: nothing of it matches {stray:?}"));
    }
    if has.iter().all(|subject| wanted.iter().any(|pattern| covers(pattern, subject))) {
        return Ok(Vec::new());
    }
    Ok(wanted.to_vec())
}

/// The consumer's filters in the two fields that the server has for them.
pub(super) fn set_filters(config: &mut pull::Config, filters: &[String]) {
    match filters {
        [] => {}
        [one] => config.filter_subject = one.clone(),
        several => config.filter_subjects = several.to_vec(),
    }
}

/// True when the server took the filters over: an old one leaves out what it does not know, and would send the whole stream.
pub(super) fn has_filters(config: &pull::Config, filters: &[String]) -> bool {
    let mut found = config.filter_subjects.clone();
    if !config.filter_subject.is_empty() {
        found.push(config.filter_subject.clone());
    }
    let mut wanted = filters.to_vec();
    found.sort();
    wanted.sort();
    found == wanted
}

/// A consumer for this connection alone: the server keeps nothing for us, the log does.
pub(super) async fn ephemeral(link: &Link, source: &str, found: &Found) -> Result<Consumer<pull::Config>, Fault> {
    let stream = &found.stream.cached_info().config.name;
    let doing = || format!("make a consumer on stream {stream} for source {source}");
    let mut config = pull::Config {
        name: Some(format!("gravity-{}", uuid::Uuid::new_v4().simple())),
        description: Some(format!("gravity source {source}")),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: found.begin.next },
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN_AFTER,
        num_replicas: 1,
        memory_storage: true,
        ..pull::Config::default()
    };
    set_filters(&mut config, &found.filters);
    let consumer =
        found.stream.create_consumer(config).await.map_err(|error| link.explain(of_consumer(error, doing())))?;
    check_filters(&consumer, &found.filters, doing)?;
    Ok(consumer)
}

pub(super) fn check_filters(
    consumer: &Consumer<pull::Config>,
    filters: &[String],
    doing: impl Fn() -> String,
) -> Result<(), Fault> {
    let config = pull_config(consumer);
    if has_filters(&config, filters) {
        return Ok(());
    }
    let found = printable(&format!("{} {}", config.filter_subject, config.filter_subjects.join(" ")));
    let detail = format!("the consumer filters by {:?}, wanted is {filters:?}", found.trim());
    Err(Fault::new(FaultKind::Misconfigured, "nats-filter", doing(), detail))
}

/// The consumer's configuration as the server has it.
pub(super) fn pull_config(consumer: &Consumer<pull::Config>) -> pull::Config {
    use async_nats::jetstream::consumer::FromConsumer;
    // A consumer that was opened as one that is pulled from is one.
    pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn check(has: &[&str], wanted: &[&str], expected: Option<&[&str]>) {
        let found = filters("S", &texts(has), &texts(wanted)).ok();
        assert_eq!(found, expected.map(texts), "{has:?}, wanted {wanted:?}");
    }

    #[test]
    fn filters_are_asked_for_only_where_something_is_left_out() {
        check(&["o.>"], &["o.>"], Some(&[]));
        check(&["o.*", "p"], &["o.>", "p"], Some(&[]));
        check(&["o.>"], &[">"], Some(&[]));
        check(&["o.>"], &["o.new"], Some(&["o.new"]));
        check(&["o.>", "p"], &["o.>"], Some(&["o.>"]));
        check(&["o.>"], &["o.>", "q"], None);
        check(&[], &[">"], Some(&[]));
        check(&[], &["o"], Some(&["o"]));
    }

    #[test]
    fn a_filter_that_the_server_left_out_is_seen() {
        let wanted = texts(&["a", "b"]);
        let mut config = pull::Config::default();
        assert!(has_filters(&config, &[]) && !has_filters(&config, &wanted));
        set_filters(&mut config, &wanted);
        assert!(has_filters(&config, &texts(&["b", "a"])));
        let mut config = pull::Config::default();
        set_filters(&mut config, &wanted[..1]);
        assert!(has_filters(&config, &wanted[..1]) && !has_filters(&config, &wanted));
    }
}
