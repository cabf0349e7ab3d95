//! A connection and what happens to it: the client would reconnect behind our back and lose what was on its way, so the first
//! loss of a connection ends it here, and whoever owns it begins anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError, ServerInfo};
use gravity_model::{Fault, FaultKind};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::{NatsConnection, SignIn};
use super::error::of_connect;
use crate::printable::printable;
use crate::tls::TlsFiles;

/// Limit of a question to the server.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Code of the fault that a loss of the connection is.
pub(super) const CONNECTION_LOST: &str = "nats-connection-lost";
/// Half-open connections are noticed by pings that nobody answers: after three of them.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The oldest server that does what we ask: pulls with heartbeats and byte limits, named ephemeral consumers.
const OLDEST: Version = Version(2, 9);

/// Major and minor number of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub u32, pub u32);

impl Version {
    fn parse(text: &str) -> Option<Version> {
        let mut parts = text.trim_start_matches('v').split(['.', '-']);
        Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// What the client reports of one connection.
pub(super) struct Events {
    lost: watch::Sender<bool>,
    /// The newest `-ERR` of the server: a missing permission shows only there.
    last_error: Mutex<Option<String>>,
    /// How often a subscription was full and messages of it were dropped.
    overruns: AtomicU64,
}

impl Events {
    fn new() -> Events {
        Events { lost: watch::channel(false).0, last_error: Mutex::new(None), overruns: AtomicU64::new(0) }
    }

    fn take_in(&self, owner: &str, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => drop(self.lost.send_replace(true)),
            Event::ServerError(error) => {
                let text = match error {
                    ServerError::Other(text) => printable(text),
                    other => printable(&other.to_string()),
                };
                tracing::warn!(owner, error = text, "the NATS server refuses something");
                *self.last_error.lock() = Some(text);
            }
            Event::SlowConsumer(_) => drop(self.overruns.fetch_add(1, Ordering::Relaxed)),
            Event::LameDuckMode => tracing::info!(owner, "the NATS server is about to go down"),
            other => tracing::debug!(owner, event = %other, "nats client"),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Returns once the connection is gone. Cancel-safe.
    pub(super) async fn lost(&self) {
        // The sender lives in `self`, so waiting ends only by the loss.
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }

    /// The server's newest refusal of a permission, in its words.
    pub(super) fn refusal(&self) -> Option<String> {
        self.last_error.lock().clone().filter(|text| text.to_ascii_lowercase().contains("permissions violation"))
    }

    /// Overruns since the last call.
    pub(super) fn take_overruns(&self) -> u64 {
        self.overruns.swap(0, Ordering::Relaxed)
    }
}

/// A connection to one server.
pub(super) struct Link {
    pub client: Client,
    pub events: Arc<Events>,
    pub info: ServerInfo,
    pub version: Version,
}

impl Link {
    /// Says why a request was not answered: a missing permission is no outage.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        match self.events.refusal() {
            Some(refusal) if fault.kind != FaultKind::Misconfigured => {
                Fault { kind: FaultKind::Misconfigured, code: "nats-permission".into(), detail: refusal, ..fault }
            }
            _ => fault,
        }
    }

    pub(super) fn lost_fault(&self, doing: String) -> Fault {
        Fault::new(FaultKind::Disconnected, CONNECTION_LOST, doing, "the connection to the server was lost")
    }
}

/// Connects as `owner` (`source NAME`, `exporter NAME`); `waiting` bounds the messages that wait in a subscription.
pub(super) async fn connect(owner: &str, connection: &NatsConnection, waiting: usize) -> Result<Link, Fault> {
    let doing = || format!("connect {owner} to nats at {}", connection.place());
    let events = Arc::new(Events::new());
    let options = options(owner, connection, waiting, &events)?;
    let client = options.connect(&connection.hosts[..]).await.map_err(|error| of_connect(error, doing()))?;
    let info = client.server_info();
    let version = check_version(&info, doing)?;
    Ok(Link { client, events, info, version })
}

fn options(
    owner: &str,
    connection: &NatsConnection,
    waiting: usize,
    events: &Arc<Events>,
) -> Result<ConnectOptions, Fault> {
    let (named, events) = (owner.to_owned(), Arc::clone(events));
    let mut options = ConnectOptions::new()
        .name("gravity")
        .connection_timeout(ASK_LIMIT)
        .request_timeout(Some(ASK_LIMIT))
        .ping_interval(PING_EVERY)
        .subscription_capacity(waiting)
        .ignore_discovered_servers()
        // After a loss the client may try each server once while nobody needs it any more; then its task ends.
        .max_reconnects(connection.hosts.len())
        .event_callback(move |event| {
            events.take_in(&named, &event);
            std::future::ready(())
        });
    options = match &connection.sign_in {
        SignIn::Nobody => options,
        SignIn::Password { username, password } => options.user_and_password(username.clone(), password.clone()),
        SignIn::Token(token) => options.token(token.clone()),
        SignIn::NKey(seed) => options.nkey(seed.trim().to_owned()),
        SignIn::Credentials(text) => options.credentials(text).map_err(|_| {
            // The client's own words may quote the contents.
            let detail = "the credentials hold no user JWT and seed";
            Fault::new(FaultKind::Misconfigured, "nats-credentials", format!("configure {owner}"), detail)
        })?,
    };
    if connection.secure {
        let files = TlsFiles {
            ca: connection.ca_file.clone(),
            cert: connection.cert_file.clone(),
            key: connection.key_file.clone(),
        };
        options = options.require_tls(true).tls_client_config(files.client_config(owner, "nats-tls")?);
    }
    Ok(options)
}

fn check_version(info: &ServerInfo, doing: impl Fn() -> String) -> Result<Version, Fault> {
    let shown = printable(&info.version);
    let refuse = |detail| Err(Fault::new(FaultKind::Misconfigured, "nats-server-version", doing(), detail));
    match Version::parse(&info.version) {
        Some(version) if version >= OLDEST => Ok(version),
        Some(_) => refuse(format!("the server is nats-server {shown}; {}.{} or newer is needed", OLDEST.0, OLDEST.1)),
        None => refuse(format!("the server does not tell a version that can be read: {shown:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: &str) -> Result<Version, String> {
        let info = ServerInfo { version: version.to_owned(), ..ServerInfo::default() };
        check_version(&info, || "connect".to_owned()).map_err(|fault| {
            assert_eq!(fault.kind, FaultKind::Misconfigured);
            fault.detail
        })
    }

    #[test]
    fn old_servers_are_refused_by_name() {
        assert_eq!(checked("2.9.10"), Ok(Version(2, 9)));
        assert_eq!(checked("2.15.2"), Ok(Version(2, 15)));
        assert_eq!(checked("2.12.0-beta.1"), Ok(Version(2, 12)));
        assert_eq!(checked("3.0.0"), Ok(Version(3, 0)));
        assert!(checked("2.8.4").is_err_and(|detail| detail.contains("2.8.4") && detail.contains("2.9")));
        assert!(checked("").is_err());
        assert!(checked("x\u{1b}[31m").is_err_and(|detail| !detail.contains('\u{1b}')));
    }

    #[test]
    fn a_loss_and_a_refusal_are_remembered() {
        let events = Events::new();
        events.take_in("source s", &Event::Connected);
        assert!(!events.is_lost());
        events.take_in("source s", &Event::ServerError(ServerError::Other("Permissions Violation for X".to_owned())));
        assert!(events.refusal().is_some());
        events.take_in("source s", &Event::SlowConsumer(1));
        assert_eq!((events.take_overruns(), events.take_overruns()), (1, 0));
        events.take_in("source s", &Event::Disconnected);
        assert!(events.is_lost());
    }
}
