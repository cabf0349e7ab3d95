//! Keeps true what the documents say of the tree: arrows between packages, where `sled` may be named, headers, pages, examples.
//!
//! Each test collects every finding before it fails, and each finding names the place and what to do instead.

mod arrows;
mod compose;
mod documents;
mod sources;
mod traps;
mod tree;

/// Fails with all findings, one a line.
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
