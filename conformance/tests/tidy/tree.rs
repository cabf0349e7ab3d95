//! The files of the checkout, read once: what every tidy test looks at.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not the project's: build output, test data, the repository's own store.
const NOT_OURS: &[&str] = &["target", ".work", ".git", "node_modules", "gravity-demo"];

/// A text file with its path relative to the root, `/` between the parts.
pub struct TextFile {
    pub path: String,
    pub text: String,
}

impl TextFile {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A file that only test builds compile.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.starts_with("conformance/")
    }

    /// The lines with their numbers (1-based), without the test module at the end of the file. (A single item that only tests
    /// compile stands further in, or is no module, and counts as shipped.)
    pub fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<_> = self.lines().collect();
        let is_module = |line: &str| line.starts_with("mod ") || line.starts_with("pub mod ");
        let end = lines.windows(2).position(|pair| pair[0].1 == "#[cfg(test)]" && is_module(pair[1].1));
        lines.into_iter().take(end.unwrap_or(usize::MAX))
    }

    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("conformance lies in the root").to_path_buf()
}

/// Every text file of the checkout, in path order.
pub fn files() -> Vec<TextFile> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().filter(|file| file.is_rust()).count() > 10, "no sources below {}", root.display());
    found
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<TextFile>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_symlink() || NOT_OURS.contains(&name) {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root).expect("below the root");
            found.push(TextFile { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
    }
}
