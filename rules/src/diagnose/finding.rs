//! One finding, and the list of all of them.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::source::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong with a file. Serialises to the objects of `check --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable; each has a page that `gravity explain` prints.
    pub code: &'static str,
    pub severity: Severity,
    pub file: String,
    /// From 1; 0 where the finding concerns the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 where the finding concerns the file as a whole.
    pub column: usize,
    pub message: String,
    /// What stands there, as written.
    pub found: Option<String>,
    /// What may stand there. Empty where that is no short list.
    pub allowed: Vec<String>,
    /// What to write instead.
    pub suggestion: Option<String>,
    /// The line as written.
    #[serde(skip)]
    pub source_line: Option<String>,
    /// Columns to underline in `source_line`, characters from 0.
    #[serde(skip)]
    pub caret: Range<usize>,
}

impl Finding {
    /// An error at a place.
    pub fn at(code: &'static str, place: &Place, message: impl Into<String>) -> Finding {
        Finding {
            code,
            severity: Severity::Error,
            file: place.file().to_owned(),
            line: place.line(),
            column: place.column(),
            message: message.into(),
            found: None,
            allowed: Vec::new(),
            suggestion: None,
            source_line: Some(place.source_line().to_owned()),
            caret: place.caret(),
        }
    }

    /// An error that concerns a whole file: missing, unreadable.
    pub fn of_file(code: &'static str, file: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            code,
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            message: message.into(),
            found: None,
            allowed: Vec::new(),
            suggestion: None,
            source_line: None,
            caret: 0..0,
        }
    }

    #[must_use]
    pub fn warning(mut self) -> Finding {
        self.severity = Severity::Warning;
        self
    }

    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Finding {
        self.found = Some(found.into());
        self
    }

    #[must_use]
    pub fn allowed<S: Into<String>>(mut self, allowed: impl IntoIterator<Item = S>) -> Finding {
        self.allowed = allowed.into_iter().map(Into::into).collect();
        self
    }

    #[must_use]
    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Finding {
        self.suggestion = suggestion.map(Into::into);
        self
    }
}

/// All findings of a check, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub fn new() -> Findings {
        Findings::default()
    }

    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|f| f.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    pub fn extend(&mut self, other: impl IntoIterator<Item = Finding>) {
        self.0.extend(other);
    }

    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }

    /// Orders by line inside each file, files in the order in which they first occur.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for finding in &self.0 {
            if !files.contains(&finding.file) {
                files.push(finding.file.clone());
            }
        }
        self.0.sort_by_key(|f| (files.iter().position(|name| *name == f.file), f.line, f.column));
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One line per finding; [`render`](super::render) shows more.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {} [{}]", finding.file, finding.line, finding.column, finding.message, finding.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}
