//! `${env:NAME}` and `${file:/path}` in string values: secrets stay out of the config files.

use std::path::Path;

use serde_json::Value;

/// A reference that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// `${` with something else behind it, or no `}`.
    #[error("`{0}` is no reference")]
    Malformed(String),
    #[error("the environment variable `{0}` is not set")]
    NotSet(String),
    #[error("the environment variable `{0}` is not UTF-8")]
    NotText(String),
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
}

/// A text after its references were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// Files that others than owner and group may read.
    pub open_files: Vec<String>,
}

/// Longest file that a reference may name.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Replaces the references in `text`; `None` where it has none. `$${` stands for a literal `${`.
pub fn expand(text: &str) -> Result<Option<Expanded>, ReferenceError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut open_files = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let malformed = || ReferenceError::Malformed(rest[at..].chars().take(60).collect());
        let (body, after) = rest[at + 2..].split_once('}').ok_or_else(malformed)?;
        match body.split_once(':') {
            Some(("env", name)) if !name.is_empty() => out.push_str(&variable(name)?),
            Some(("file", path)) if path.starts_with('/') => out.push_str(&contents(path, &mut open_files)?),
            _ => return Err(ReferenceError::Malformed(format!("${{{body}}}"))),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(Expanded { text: out, open_files }))
}

fn variable(name: &str) -> Result<String, ReferenceError> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => ReferenceError::NotSet(name.to_owned()),
        std::env::VarError::NotUnicode(_) => ReferenceError::NotText(name.to_owned()),
    })
}

/// The file's text without the line end that editors and `kubectl` leave behind it.
fn contents(path: &str, open_files: &mut Vec<String>) -> Result<String, ReferenceError> {
    let unreadable = |reason: String| ReferenceError::Unreadable { path: path.to_owned(), reason };
    let about = std::fs::metadata(Path::new(path)).map_err(|error| unreadable(error.to_string()))?;
    if about.len() > MAX_FILE_BYTES {
        return Err(unreadable(format!("{} bytes are more than {MAX_FILE_BYTES}", about.len())));
    }
    use std::os::unix::fs::PermissionsExt;
    if about.permissions().mode() & 0o007 != 0 {
        open_files.push(path.to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_owned())
}

/// What replacing the references of a JSON value came to, by JSON pointer relative to it.
#[derive(Debug, Default)]
pub struct Replaced {
    pub references: Vec<String>,
    pub open_files: Vec<(String, String)>,
    pub errors: Vec<(String, ReferenceError)>,
}

/// Replaces the references in every string value of `value`.
pub fn expand_all(value: &mut Value, replaced: &mut Replaced) {
    walk(value, &mut String::new(), replaced);
}

fn walk(value: &mut Value, pointer: &mut String, replaced: &mut Replaced) {
    let depth = pointer.len();
    match value {
        Value::String(text) => match expand(text) {
            Ok(None) => {}
            Ok(Some(expanded)) => {
                *text = expanded.text;
                replaced.references.push(pointer.clone());
                replaced.open_files.extend(expanded.open_files.into_iter().map(|file| (pointer.clone(), file)));
            }
            Err(error) => replaced.errors.push((pointer.clone(), error)),
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                pointer.push_str(&format!("/{index}"));
                walk(item, pointer, replaced);
                pointer.truncate(depth);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                walk(member, pointer, replaced);
                pointer.truncate(depth);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &str) -> String {
        expand(of).expect("resolves").map_or_else(|| of.to_owned(), |expanded| expanded.text)
    }

    #[test]
    fn references_stand_for_variables_and_files() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let path = file.path().display();
        assert_eq!(text(&format!("a${{file:{path}}}b")), "as3cretb");
        let home = std::env::var("PATH").expect("PATH is set");
        assert_eq!(text("${env:PATH}"), home);
        assert_eq!(text("plain $ text {}"), "plain $ text {}");
        assert_eq!(text("$${env:PATH}"), "${env:PATH}");
    }

    #[test]
    fn what_is_no_reference_is_refused_and_never_kept_as_text() {
        for bad in ["${evn:X}", "${env:}", "${file:relative}", "${X}", "${env:X", "a${"] {
            assert!(matches!(expand(bad), Err(ReferenceError::Malformed(_))), "{bad}");
        }
        assert_eq!(
            expand("${env:GRAVITY_SURELY_NOT_SET}"),
            Err(ReferenceError::NotSet("GRAVITY_SURELY_NOT_SET".to_owned()))
        );
        assert!(matches!(expand("${file:/nowhere/at/all}"), Err(ReferenceError::Unreadable { .. })));
    }

    #[test]
    fn a_replaced_text_is_not_replaced_again() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "${env:PATH}").expect("written");
        assert_eq!(text(&format!("${{file:{}}}", file.path().display())), "${env:PATH}");
    }
}
