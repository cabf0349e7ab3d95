//! One POST per message; different keys in parallel, one key strictly in order.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use gravity_model::event::Micros;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashMap;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url, redirect};
use tokio::time::timeout;

use super::address::{CheckedResolver, Lookup, PrivateAddress, SystemLookup};
use super::config::{HttpExporterOptions, Limits};
use super::reply;
use super::signing::{self, SigningKey};

/// Posts to one endpoint.
pub struct HttpExporter {
    name: String,
    url: Url,
    limits: Limits,
    signing: Vec<SigningKey>,
    client: Client,
}

impl HttpExporter {
    /// Checks the options; connects to nothing yet.
    pub fn new(name: impl Into<String>, options: &HttpExporterOptions) -> Result<HttpExporter, Fault> {
        HttpExporter::with_lookup(name, options, Arc::new(SystemLookup))
    }

    /// As `new`, with a resolver of one's own: for tests of names that change their address.
    pub fn with_lookup(
        name: impl Into<String>,
        options: &HttpExporterOptions,
        lookup: Arc<dyn Lookup>,
    ) -> Result<HttpExporter, Fault> {
        let name = name.into();
        let url = options.endpoint(&name)?;
        let client = Client::builder()
            .tls_backend_preconfigured(options.tls(&name)?)
            .http1_only()
            .redirect(redirect::Policy::none())
            // `http_proxy` in somebody's environment must not lead messages elsewhere.
            .no_proxy()
            .referer(false)
            .user_agent(concat!("gravity/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.limits.connect)
            .pool_max_idle_per_host(options.limits.in_flight)
            .pool_idle_timeout(Duration::from_secs(30))
            .dns_resolver(Arc::new(CheckedResolver { lookup, allow_private: options.allow_private }))
            .build()
            .map_err(|error| {
                let doing = format!("configure exporter {name}");
                Fault::new(FaultKind::Misconfigured, "http-client", doing, error.to_string()).with_source(error)
            })?;
        Ok(HttpExporter { name, url, limits: options.limits, signing: options.signing.clone(), client })
    }

    fn doing(&self) -> String {
        // Without path and query: they may hold a token.
        format!("post to {} of exporter {}", self.url.origin().ascii_serialization(), self.name)
    }

    /// Sends the messages of one key in order; after a failure the rest is not sent.
    async fn send_lane(&self, messages: &[Message], lane: Vec<usize>, stopped: &AtomicBool) -> Vec<(usize, Delivery)> {
        let mut outcomes = Vec::with_capacity(lane.len());
        let mut held = false;
        for index in lane {
            if held || stopped.load(Ordering::Relaxed) {
                outcomes.push((index, Delivery::failed(self.held_back())));
                continue;
            }
            let outcome = self.send(&messages[index]).await;
            if let Delivery::Failed { fault, .. } = &outcome {
                held = true;
                if fault.kind != FaultKind::RefusedEvent {
                    // The endpoint is at fault: knocking for every other key too would only add to its load.
                    stopped.store(true, Ordering::Relaxed);
                }
            }
            outcomes.push((index, outcome));
        }
        outcomes
    }

    fn held_back(&self) -> Fault {
        let detail = "not sent: an earlier message of its key, or of this attempt, was not delivered";
        Fault::new(FaultKind::Transient, "held-back", self.doing(), detail)
    }

    async fn send(&self, message: &Message) -> Delivery {
        let headers = match self.headers(message) {
            Ok(headers) => headers,
            Err(detail) => {
                return Delivery::failed(Fault::new(FaultKind::RefusedEvent, "http-header", self.doing(), detail));
            }
        };
        let request = self.client.request(Method::POST, self.url.clone()).headers(headers).body(message.body.clone());
        let response = match timeout(self.limits.headers, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Delivery::failed(self.failed(error)),
            // The message may have arrived: it is sent again with the same id.
            Err(_) => return Delivery::failed(self.silent()),
        };
        self.judge(response).await
    }

    /// The message's own, and what belongs to this attempt: its time is signed with it.
    fn headers(&self, message: &Message) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::with_capacity(message.headers.len() + 5);
        let content_type = HeaderValue::from_static(message.content_type);
        headers.insert(CONTENT_TYPE, content_type);
        for (name, value) in &message.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) = parsed.ok_or_else(|| format!("header {name:?} cannot be sent over HTTP"))?;
            headers.insert(name, value);
        }
        let id = HeaderValue::from_str(&message.id).map_err(|_| "the message id cannot be a header".to_owned())?;
        let seconds = u64::try_from(now() / 1_000_000).unwrap_or(0);
        signing::sign(&self.signing, &id, seconds, &message.body, &mut headers)?;
        headers.insert(HeaderName::from_static("idempotency-key"), id);
        Ok(headers)
    }

    fn silent(&self) -> Fault {
        let detail = format!("no reply within {} s", self.limits.headers.as_secs_f32());
        Fault::new(FaultKind::Transient, "http-timeout", self.doing(), detail)
    }

    async fn judge(&self, response: Response) -> Delivery {
        let status = response.status();
        let kind = reply::kind_of(status);
        let header =
            |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (wait, location) = (header(RETRY_AFTER), header(LOCATION));
        let body = read_capped(response, self.limits.body).await;
        let Some(kind) = kind else { return Delivery::Delivered };
        let mut detail = format!("status {status}");
        if let Some(location) = location.filter(|_| status.is_redirection()) {
            detail += &format!(", redirects are not followed (to {})", reply::shown(location.as_bytes()));
        }
        if !body.is_empty() {
            detail += &format!(": {}", reply::shown(&body));
        }
        let fault = Fault::new(kind, status.as_u16().to_string(), self.doing(), detail);
        let retry_after =
            wait.and_then(|value| reply::retry_after(&value, now())).filter(|_| kind == FaultKind::Transient);
        Delivery::Failed { fault, retry_after }
    }

    /// A request that got no reply. Whether it arrived is unknown unless nothing was connected.
    fn failed(&self, error: reqwest::Error) -> Fault {
        let error = error.without_url();
        let (kind, code, detail) = if let Some(private) = cause::<PrivateAddress>(&error) {
            (FaultKind::Misconfigured, "private-address", private.to_string())
        } else if let Some(tls) = cause::<rustls::Error>(&error) {
            (FaultKind::Misconfigured, "http-tls", format!("TLS refused: {tls}"))
        } else if error.is_timeout() {
            (FaultKind::Transient, "http-timeout", root_cause(&error))
        } else {
            (FaultKind::Disconnected, "http-connection", root_cause(&error))
        };
        Fault::new(kind, code, self.doing(), detail).with_source(error)
    }
}

#[async_trait]
impl Exporter for HttpExporter {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    /// Reaches the endpoint without a message. Any reply passes: an endpoint that takes POST only says 404 or 405 to
    /// everything else, so whether it takes *messages* again is for the next message to find out.
    async fn probe(&self) -> Result<(), Fault> {
        let request = self.client.request(Method::HEAD, self.url.clone());
        match timeout(self.limits.headers, request.send()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        let stopped = AtomicBool::new(false);
        let mut outcomes: Vec<Option<Delivery>> = messages.iter().map(|_| None).collect();
        let mut sending = stream::iter(lanes(messages))
            .map(|lane| self.send_lane(messages, lane, &stopped))
            .buffer_unordered(self.limits.in_flight.max(1));
        while let Some(lane) = sending.next().await {
            for (index, outcome) in lane {
                outcomes[index] = Some(outcome);
            }
        }
        drop(sending);
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Delivery::failed(self.held_back()))).collect()
    }

    async fn close(&self) {}
}

/// Indexes of the messages by key, in order; a message without key is a lane of its own.
fn lanes(messages: &[Message]) -> Vec<Vec<usize>> {
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    let mut by_key: HashMap<&[u8], usize> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let Some(key) = message.key.as_deref() else {
            lanes.push(vec![index]);
            continue;
        };
        let lane = *by_key.entry(key).or_insert_with(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push(index);
    }
    lanes
}

/// Reads at most [`reply::REPLY_BYTES`] within `limit`; what is beyond is never fetched.
async fn read_capped(mut response: Response, limit: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while body.len() < reply::REPLY_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(reply::REPLY_BYTES - body.len())]),
                // The status has decided already; a broken body changes nothing.
                Ok(None) | Err(_) => break,
            }
        }
    };
    // A body that does not end in time is cut: the status is what counts.
    let _cut = timeout(limit, read).await;
    body
}

/// Finds an error type in the chain of causes, also where an `io::Error` wraps it.
fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    reply::shown(deepest.to_string().as_bytes())
}

fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| Micros::try_from(since.as_micros()).unwrap_or(0))
}
