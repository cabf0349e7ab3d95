//! Paths into an event: `a.b[0].c`, JSON pointers `/a/b/0`, and `$meta.…`.

use std::fmt;

/// Where a mapping takes its value from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Payload(Vec<Step>),
    Meta(Meta),
}

/// One step from a JSON value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Member(String),
    Index(u32),
    /// A number in a JSON pointer: an index in an array, a name in an object.
    Either(u32),
}

/// Metadata of the event itself (SEMANTICS 1.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    Sequence,
    Event,
    Id,
    Key,
    Source,
    /// The producer's time.
    Time,
    /// When it was taken in.
    Received,
    Traceparent,
    /// First value of the header, name compared without regard to ASCII case.
    Header(String),
}

impl Meta {
    pub const WORDS: &'static [&'static str] = &[
        "$meta.sequence",
        "$meta.event",
        "$meta.id",
        "$meta.key",
        "$meta.source",
        "$meta.time",
        "$meta.received",
        "$meta.traceparent",
        "$meta.headers.NAME",
    ];
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPath {
    UnknownMeta,
    Malformed(&'static str),
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::UnknownMeta => "there is no such metadata",
            BadPath::Malformed(reason) => reason,
        })
    }
}

/// Paths longer than this cannot match anything: payloads nest no deeper.
const MOST_STEPS: usize = crate::scan::MAX_DEPTH;

impl Origin {
    pub fn parse(text: &str) -> Result<Origin, BadPath> {
        if let Some(name) = text.strip_prefix("$meta") {
            return meta(name).map(Origin::Meta).ok_or(BadPath::UnknownMeta);
        }
        let steps = if text.starts_with('/') { pointer(text)? } else { dotted(text)? };
        if steps.len() > MOST_STEPS {
            return Err(BadPath::Malformed("more steps than a payload may nest (64)"));
        }
        Ok(Origin::Payload(steps))
    }
}

/// For messages; dotted where that says it, a JSON pointer otherwise.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Meta(meta) => match meta {
                Meta::Sequence => f.write_str("$meta.sequence"),
                Meta::Event => f.write_str("$meta.event"),
                Meta::Id => f.write_str("$meta.id"),
                Meta::Key => f.write_str("$meta.key"),
                Meta::Source => f.write_str("$meta.source"),
                Meta::Time => f.write_str("$meta.time"),
                Meta::Received => f.write_str("$meta.received"),
                Meta::Traceparent => f.write_str("$meta.traceparent"),
                Meta::Header(name) => write!(f, "$meta.headers.{name}"),
            },
            Origin::Payload(steps) if steps.iter().any(|step| matches!(step, Step::Either(_))) => {
                steps.iter().try_for_each(|step| match step {
                    Step::Member(name) => write!(f, "/{}", crate::diagnose::escape_step(name)),
                    Step::Index(index) | Step::Either(index) => write!(f, "/{index}"),
                })
            }
            Origin::Payload(steps) => steps.iter().enumerate().try_for_each(|(at, step)| match step {
                Step::Member(name) if at == 0 => f.write_str(name),
                Step::Member(name) => write!(f, ".{name}"),
                Step::Index(index) | Step::Either(index) => write!(f, "[{index}]"),
            }),
        }
    }
}

fn meta(name: &str) -> Option<Meta> {
    Some(match name {
        ".sequence" => Meta::Sequence,
        ".event" => Meta::Event,
        ".id" => Meta::Id,
        ".key" => Meta::Key,
        ".source" => Meta::Source,
        ".time" => Meta::Time,
        ".received" => Meta::Received,
        ".traceparent" => Meta::Traceparent,
        _ => match name.strip_prefix(".headers.") {
            Some(header) if !header.is_empty() => Meta::Header(header.to_owned()),
            _ => return None,
        },
    })
}

fn pointer(text: &str) -> Result<Vec<Step>, BadPath> {
    text[1..]
        .split('/')
        .map(|step| {
            let mut name = String::with_capacity(step.len());
            let mut chars = step.chars();
            while let Some(c) = chars.next() {
                name.push(match (c, c == '~') {
                    (_, true) => match chars.next() {
                        Some('0') => '~',
                        Some('1') => '/',
                        _ => return Err(BadPath::Malformed("`~` in a JSON pointer is followed by 0 or 1")),
                    },
                    (c, _) => c,
                });
            }
            let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
            match name.parse::<u32>() {
                Ok(index) if digits && (index == 0 || !name.starts_with('0')) && name == index.to_string() => {
                    Ok(Step::Either(index))
                }
                _ => Ok(Step::Member(name)),
            }
        })
        .collect()
}

fn dotted(text: &str) -> Result<Vec<Step>, BadPath> {
    if text.is_empty() {
        return Err(BadPath::Malformed("it is empty"));
    }
    let mut steps = Vec::new();
    for part in text.split('.') {
        let (name, mut indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() && (indices.is_empty() || !steps.is_empty()) {
            return Err(BadPath::Malformed("a name is missing before or after a dot"));
        }
        if name.contains(']') {
            return Err(BadPath::Malformed("a `]` without `[`"));
        }
        if !name.is_empty() {
            steps.push(Step::Member(name.to_owned()));
        }
        while !indices.is_empty() {
            let inner = indices
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .ok_or(BadPath::Malformed("a `[` without `]`"))?;
            let index = inner.0.parse::<u32>().ok().filter(|_| inner.0.bytes().all(|b| b.is_ascii_digit()));
            steps.push(Step::Index(index.ok_or(BadPath::Malformed("between `[` and `]` stands a number from 0"))?));
            indices = inner.1;
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Step {
        Step::Member(name.to_owned())
    }

    #[test]
    fn paths_and_pointers() {
        let cases = [
            ("id", vec![member("id")]),
            ("a.b[0].c", vec![member("a"), member("b"), Step::Index(0), member("c")]),
            ("a[1][2]", vec![member("a"), Step::Index(1), Step::Index(2)]),
            ("[3].x", vec![Step::Index(3), member("x")]),
            ("/a/b/0", vec![member("a"), member("b"), Step::Either(0)]),
            ("/a~1b/~0c/01", vec![member("a/b"), member("~c"), member("01")]),
            ("/", vec![member("")]),
            ("first name", vec![member("first name")]),
        ];
        for (text, want) in cases {
            assert_eq!(Origin::parse(text), Ok(Origin::Payload(want)), "{text}");
        }
        assert_eq!(Origin::parse("$meta.headers.X-Y"), Ok(Origin::Meta(Meta::Header("X-Y".into()))));
        for bad in
            ["", ".a", "a.", "a..b", "a[", "a[x]", "a[-1]", "a]", "a[1]b", "/~2", "$meta", "$meta.", "$meta.headers."]
        {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }
}
