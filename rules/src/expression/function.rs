//! The functions of the language, by name: one table for the checker, the messages and the documentation's test.

use super::kind::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Has,
    Exists,
    All,
    Size,
    String,
    Int,
    Round,
    Div,
    Coalesce,
    Timestamp,
    Date,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
}

/// How a function is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `name(…)`.
    Call,
    /// `value.name(…)`.
    Method,
    /// Either.
    Both,
}

impl Function {
    /// Name, form, usage.
    pub(super) const TABLE: [(Function, &'static str, Form, &'static str); 17] = [
        (Function::Has, "has", Form::Call, "has(a.b)"),
        (Function::Exists, "exists", Form::Method, "list.exists(x, condition)"),
        (Function::All, "all", Form::Method, "list.all(x, condition)"),
        (Function::Size, "size", Form::Both, "size(text or list)"),
        (Function::String, "string", Form::Call, "string(value)"),
        (Function::Int, "int", Form::Call, "int(number)"),
        (Function::Round, "round", Form::Call, "round(number, DIGITS)"),
        (Function::Div, "div", Form::Call, "div(number, number, DIGITS)"),
        (Function::Coalesce, "coalesce", Form::Call, "coalesce(value, value, …)"),
        (Function::Timestamp, "timestamp", Form::Call, "timestamp('2026-01-31T12:00:00Z')"),
        (Function::Date, "date", Form::Call, "date(timestamp) or date('2026-01-31')"),
        (Function::Contains, "contains", Form::Method, "text.contains(text)"),
        (Function::StartsWith, "startsWith", Form::Method, "text.startsWith(text)"),
        (Function::EndsWith, "endsWith", Form::Method, "text.endsWith(text)"),
        (Function::LowerAscii, "lowerAscii", Form::Method, "text.lowerAscii()"),
        (Function::UpperAscii, "upperAscii", Form::Method, "text.upperAscii()"),
        (Function::Trim, "trim", Form::Method, "text.trim()"),
    ];

    pub(super) fn named(name: &str) -> Option<(Function, Form)> {
        Function::TABLE.iter().find(|(_, known, ..)| *known == name).map(|(function, _, form, _)| (*function, *form))
    }

    pub(super) fn usage(self) -> &'static str {
        Function::TABLE.iter().find(|(function, ..)| *function == self).map_or("", |entry| entry.3)
    }

    /// What an argument has to be, where that does not depend on the others. Arguments are counted with the target.
    pub(super) fn expects(self, argument: usize) -> Option<Kind> {
        match (self, argument) {
            (Function::Contains | Function::StartsWith | Function::EndsWith, 0 | 1)
            | (Function::LowerAscii | Function::UpperAscii | Function::Trim, 0) => Some(Kind::Text),
            (Function::Int | Function::Round, 0) | (Function::Div, 0 | 1) => Some(Kind::Decimal),
            (Function::Timestamp | Function::Date, 0) => Some(Kind::Timestamp),
            _ => None,
        }
    }
}
