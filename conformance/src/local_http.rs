//! An HTTP endpoint on loopback that behaves as badly as a test wants, and remembers all that it was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What the endpoint does about a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16),
    /// Status, extra header lines, body.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Reads the request and never says a word.
    Silent,
    /// The status after this time.
    Late(Duration, u16),
    /// The status at once, then ten gigabytes of body.
    Endless(u16),
    /// The status at once, a body that comes byte by byte for ever.
    Trickle(u16),
    /// Takes the request and closes the connection without a reply.
    HangUp,
}

type Behaviour = dyn Fn(&Request) -> Reply + Send + Sync;

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(Request, Reply)>>,
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    body_bytes: AtomicU64,
}

/// See the module. Dropping it closes everything.
pub struct LocalHttp {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
    _tasks: JoinSet<()>,
}

impl LocalHttp {
    pub async fn start(behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> LocalHttp {
        LocalHttp::start_with(behaviour, None).await
    }

    /// With TLS when an acceptor is given.
    pub async fn start_with(
        behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> LocalHttp {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Seen::default());
        let behaviour: Arc<Mutex<Arc<Behaviour>>> = Arc::new(Mutex::new(Arc::new(behaviour)));
        let mut tasks = JoinSet::new();
        let (for_tasks, behave) = (Arc::clone(&seen), Arc::clone(&behaviour));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (seen, behave, tls) = (Arc::clone(&for_tasks), Arc::clone(&behave), tls.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(stream, tls, seen, behave));
                while connections.try_join_next().is_some() {}
            }
        });
        LocalHttp { address, seen, behaviour, _tasks: tasks }
    }

    pub fn behave(&self, behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.behaviour.lock() = Arc::new(behaviour);
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Every request that arrived whole, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().iter().map(|(request, _)| request.clone()).collect()
    }

    /// Those that were answered with a 2xx, or would have been in time.
    pub fn accepted(&self) -> Vec<Request> {
        let accepted = |reply: &Reply| match reply {
            Reply::Status(status) | Reply::Full(status, ..) | Reply::Late(_, status) => (200..300).contains(status),
            _ => false,
        };
        self.seen
            .requests
            .lock()
            .iter()
            .filter(|(_, reply)| accepted(reply))
            .map(|(request, _)| request.clone())
            .collect()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn most_under_way(&self) -> usize {
        self.seen.most_under_way.load(Ordering::SeqCst)
    }

    /// Bytes of endless bodies that the peer's system took.
    pub fn body_bytes(&self) -> u64 {
        self.seen.body_bytes.load(Ordering::SeqCst)
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    seen: Arc<Seen>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
) {
    match tls {
        None => serve(stream, &seen, &behaviour).await,
        // A client that refuses our certificate ends it here.
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, &seen, &behaviour).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen, behaviour: &Mutex<Arc<Behaviour>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let behave = Arc::clone(&behaviour.lock());
        let reply = behave(&request);
        seen.requests.lock().push((request, reply.clone()));
        let under_way = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let open = answer(&mut stream, reply, seen).await;
        seen.under_way.fetch_sub(1, Ordering::SeqCst);
        if !open {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// False when the connection is over.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), reply: Reply, seen: &Seen) -> bool {
    match reply {
        Reply::Status(status) => send(stream, status, &[], b"").await,
        Reply::Full(status, headers, body) => send(stream, status, &headers, &body).await,
        Reply::Silent => std::future::pending().await,
        Reply::Late(time, status) => {
            tokio::time::sleep(time).await;
            send(stream, status, &[], b"").await
        }
        Reply::HangUp => false,
        Reply::Endless(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 10000000000\r\n\r\n");
            let mut open = stream.write_all(head.as_bytes()).await.is_ok();
            let block = [b'x'; 16 * 1024];
            while open {
                open = stream.write_all(&block).await.is_ok();
                seen.body_bytes.fetch_add(if open { block.len() as u64 } else { 0 }, Ordering::SeqCst);
            }
            false
        }
        Reply::Trickle(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 10000000000\r\n\r\n");
            let mut open = stream.write_all(head.as_bytes()).await.is_ok();
            while open {
                tokio::time::sleep(Duration::from_millis(50)).await;
                open = stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok();
            }
            false
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), status: u16, headers: &[(String, String)], body: &[u8]) -> bool {
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if status != 204 && status != 304 {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    let sent = stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body).await.is_ok();
    sent && stream.flush().await.is_ok()
}
