//! Proxies in front of a database: one that cuts at a chosen word, one that speaks TLS, and a listener that asks for a password.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the proxy does when the client says `COMMIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCommit {
    Pass,
    /// Cuts both sides without passing it on.
    CutBefore,
    /// Passes it on, waits for the answer, cuts without passing that back.
    CutAfter,
    /// Passes it on and never gives an answer.
    Silence,
}

/// A plain TCP proxy; ends with its value.
pub struct CuttingProxy {
    pub address: SocketAddr,
    mode: Arc<Mutex<AtCommit>>,
    accepting: JoinHandle<()>,
}

impl CuttingProxy {
    pub async fn start(upstream: String) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let mode = Arc::new(Mutex::new(AtCommit::Pass));
        let shared = mode.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.expect("the database answers");
                tokio::spawn(relay(client, server, shared.clone()));
            }
        });
        CuttingProxy { address, mode, accepting }
    }

    pub fn at_commit(&self, mode: AtCommit) {
        *self.mode.lock() = mode;
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Copies both ways until one side ends or the mode says cut. Ending drops both sockets.
async fn relay(mut client: TcpStream, mut server: TcpStream, mode: Arc<Mutex<AtCommit>>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Some(bytes) = read.ok().filter(|n| *n > 0).map(|n| &up[..n]) else { return };
                // As a statement of its own, in PostgreSQL's words or in MySQL's; READ COMMITTED ends otherwise.
                let committing = bytes.windows(7).any(|w| w == b"COMMIT\0") || bytes.ends_with(b"\x03COMMIT");
                let now = if committing { *mode.lock() } else { AtCommit::Pass };
                if now == AtCommit::CutBefore || server.write_all(bytes).await.is_err() {
                    return;
                }
                match now {
                    AtCommit::CutAfter => {
                        let _ = server.read(&mut down).await;
                        return;
                    }
                    AtCommit::Silence => {
                        // The answer is taken, so that the database is done; the client learns nothing and sees no close.
                        let _ = server.read(&mut down).await;
                        tokio::time::sleep(Duration::from_secs(60)).await;
                        return;
                    }
                    _ => {}
                }
            }
            read = server.read(&mut down) => {
                let Some(bytes) = read.ok().filter(|n| *n > 0).map(|n| &down[..n]) else { return };
                if client.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Plays a server that asks for a clear-text password; returns the start-up message and the password message of one client.
pub async fn eavesdrop(listener: TcpListener) -> (Vec<u8>, Vec<u8>) {
    let (mut client, _) = listener.accept().await.expect("a client");
    let startup = message(&mut client, None).await;
    // AuthenticationCleartextPassword.
    client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.expect("ask");
    let password = message(&mut client, Some(b'p')).await;
    (startup, password)
}

/// The body of a message: after its type where it has one, length first.
async fn message(client: &mut TcpStream, kind: Option<u8>) -> Vec<u8> {
    if let Some(kind) = kind {
        assert_eq!(client.read_u8().await.expect("a message"), kind);
    }
    let length = client.read_u32().await.expect("a length") as usize;
    let mut body = vec![0; length - 4];
    client.read_exact(&mut body).await.expect("a body");
    body
}

/// Answers PostgreSQL's TLS request, speaks TLS with `certificate`, and hands plain bytes on.
pub struct TlsProxy {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsProxy {
    pub async fn start(upstream: String, certificate: &std::path::Path, key: &std::path::Path) -> TlsProxy {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    message(&mut client, None).await;
                    client.write_all(b"S").await.expect("willing");
                    // A client that does not trust the certificate goes here.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(&upstream).await.expect("the database answers");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        TlsProxy { address, accepting }
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
