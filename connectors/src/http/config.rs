//! What a `restful_api` exporter is told, checked before anything is sent.

use std::path::PathBuf;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use reqwest::Url;
use rustls::ClientConfig;

use super::signing::SigningKey;
use crate::tls::TlsFiles;

/// A `restful_api` entry of exporter.json.
#[derive(Clone, Debug, Default)]
pub struct HttpExporterOptions {
    /// `http` or `https`; no credentials in it.
    pub url: String,
    /// A name may lead to a private, loopback or link-local address. (An address written in `url` always may.)
    pub allow_private: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Secrets that every message is signed with, each by itself; none: not signed.
    pub signing: Vec<SigningKey>,
    pub limits: Limits,
}

/// Time and work limits of one exporter.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect: Duration,
    /// From the first byte sent to the reply's status line and headers.
    pub headers: Duration,
    /// For the reply's body, of which at most [`REPLY_BYTES`](super::reply::REPLY_BYTES) are read.
    pub body: Duration,
    /// Requests under way at one time, all of different keys.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(5),
            headers: Duration::from_secs(30),
            body: Duration::from_secs(5),
            in_flight: 32,
        }
    }
}

impl HttpExporterOptions {
    /// The endpoint, or why it cannot be one.
    pub fn endpoint(&self, name: &str) -> Result<Url, Fault> {
        let refuse = |detail: String| {
            Err(Fault::new(FaultKind::Misconfigured, "http-url", format!("configure exporter {name}"), detail))
        };
        let url = match Url::parse(&self.url) {
            Ok(url) => url,
            Err(error) => return refuse(format!("\"url\" is no URL: {error}")),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse(format!("\"url\" begins with {}:, allowed are http: and https:", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("\"url\" holds a user name or password; they do not belong in a URL".to_owned());
        }
        Ok(url)
    }

    /// Verified TLS: the system's authorities, or those of `ca_file` alone.
    pub fn tls(&self, name: &str) -> Result<ClientConfig, Fault> {
        let (ca, cert, key) = (self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone());
        TlsFiles { ca, cert, key }.client_config(&format!("exporter {name}"), "http-tls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_use() {
        let check = |url: &str| {
            HttpExporterOptions { url: url.to_owned(), ..HttpExporterOptions::default() }
                .endpoint("e")
                .map_err(|f| f.detail)
        };
        assert!(check("http://192.168.1.6/api").is_ok(), "the deck's own");
        assert!(check("https://hooks.example/x").is_ok());
        for (url, word) in [
            ("ftp://x/", "ftp"),
            ("file:///etc/passwd", "file"),
            ("http://user:secret-canary@x/", "user name"),
            ("nonsense", "no URL"),
        ] {
            let detail = check(url).expect_err(url);
            assert!(detail.contains(word) && !detail.contains("canary"), "{detail}");
        }
    }
}
