//! How commands talk to a running engine: find it, show the token, turn problem documents into failures.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{Exit, Failure};
use crate::config::{Config, Flags, Secret, codes};
use crate::http::{IDEMPOTENT_REPLAYED, Problem};

/// Where the engine is and who asks.
#[derive(clap::Args, Debug, Clone)]
pub struct EngineArgs {
    /// Address of the engine. Without it: `[api] listen` of gravity.toml in `-c DIR`.
    #[arg(long, value_name = "URL", env = "GRAVITY_URL", hide_env_values = true)]
    url: Option<String>,
    /// Config directory whose gravity.toml tells the address.
    #[arg(short = 'c', long = "config", value_name = "DIR", default_value = ".")]
    config: PathBuf,
    /// File that holds the API token. Without it: the environment variable GRAVITY_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A connection to the engine's API.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
}

/// What the engine said to a batch that it took.
#[derive(Debug)]
pub struct Accepted<T> {
    pub answer: T,
    /// The batch's key was known: this is what was answered the first time, and nothing was added now.
    pub is_repeat: bool,
}

/// Why the engine took nothing of a batch.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub code: String,
    /// Place in the body, where it is about one.
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub failure: Failure,
}

/// Runs a command's future on a runtime of its own thread.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start a runtime").because(&error))?
        .block_on(future)
}

/// One step of a path, percent-encoded.
pub fn step(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

impl EngineArgs {
    pub fn connect(&self) -> Result<Client, Failure> {
        let base = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => self.address_of_config(),
        };
        let token = match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("cannot read {}", file.display())).because(&error))?;
                Some(Secret::new(text.trim_end()))
            }
            None => std::env::var("GRAVITY_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new),
        };
        let mut builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        builder =
            builder.connect_timeout(Duration::from_secs(5)).user_agent(concat!("gravity/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file)
                .map_err(|error| Failure::usage(format!("cannot read {}", file.display())).because(&error))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| Failure::usage(format!("{} is no PEM file", file.display())).because(&error))?;
            builder = builder.tls_certs_only(authorities);
        }
        let http = builder.build().map_err(|error| Failure::failed("cannot make an HTTP client").because(&error))?;
        Ok(Client { http, base, token })
    }

    /// The listen address of gravity.toml. A broken config must not keep an operator from asking: the rest is not checked.
    fn address_of_config(&self) -> String {
        let settings = Config::load(&self.config, &Flags::new()).settings;
        let mut listen = settings.listen();
        if listen.ip().is_unspecified() {
            let loopback = if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            listen.set_ip(loopback);
        }
        format!("{}://{listen}", if settings.tls().is_some() { "https" } else { "http" })
    }
}

impl Client {
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(self.request(Method::GET, path)).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    /// Posts an event batch as it is.
    pub async fn post_events<T: DeserializeOwned>(&self, path: &str, key: &str, body: Vec<u8>) -> Result<T, Failure> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.answer(request.header("idempotency-key", key).body(body)).await
    }

    /// Posts lines of events under a key that makes a repetition harmless. The outer error is about the way there.
    pub async fn post_batch<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: Vec<u8>,
    ) -> Result<Result<Accepted<T>, Refused>, Failure> {
        let request = self.request(Method::POST, path).header("content-type", "application/x-ndjson");
        let request = request.header("idempotency-key", key).body(body);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let is_repeat = response.headers().contains_key(IDEMPOTENT_REPLAYED);
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            let answer = self.read(&body)?;
            return Ok(Ok(Accepted { answer, is_repeat }));
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let number = |name: &str| problem.as_ref()?.more.get(name)?.as_u64();
        let (line, column) = (number("line"), number("column"));
        let failure = self.refusal(status, &body);
        let code = failure.code.clone().unwrap_or_default();
        Ok(Err(Refused { status: status.as_u16(), code, line, column, failure }))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(self.refusal(status, &body));
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        self.read(&body)
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::failed(format!("the answer of {} cannot be understood", self.base))
                .because(&error)
                .code(codes::ENGINE_ANSWER)
        })
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            let message = format!("{} answered {status}: is it Gravity?", self.base);
            return Failure::failed(message).code(codes::ENGINE_ANSWER);
        };
        let exit = match status.as_u16() {
            400 | 404 => Exit::Usage,
            401 | 403 | 409 => Exit::Refused,
            _ => Exit::Failed,
        };
        let failure = Failure::new(exit, problem.detail).code(problem.code.clone());
        match problem.code.as_str() {
            codes::UNAUTHORIZED => failure.hint("set GRAVITY_TOKEN, or name a file with --token-file"),
            _ => failure,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::failed(format!("no engine answers at {}", self.base))
            .because(error)
            .code(codes::ENGINE_UNREACHABLE)
            .hint("start it with `gravity run -c DIR`, or name its address with --url or GRAVITY_URL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_paths_are_encoded() {
        assert_eq!(step("db1/users"), "db1%2Fusers");
        assert_eq!(step("a b?c"), "a%20b%3Fc");
        assert_eq!(step("db1"), "db1");
    }
}
