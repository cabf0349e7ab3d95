//! What is wrong with a file, said so that its author can mend it: code, place, line with caret, what is allowed.
//!
//! Generic over the file: `sources.json`, `databases.json`, `exporter.json` and `rules.json` all go through
//! [`decode`], driven by the JSON Schema of the type that they are read into.

mod document;
mod finding;
mod render;
mod shape;
mod source;
mod suggest;

pub(crate) use document::escape as escape_step;
pub use document::{Document, Positions, decode};
pub use finding::{Finding, Findings, Severity};
pub use render::render;
pub use source::{Place, Source, SourceFile};
pub use suggest::closest;
