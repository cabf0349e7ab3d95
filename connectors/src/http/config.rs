//! What a `restful_api` exporter is told, checked before anything is sent.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use reqwest::Url;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

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
        let doing = || format!("configure TLS of exporter {name}");
        let refuse = |what: &str, error: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Misconfigured, "http-tls", doing(), format!("{what}: {error}"))
        };
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(file) => {
                let place = format!("caFile {}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(&place, &error))? {
                    let certificate = certificate.map_err(|error| refuse(&place, &error))?;
                    roots.add(certificate).map_err(|error| refuse(&place, &error))?;
                }
                if roots.is_empty() {
                    return Err(refuse(&place, &"no certificate in it"));
                }
            }
            None => {
                // A system without authorities refuses every https endpoint when it is used; http endpoints need none.
                for certificate in rustls_native_certs::load_native_certs().certs {
                    if let Err(error) = roots.add(certificate) {
                        tracing::debug!(exporter = name, error = %error, "a system certificate was left out");
                    }
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("protocol versions", &error))?
            .with_root_certificates(roots);
        let (Some(cert_file), Some(key_file)) = (&self.cert_file, &self.key_file) else {
            if self.cert_file.is_some() || self.key_file.is_some() {
                return Err(refuse("certFile and keyFile", &"one of them is missing"));
            }
            return Ok(builder.with_no_client_auth());
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| refuse(&format!("certFile {}", cert_file.display()), &error))?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| refuse(&format!("keyFile {}", key_file.display()), &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| refuse("certFile and keyFile", &error))
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
