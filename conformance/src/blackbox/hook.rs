//! An HTTP endpoint on loopback that a test looks out of: its own words run inside each request, before the answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Told {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
    /// What the test's look inside the request saw.
    pub saw: String,
}

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Answers every request with the status that the look gives; remembers them all.
pub struct Hook {
    pub address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
}

/// What a look inside a request sees, and the status to answer with.
type Look = dyn Fn(&str) -> (String, u16) + Send + Sync;

impl Hook {
    /// `look` gets the body. The threads end with the process.
    pub fn start(look: impl Fn(&str) -> (String, u16) + Send + Sync + 'static) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (all, look): (_, Arc<Look>) = (Arc::clone(&told), Arc::new(look));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, look) = (Arc::clone(&all), Arc::clone(&look));
                std::thread::spawn(move || serve(stream, &all, &*look));
            }
        });
        Hook { address, told }
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.told.lock().len()
    }
}

fn serve(stream: TcpStream, told: &Mutex<Vec<Told>>, look: &Look) {
    let Ok(writer) = stream.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(stream), writer);
    while let Some(mut request) = read(&mut reader) {
        let (saw, status) = look(&request.body);
        request.saw = saw;
        told.lock().push(request);
        if write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Told> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Told { path, headers, body, at: Instant::now(), saw: String::new() })
}
