//! Commands of the binary that run to their end.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary under test: `GRAVITY_BINARY`, or `gravity` of the same build as this test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("GRAVITY_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().expect("own program");
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("gravity")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no `gravity` beside {}: cargo build --release -p gravity", own.display()))
}

/// The binary, with an environment that no setting of the caller reaches.
pub fn gravity() -> Command {
    gravity_under(&[])
}

/// The same started by another program, which must become it.
pub fn gravity_under(wrapper: &[&str]) -> Command {
    let mut words = wrapper.iter().map(PathBuf::from).chain([program()]);
    let mut command = Command::new(words.next().expect("the binary at least"));
    command.args(words);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRAVITY_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// -1 when a signal ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(output: &Output) -> Ended {
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command to its end.
    pub fn run(command: &mut Command) -> Ended {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Ended::of(&output)
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

/// Runs `gravity ARGS` to its end.
pub fn run(args: &[&str]) -> Ended {
    Ended::run(gravity().args(args))
}
