//! Keeps literal secrets out of findings: a finding shows the line as written, and a password may stand on it (T8).

use gravity_rules::diagnose::Finding;

/// Keys whose values are never shown.
const SECRET_KEYS: &[&str] = &["password", "token", "creds", "nkey", "uri", LIST];

/// The key whose values stand in a list, which may go over several lines.
const LIST: &str = "signing";

/// What secrets of that list begin with, wherever they stand.
const LISTED: &str = "whsec_";

/// Masks what must not be shown in everything that a finding quotes. Character counts stay, so the caret stays right.
pub fn hide(finding: &mut Finding) {
    if SECRET_KEYS.iter().any(|key| finding.message.contains(&format!("`{key}`"))) {
        // It speaks of the secret itself: what was found is the secret.
        finding.found = None;
        if finding.message.contains("of `signing`") {
            finding.source_line = finding.source_line.as_deref().map(mask_entries);
        }
        if finding.suggestion.as_deref().is_some_and(|s| s.starts_with("write ") && !s.contains("${")) {
            finding.suggestion = None;
        }
    }
    for text in [&mut finding.source_line, &mut finding.found].into_iter().flatten() {
        *text = mask(text);
    }
}

/// Replaces the values of secret keys and the user part of URLs by asterisks.
fn mask(line: &str) -> String {
    let mut chars: Vec<char> = line.chars().collect();
    for key in SECRET_KEYS {
        let quoted: Vec<char> = format!("\"{key}\"").chars().collect();
        let mut from = 0;
        while let Some(at) = find(&chars, &quoted, from) {
            from = at + quoted.len();
            let mut value = from;
            while chars.get(value).is_some_and(|c| c.is_whitespace() || *c == ':') {
                value += 1;
            }
            for c in &mut chars[value..end_of_value(line, value)] {
                *c = '*';
            }
        }
    }
    let listed: Vec<char> = LISTED.chars().collect();
    let mut from = 0;
    while let Some(at) = find(&chars, &listed, from) {
        from = chars[at..].iter().position(|c| *c == '"').map_or(chars.len(), |length| at + length);
        chars[at..from].fill('*');
    }
    let mut from = 0;
    let scheme: Vec<char> = "://".chars().collect();
    while let Some(at) = find(&chars, &scheme, from) {
        from = at + scheme.len();
        let end = chars[from..].iter().position(|c| matches!(c, '/' | '"' | ' ')).map_or(chars.len(), |n| from + n);
        if let Some(user_end) = chars[from..end].iter().rposition(|c| *c == '@') {
            chars[from..from + user_end].fill('*');
        }
    }
    chars.into_iter().collect()
}

/// Masks a line that holds entries of the list: all of it behind the key, everything where the key is on another line.
fn mask_entries(line: &str) -> String {
    let key = format!("\"{LIST}\"");
    let from = line.find(&key).map_or(0, |at| at + key.len());
    let hidden = line[from..].chars().map(|c| if c.is_whitespace() || "[],:".contains(c) { c } else { '*' });
    line[..from].chars().chain(hidden).collect()
}

fn find(chars: &[char], what: &[char], from: usize) -> Option<usize> {
    chars.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

/// End (in characters) of the JSON value that begins at character `start`; a text or list without its end goes to the line's
/// end.
fn end_of_value(line: &str, start: usize) -> usize {
    let mut escaped = false;
    let text = line.chars().nth(start) == Some('"');
    let list = line.chars().nth(start) == Some('[');
    for (index, c) in line.chars().enumerate().skip(start + 1) {
        match (text, c) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (true, '"') => return index + 1,
            (false, ']') => return index + usize::from(list),
            (false, ',' | '}') if !list => return index,
            _ => {}
        }
    }
    line.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o53_no_literal_secret_is_in_a_finding() {
        for line in [
            r#"{"type": "postgres", "password": "CANARY\"CANARY", "por": 1}"#,
            r#""password":"CANARY"#,
            r#""password" : 12CANARY34, "x": 1"#,
            r#""uri": "mongodb://u:CANARY@h/db""#,
            r#""url": "https://u:CANARY@h/path""#,
            r#""signing": ["CANARY", "CANARY"], "x": 1"#,
            r#""signing": ["CANARY", 12CANARY"#,
            r#"  "whsec_CANARY" "whsec_CANARY" "#,
        ] {
            let masked = mask(line);
            assert!(!masked.contains("CANARY"), "{masked}");
            assert_eq!(masked.chars().count(), line.chars().count());
        }
        assert_eq!(mask(r#""signing": ["x", "y"], "z": "a""#), r#""signing": **********, "z": "a""#);
        assert_eq!(mask_entries(r#"  "CANARY", 12345]"#), r#"  ********, *****]"#);
        assert_eq!(mask(r#""username": "u", "por": 1"#), r#""username": "u", "por": 1"#);
        assert_eq!(mask(r#""url": "https://h/a@b""#), r#""url": "https://h/a@b""#);
    }
}
