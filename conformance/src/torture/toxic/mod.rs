//! A TCP proxy between two parties that does to their bytes what bad networks do: cuts, delays, swallows, forgets one side, resets.
//!
//! What it does is said per proxy and changes while connections are open. Nothing in here knows a protocol but [`kafka`], whose
//! clients are told by the broker where to go and would walk around the proxy.

mod kafka;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kafka::Redirect;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    Pass,
    /// Once so many more bytes went this way, in the middle of whatever they are: both sides closed. Later connections pass.
    Cut {
        after: u64,
        way: Way,
    },
    /// Every piece waits this long.
    Delay {
        time: Duration,
        way: Way,
    },
    /// Connections stay, new ones are taken, bytes vanish. A connection that lost some is reset at the end: it is no stream any more.
    Blackhole,
    /// The server's side of every open connection is closed; the client is told nothing. Later connections pass.
    HalfOpen,
    /// Every open and every new connection is reset.
    Reset,
}

/// A client whose server has gone without a word is reset after this long, as by a firewall that has forgotten the connection.
const FORGOTTEN: Duration = Duration::from_secs(5);
const PIECE: usize = 64 << 10;

/// How one connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    HalfOpen,
}

/// What all connections of one proxy share.
struct Shared {
    upstream: String,
    /// Kafka's answers name the broker's own address; the client is to come here again.
    redirect: bool,
    /// Bytes that [`Toxic::Cut`] still lets through; negative once it has cut.
    left: AtomicI64,
    /// Times that a toxic changed the course of a connection.
    bites: AtomicU64,
    /// Bytes of both ways that reached the other side.
    passed: AtomicU64,
}

/// Listens on loopback until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    toxic: watch::Sender<Toxic>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// `upstream`: `HOST:PORT`.
    pub async fn start(upstream: &str) -> Result<Proxy, String> {
        Proxy::listen(upstream, false).await
    }

    /// In front of a Kafka broker on 127.0.0.1.
    pub async fn start_kafka(upstream: &str) -> Result<Proxy, String> {
        Proxy::listen(upstream, true).await
    }

    async fn listen(upstream: &str, redirect: bool) -> Result<Proxy, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("a proxy: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("a proxy: {error}"))?;
        let (toxic, _) = watch::channel(Toxic::Pass);
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            redirect,
            left: AtomicI64::new(0),
            bites: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, address.port(), toxic.clone(), shared.clone()));
        Ok(Proxy { address, toxic, shared, accepting })
    }

    /// From now on.
    pub fn set(&self, toxic: Toxic) {
        if let Toxic::Cut { after, .. } = toxic {
            self.shared.left.store(i64::try_from(after).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
        self.toxic.send_replace(toxic);
    }

    /// Times that a toxic changed the course of a connection: zero says that nothing was shown.
    pub fn bites(&self) -> u64 {
        self.shared.bites.load(Ordering::SeqCst)
    }

    /// Bytes of both ways that reached the other side so far.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, toxic: watch::Sender<Toxic>, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut seen = toxic.subscribe();
        let (now, shared) = (*seen.borrow_and_update(), shared.clone());
        if now == Toxic::Reset {
            shared.bites.fetch_add(1, Ordering::SeqCst);
            reset(&client);
            continue;
        }
        tokio::spawn(async move {
            // A server that is not there: the client sees its connection close.
            let Ok(server) = TcpStream::connect(&shared.upstream).await else { return };
            connection(client, server, port, seen, &shared).await;
        });
    }
}

/// Closing it will say RST instead of FIN.
fn reset(stream: &TcpStream) {
    // Where the option is refused the close is an orderly one.
    let _ = stream.set_zero_linger();
}

async fn connection(client: TcpStream, server: TcpStream, port: u16, seen: watch::Receiver<Toxic>, shared: &Shared) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let redirect = match (shared.redirect, server.peer_addr()) {
        (true, Ok(broker)) => Some(Redirect::new(broker.port(), port)),
        _ => None,
    };
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let up = Pump { way: Way::ToServer, seen: seen.clone(), shared, redirect: None };
    let down = Pump { way: Way::ToClient, seen, shared, redirect };
    let end = tokio::select! {
        end = up.run(&mut client_reads, &mut server_writes) => end,
        end = down.run(&mut server_reads, &mut client_writes) => end,
    };
    if end == End::Closed {
        return;
    }
    shared.bites.fetch_add(1, Ordering::SeqCst);
    if end == End::HalfOpen {
        drop((server_reads, server_writes));
        // The client's words go nowhere, until it has had enough.
        let mut piece = vec![0; PIECE];
        let swallow = async { while client_reads.read(&mut piece).await.is_ok_and(|read| read > 0) {} };
        let _ = tokio::time::timeout(FORGOTTEN, swallow).await;
    }
    if let Ok(client) = client_reads.reunite(client_writes) {
        reset(&client);
    }
}

/// One direction of one connection.
struct Pump<'a> {
    way: Way,
    seen: watch::Receiver<Toxic>,
    shared: &'a Shared,
    redirect: Option<Redirect>,
}

impl Pump<'_> {
    async fn run(mut self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> End {
        let mut piece = vec![0; PIECE];
        let mut swallowed = false;
        loop {
            let read = tokio::select! {
                read = from.read(&mut piece) => read,
                changed = self.seen.changed() => {
                    let now = *self.seen.borrow_and_update();
                    match now {
                        // The proxy is gone.
                        _ if changed.is_err() => return End::Closed,
                        Toxic::Reset => return End::Reset,
                        Toxic::HalfOpen => return End::HalfOpen,
                        Toxic::Blackhole => continue,
                        _ if swallowed => return End::Reset,
                        _ => continue,
                    }
                }
            };
            let Some(read) = read.ok().filter(|read| *read > 0) else { return End::Closed };
            let bytes = match &mut self.redirect {
                Some(redirect) => redirect.pass(&piece[..read]),
                None => piece[..read].to_vec(),
            };
            let now = *self.seen.borrow();
            let whole = match now {
                Toxic::Blackhole => {
                    if !swallowed {
                        self.shared.bites.fetch_add(1, Ordering::SeqCst);
                    }
                    swallowed = true;
                    continue;
                }
                _ if swallowed => return End::Reset,
                Toxic::Delay { time, way } if way == self.way => {
                    self.shared.bites.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(time).await;
                    bytes.len()
                }
                Toxic::Cut { way, .. } if way == self.way => self.until_cut(bytes.len()),
                _ => bytes.len(),
            };
            if to.write_all(&bytes[..whole]).await.is_err() {
                return End::Closed;
            }
            self.shared.passed.fetch_add(whole as u64, Ordering::SeqCst);
            if whole < bytes.len() {
                let _ = to.flush().await;
                self.shared.bites.fetch_add(1, Ordering::SeqCst);
                return End::Closed;
            }
        }
    }

    /// How many of `length` bytes still go through. One connection is cut, whichever brings the last byte.
    fn until_cut(&self, length: usize) -> usize {
        let wanted = i64::try_from(length).unwrap_or(i64::MAX);
        let before = self.shared.left.fetch_sub(wanted, Ordering::SeqCst);
        if before >= 0 && before < wanted { usize::try_from(before).unwrap_or(0) } else { length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets, and a client of it that has had one answer.
    async fn scene() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let proxy = Proxy::start(&upstream).await.expect("a proxy");
        let mut client = TcpStream::connect(proxy.address).await.expect("connected");
        assert_eq!(ask(&mut client, b"hello").await.expect("an answer"), b"hello");
        (proxy, client)
    }

    /// What comes back within a moment: an error where the connection was reset.
    async fn ask(client: &mut TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
        client.write_all(words).await?;
        let mut answer = vec![0; words.len()];
        let mut had = 0;
        while had < answer.len() {
            match tokio::time::timeout(Duration::from_millis(300), client.read(&mut answer[had..])).await {
                Ok(read) => match read? {
                    0 => break,
                    read => had += read,
                },
                Err(_) => break,
            }
        }
        answer.truncate(had);
        Ok(answer)
    }

    #[tokio::test]
    async fn a_cut_lets_exactly_so_many_bytes_through_once() {
        let (proxy, mut client) = scene().await;
        proxy.set(Toxic::Cut { after: 3, way: Way::ToClient });
        assert_eq!(ask(&mut client, b"abcdef").await.expect("a part"), b"abc");
        assert_eq!(proxy.bites(), 1);
        let mut next = TcpStream::connect(proxy.address).await.expect("connected");
        assert_eq!(ask(&mut next, b"abcdef").await.expect("all"), b"abcdef");
    }

    #[tokio::test]
    async fn a_black_hole_swallows_and_its_connections_end_with_it() {
        let (proxy, mut client) = scene().await;
        proxy.set(Toxic::Blackhole);
        assert_eq!(ask(&mut client, b"x").await.expect("nothing"), b"");
        proxy.set(Toxic::Pass);
        assert!(ask(&mut client, b"y").await.is_err() || ask(&mut client, b"z").await.is_err());
    }

    #[tokio::test]
    async fn a_half_open_connection_stays_open_and_new_ones_pass() {
        let (proxy, mut client) = scene().await;
        proxy.set(Toxic::HalfOpen);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(ask(&mut client, b"x").await.expect("no error"), b"");
        let mut next = TcpStream::connect(proxy.address).await.expect("connected");
        assert_eq!(ask(&mut next, b"abc").await.expect("all"), b"abc");
    }

    #[tokio::test]
    async fn a_reset_is_seen_as_one() {
        let (proxy, mut client) = scene().await;
        proxy.set(Toxic::Reset);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let error = client.read(&mut [0; 1]).await.expect_err("reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_delay_holds_one_way() {
        let (proxy, mut client) = scene().await;
        proxy.set(Toxic::Delay { time: Duration::from_secs(1), way: Way::ToClient });
        assert_eq!(ask(&mut client, b"x").await.expect("nothing yet"), b"");
        proxy.set(Toxic::Pass);
        let mut late = [0; 1];
        client.read_exact(&mut late).await.expect("the late answer");
        assert_eq!(&late, b"x");
    }
}
