//! Reads a JSON file and keeps where everything stands.
//!
//! Strict JSON plus `//` and `/* */` comments (the starter files of `gravity init` explain themselves); a byte order mark
//! is tolerated, trailing commas and duplicate keys are not.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::finding::{Finding, Findings};
use super::shape;
use super::source::{Place, Source, SourceFile};
use crate::codes;

/// Where each key and value of a file stands, by JSON pointer (`/rules/0/mapping/1/source`, `""` is the whole).
#[derive(Clone, Debug)]
pub struct Positions {
    source: Arc<Source>,
    spans: Arc<HashMap<String, Span>>,
}

#[derive(Clone, Debug)]
struct Span {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

impl Positions {
    /// The value at a pointer; where nothing stands, its nearest ancestor's first character.
    pub fn value(&self, pointer: &str) -> Place {
        match self.spans.get(pointer) {
            Some(span) => self.place(span.value.clone()),
            None => self.nearest(pointer),
        }
    }

    /// The key of a pointer's last step; its value where the step is an array index.
    pub fn key(&self, pointer: &str) -> Place {
        match self.spans.get(pointer) {
            Some(Span { key: Some(key), .. }) => self.place(key.clone()),
            _ => self.value(pointer),
        }
    }

    pub fn contains(&self, pointer: &str) -> bool {
        self.spans.contains_key(pointer)
    }

    fn nearest(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        while let Some(at) = pointer.rfind('/') {
            pointer = &pointer[..at];
            if let Some(span) = self.spans.get(pointer) {
                return self.place(span.value.start..span.value.start + 1);
            }
        }
        self.place(0..1)
    }

    fn place(&self, range: Range<usize>) -> Place {
        Place::new(self.source.clone(), range)
    }
}

/// A file that is JSON and was checked against the schema of a type. Parts that passed can be read even when others did not,
/// so that one check finds everything.
#[derive(Debug)]
pub struct Document {
    source: Arc<Source>,
    /// The text with comments turned into blanks, so that offsets are those of the file.
    plain: String,
    positions: Positions,
    /// Pointers at which the shape check found an error.
    faults: Vec<String>,
    /// Elements per array and members per object, in order.
    children: HashMap<String, Vec<String>>,
}

impl Document {
    /// Parses `file` and checks it against the schema of `T`. `None` when it is no JSON at all.
    pub fn read<T: JsonSchema>(file: &SourceFile, findings: &mut Findings) -> Option<Document> {
        let source = Arc::new(Source::new(file));
        let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
        let mut document = Document {
            plain: source.text().to_owned(),
            positions: Positions { source: source.clone(), spans: Arc::default() },
            faults: Vec::new(),
            children: HashMap::new(),
            source,
        };
        let source = document.source.clone();
        let collect = CollectOptions { comments: CommentCollectionStrategy::Separate, tokens: false };
        let parsed = match parse_to_ast(source.text(), &collect, &STRICT) {
            Ok(parsed) => parsed,
            Err(error) => {
                let range = error.range();
                let place = Place::new(source.clone(), range.start..range.end.max(range.start + 1));
                findings.push(syntax(&place, &error.kind().to_string()));
                return None;
            }
        };
        document.blank_comments(parsed.comments.iter().flat_map(|map| map.values()).flat_map(|list| list.iter()));
        let Some(root) = parsed.value else {
            findings
                .push(Finding::of_file(codes::SYNTAX, source.name(), "the file is empty").suggest(Some("write `{}`")));
            return None;
        };
        // The parser above is lenient in corners (leading zeros); what serde_json refuses is no JSON.
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&document.plain) {
            findings.push(document.serde_finding(&error));
            return None;
        }
        let mut spans = HashMap::new();
        document.index(&root, None, &mut String::new(), &mut spans, findings);
        document.positions.spans = Arc::new(spans);
        document.faults.extend(shape::check(&source, &root, schema.as_value(), findings));
        Some(document)
    }

    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// True when nothing at or below `pointer` was found wrong.
    pub fn is_sound(&self, pointer: &str) -> bool {
        !self
            .faults
            .iter()
            .any(|fault| fault.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Pointers of the elements or members below `pointer`, in file order.
    pub fn children(&self, pointer: &str) -> &[String] {
        self.children.get(pointer).map_or(&[], Vec::as_slice)
    }

    /// Reads the value at `pointer`. `None` where it is absent or unsound; both were reported.
    pub fn part<T: DeserializeOwned>(&self, pointer: &str, findings: &mut Findings) -> Option<T> {
        let span = self.positions.spans.get(pointer)?;
        if !self.is_sound(pointer) {
            return None;
        }
        match serde_json::from_str(&self.plain[span.value.clone()]) {
            Ok(value) => Some(value),
            Err(error) => {
                let place = self.positions.value(pointer);
                // A condition that the schema does not express; the type's own words say what it is.
                let mut message = error.to_string();
                if let Some(at) = message.rfind(" at line ") {
                    message.truncate(at);
                }
                findings.push(Finding::at(codes::BAD_VALUE, &place, message).found(place.text()));
                None
            }
        }
    }

    fn serde_finding(&self, error: &serde_json::Error) -> Finding {
        let at = self.source.line_start(error.line()) + error.column().saturating_sub(1);
        let mut message = error.to_string();
        if let Some(cut) = message.rfind(" at line ") {
            message.truncate(cut);
        }
        syntax(&Place::new(self.source.clone(), at..at + 1), &message)
    }

    fn blank_comments<'c>(&mut self, comments: impl Iterator<Item = &'c ast::Comment<'c>>) {
        let mut bytes = std::mem::take(&mut self.plain).into_bytes();
        for comment in comments {
            for byte in &mut bytes[comment.start()..comment.end()] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        // Whole comments were replaced by ASCII, so the rest is the UTF-8 that it was.
        self.plain = String::from_utf8_lossy(&bytes).into_owned();
    }

    fn index(
        &mut self,
        value: &ast::Value<'_>,
        key: Option<Range<usize>>,
        pointer: &mut String,
        spans: &mut HashMap<String, Span>,
        findings: &mut Findings,
    ) {
        spans.insert(pointer.clone(), Span { key, value: value.start()..value.end() });
        let depth = pointer.len();
        match value {
            ast::Value::Object(object) => {
                let mut seen: HashMap<&str, Range<usize>> = HashMap::new();
                let mut children = Vec::new();
                for property in &object.properties {
                    let name = property.name.as_str();
                    let range = property.name.start()..property.name.end();
                    pointer.push('/');
                    pointer.push_str(&escape(name));
                    if let Some(first) = seen.get(name) {
                        let place = Place::new(self.source.clone(), range.clone());
                        let line = self.source.line(first.start);
                        findings.push(
                            Finding::at(codes::DUPLICATE_KEY, &place, format!("`{name}` stands twice in this object"))
                                .found(name)
                                .suggest(Some(format!("it was first given in line {line}; keep one of the two"))),
                        );
                        self.faults.push(pointer.clone());
                    } else {
                        children.push(pointer.clone());
                    }
                    seen.insert(name, range.clone());
                    self.index(&property.value, Some(range), pointer, spans, findings);
                    pointer.truncate(depth);
                }
                self.children.insert(pointer.clone(), children);
            }
            ast::Value::Array(array) => {
                let mut children = Vec::new();
                for (index, element) in array.elements.iter().enumerate() {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    children.push(pointer.clone());
                    self.index(element, None, pointer, spans, findings);
                    pointer.truncate(depth);
                }
                self.children.insert(pointer.clone(), children);
            }
            _ => {}
        }
    }
}

/// Reads a whole file into `T`. All findings are added to `findings`; `None` when there was an error among them.
pub fn decode<T: DeserializeOwned + JsonSchema>(file: &SourceFile, findings: &mut Findings) -> Option<(T, Positions)> {
    let document = Document::read::<T>(file, findings)?;
    let value = document.part("", findings)?;
    Some((value, document.positions))
}

/// A step of a JSON pointer, escaped.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

fn syntax(place: &Place, reason: &str) -> Finding {
    let mut reason = reason.to_owned();
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Finding::at(codes::SYNTAX, place, format!("this is not JSON: {reason}")).found(place.text())
}

const STRICT: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};
