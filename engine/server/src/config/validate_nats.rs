//! What the shape of a NATS entry cannot say: subjects, names, and ways to sign in that exclude each other.

use gravity_connectors::nats::{check_literal, check_pattern};

use super::codes;
use super::load::Checking;
use super::shared::{NatsSignInKeys, TransportKeys, split_address};
use super::source::{NatsMode, NatsSourceKeys};
use super::validate::{addresses, credentials, history, host, list, secret, transport};

/// A `nats` entry of sources.json.
pub fn source(keys: &NatsSourceKeys, checking: &mut Checking<'_>) {
    addresses("hosts", &keys.hosts, checking);
    list("subjects", &keys.subjects, checking);
    for (index, subject) in keys.subjects.iter().enumerate().filter(|(_, subject)| !subject.is_empty()) {
        if let Err(problem) = check_pattern(subject) {
            let message = format!("`{subject}` is no subject: {problem}");
            let hint = "parts between dots; `*` for one of them, `>` at the end for all that follow";
            checking.refuse(gravity_rules::codes::BAD_VALUE, &format!("subjects/{index}"), message, Some(hint));
        }
    }
    sign_in(&keys.sign_in, checking);
    let hosts = keys.hosts.iter().filter_map(|h| split_address(h)).map(|(host, _)| host);
    transport(&keys.transport, hosts, checking);
    match keys.mode {
        NatsMode::JetStream => jetstream(keys, checking),
        NatsMode::Core => core(keys, checking),
    }
}

fn jetstream(keys: &NatsSourceKeys, checking: &mut Checking<'_>) {
    if keys.stream.is_none() {
        let message = "a JetStream source needs `stream`";
        let hint = Some("or say `\"mode\": \"core\"`");
        checking.refuse_key(gravity_rules::codes::MISSING_KEY, "", message, hint);
    }
    name("stream", keys.stream.as_deref(), checking);
    name("durable", keys.durable.as_deref(), checking);
    history(&keys.history, checking);
    for key in ["queue_group", "accept_at_most_once"] {
        if checking.has(key) {
            let message = format!("`{key}` belongs to `\"mode\": \"core\"`");
            checking.refuse_key(codes::UNUSED_KEY, key, message, Some("remove it"));
        }
    }
}

fn core(keys: &NatsSourceKeys, checking: &mut Checking<'_>) {
    if keys.accept_at_most_once {
        let message = "accept_at_most_once: what is published while Gravity is away is gone";
        checking.warn(codes::ACCEPTED, "accept_at_most_once", message, None);
    } else {
        let message = "core NATS delivers at most once: this must be accepted by name";
        let hint = "add `\"accept_at_most_once\": true`, or read a JetStream stream";
        checking.refuse_key(codes::NOT_ACCEPTED, "", message, Some(hint));
    }
    name("queue_group", keys.queue_group.as_deref(), checking);
    for key in ["stream", "durable", "start", "accept_recreated", "accept_gap"] {
        if checking.has(key) {
            let message = format!("`{key}` has no meaning with `\"mode\": \"core\"`");
            checking.refuse_key(codes::UNUSED_KEY, key, message, Some("remove it"));
        }
    }
}

/// A `nats` or `jetstream` entry of exporter.json.
pub fn target(
    host_name: &str,
    subject: &str,
    keys: &NatsSignInKeys,
    protection: &TransportKeys,
    checking: &mut Checking<'_>,
) {
    host(host_name, checking);
    sign_in(keys, checking);
    transport(protection, std::iter::once(host_name), checking);
    if let Err(problem) = check_literal(subject) {
        let message = format!("`{subject}` is no subject to publish to: {problem}");
        checking.refuse(gravity_rules::codes::BAD_VALUE, "subject", message, None);
    }
}

/// Names of streams, consumers and queue groups stand in subjects.
pub fn name(key: &str, name: Option<&str>, checking: &mut Checking<'_>) {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.is_some_and(|name| name.is_empty() || name.contains(bad)) {
        let message = format!("`{key}` must be one word without white space, dots, slashes, `*` and `>`");
        checking.refuse(gravity_rules::codes::BAD_VALUE, key, message, None);
    }
}

fn sign_in(keys: &NatsSignInKeys, checking: &mut Checking<'_>) {
    credentials(keys.username.as_deref(), keys.password.is_some(), checking);
    let named = keys.username.as_deref().is_some_and(|username| !username.is_empty());
    let mut ways = Vec::new();
    if named {
        ways.push("username");
    }
    for (key, value) in keys.secrets().filter(|(key, _)| *key != "password") {
        secret(key, checking);
        if value.expose().trim().is_empty() {
            checking.refuse_key(gravity_rules::codes::BAD_VALUE, key, format!("`{key}` must not be empty"), None);
        }
        ways.push(key);
    }
    if let [first, second, ..] = ways[..] {
        let message = format!("`{first}` and `{second}` exclude each other");
        checking.refuse_key(codes::CONFLICT, second, message, Some("keep one of the two"));
    }
}
