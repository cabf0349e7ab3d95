//! How a command ends: the documented exit codes, and a failure as a person reads it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use super::show::Paint;

/// Exit codes (INTERFACE 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Usage or bad config.
    Usage = 2,
    /// Difference found; with `--stop-at-end`, new dead letters.
    Difference = 3,
    /// Refused for safety.
    Refused = 4,
    /// The disk failed a write or a sync.
    Disk = 74,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Stable code with a page under docs/errors.
    pub code: Option<String>,
    pub message: String,
    /// Causes, nearest first.
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, code: None, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Keeps the chain of causes of an error.
    #[must_use]
    pub fn because(mut self, error: &dyn std::error::Error) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Wrappers repeat what they wrap.
            if self.causes.last().is_none_or(|last| !last.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Failure {
        self.code = Some(code.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// To stderr; the only place that prints a failure.
    pub fn print(&self) {
        let paint = Paint::stderr();
        let mut text = format!("{}: {}", paint.red("error"), self.message);
        for cause in &self.causes {
            let _ = write!(text, "\n  because: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\n  {}: {hint}", paint.blue("hint"));
        }
        if let Some(code) = &self.code {
            let _ = write!(text, "\n  {}: gravity explain {code}", paint.blue("more"));
        }
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Anything that goes wrong while writing the answer: a closed pipe is the reader's choice, not an error of ours.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(Exit::Done as i32);
        }
        Failure::failed("cannot write the output").because(&error)
    }
}
