//! `kcat`: publishes to Kafka, reads topics, follows them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::blackbox::command::Ended;

/// Publishes one message to partition 0, exactly these bytes; `None` is a null value, which needs a key.
#[track_caller]
pub fn kcat_publish(hosts: &str, topic: &str, key: Option<&str>, headers: &[&str], value: Option<&[u8]>) {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", hosts, "-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=20000000"]);
    command.args(headers.iter().flat_map(|header| ["-H", header]));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    match value {
        // A file named on the command line is one message.
        Some(value) => {
            file.write_all(value).expect("written");
            command.args(key.iter().flat_map(|key| ["-k", key])).arg(file.path()).stdin(Stdio::null());
        }
        // Only behind a key does an empty line make a message.
        None => {
            writeln!(file, "{}\u{1f}", key.expect("a null value needs a key")).expect("written");
            command.args(["-Z", "-K", "\\x1f"]).stdin(file.reopen().expect("opened"));
        }
    }
    Ended::run(&mut command).expect(0);
}

/// Messages of a topic so far, each in this `kcat` format (which must end with `\n`).
#[track_caller]
pub fn kcat_read(hosts: &str, topic: &str, format: &str) -> Vec<String> {
    let args = ["-q", "-b", hosts, "-C", "-t", topic, "-o", "beginning", "-e", "-f", format];
    let ended = Ended::run(Command::new("kcat").args(args).stdin(Stdio::null())).expect(0);
    ended.out.lines().map(str::to_owned).collect()
}

/// A `kcat` consumer that goes on; each line comes when the message does.
pub struct KcatFollow {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl KcatFollow {
    /// From the topic's beginning.
    pub fn start(hosts: &str, topic: &str, format: &str) -> KcatFollow {
        let args = ["-q", "-u", "-b", hosts, "-C", "-t", topic, "-o", "beginning", "-f", format];
        let mut child =
            Command::new("kcat").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kcat runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        KcatFollow { child, lines }
    }

    /// The next message, within 30 s.
    #[track_caller]
    pub fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("a message within 30 s")
    }

    /// What came within this time.
    pub fn within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }
}

impl Drop for KcatFollow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
