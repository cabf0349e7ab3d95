//! `nats`, the command-line client of the NATS project: makes streams and publishes to them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::blackbox::command::Ended;
use crate::blackbox::server::root;

/// The client and the server that it speaks to.
pub struct Nats {
    program: PathBuf,
    /// `HOST:PORT`
    pub server: String,
    /// Settings of whoever runs the test must not reach it.
    home: tempfile::TempDir,
}

impl Nats {
    /// `None` after saying why: `conformance/servers up nats` builds it, `GRAVITY_NATS_CLI` names another one.
    pub fn find(server: &str) -> Option<Nats> {
        let Some(program) = program() else {
            println!("skipped: no command-line client of NATS; `conformance/servers up nats` builds it");
            return None;
        };
        let home = tempfile::Builder::new().prefix("nats-cli-").tempdir().expect("a folder");
        Some(Nats { program, server: server.to_owned(), home })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--server", &self.server]).args(args).env("XDG_CONFIG_HOME", self.home.path());
        command.env("HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    /// A stream of what is published below its name.
    #[track_caller]
    pub fn add_stream(&self, stream: &str) {
        let subjects = format!("{stream}.>");
        Ended::run(&mut self.command(&["stream", "add", stream, "--subjects", &subjects, "--defaults"])).expect(0);
    }

    /// Publishes one message, exactly these bytes, and waits until the stream has it.
    #[track_caller]
    pub fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &str) {
        let headers: Vec<String> = headers.iter().map(|(name, value)| format!("--header={name}:{value}")).collect();
        let mut command = self.command(&["pub", "--jetstream", "--quiet", "--no-templates"]);
        Ended::run(command.args(headers).args([subject, body])).expect(0);
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GRAVITY_NATS_CLI") {
        return (named != "none").then(|| named.into());
    }
    let work = std::env::var_os("GRAVITY_WORK").map_or_else(|| root().join(".work"), PathBuf::from);
    let mut built = std::fs::read_dir(work.join("bin")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_client = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("nats-cli-") && !name.contains(".part")
    };
    built.find(is_client).map(|folder| folder.join("nats")).filter(|program| program.is_file())
}
