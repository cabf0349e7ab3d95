//! Subjects and their patterns: tokens between dots, `*` for one of them, `>` for all that follow. Pure.

/// Checks a pattern as a subscription takes it. `Err` says what is wrong.
pub fn check_pattern(text: &str) -> Result<(), &'static str> {
    check_tokens(text)?;
    let tokens: Vec<&str> = text.split('.').collect();
    for (index, token) in tokens.iter().enumerate() {
        match *token {
            ">" if index + 1 < tokens.len() => return Err("`>` stands only at the end"),
            ">" | "*" => {}
            other if other.contains(['*', '>']) => return Err("`*` and `>` stand for whole parts between dots"),
            _ => {}
        }
    }
    Ok(())
}

/// Checks a subject that is published to: no wildcards.
pub fn check_literal(text: &str) -> Result<(), &'static str> {
    check_tokens(text)?;
    if text.split('.').any(|token| token.contains(['*', '>'])) {
        return Err("a subject that is published to has no wildcards");
    }
    Ok(())
}

fn check_tokens(text: &str) -> Result<(), &'static str> {
    if text.split('.').any(str::is_empty) {
        return Err("a part between dots is empty");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it holds white space");
    }
    Ok(())
}

/// True when every subject that `narrow` matches is matched by `wide`.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(w), Some(n)) if w == n => {}
            _ => return false,
        }
    }
}

/// True when some subject is matched by both.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_literals_are_told_apart() {
        for good in ["a", "a.b", "a.*", "*.b", "a.>", ">", "*"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", ".a", "a.", "a..b", "a b", "a.>.b", "a*", "a.b>", "a\t"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
        assert_eq!(check_literal("a.b"), Ok(()));
        for bad in ["a.*", "a.>", "", "a b", "a.b*"] {
            assert!(check_literal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn covering_is_all_and_overlapping_is_some() {
        let cases = [
            ("a.>", "a.b.c", true, true),
            ("a.>", "a", false, false),
            ("a.*", "a.b", true, true),
            ("a.*", "a.>", false, true),
            ("a.b", "a.*", false, true),
            (">", "a.*", true, true),
            ("*.b", "a.*", false, true),
            ("a.b", "a.c", false, false),
            ("a.b", "a.b.c", false, false),
            ("a.>", "a.>", true, true),
        ];
        for (a, b, all, some) in cases {
            assert_eq!((covers(a, b), overlaps(a, b)), (all, some), "{a} and {b}");
            assert_eq!(overlaps(b, a), some, "{b} and {a}");
        }
    }
}
