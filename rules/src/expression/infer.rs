//! Types of event fields: as declared, else from the way in which the expressions of the event use them.

use gravity_model::ColumnType;

use super::kind::Kind;
use super::parse::{Arithmetic, Ast, Comparison, Node};
use super::{Written, function::Function};
use crate::diagnose::Place;
use crate::path::{Meta, Origin, Step};

/// What is known of a field and where it was said.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub origin: Origin,
    pub says: Says,
    /// `file:line`.
    pub place: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Says {
    Declared(ColumnType),
    Inferred(Kind),
}

impl Known {
    pub fn declared(origin: &Origin, column: &ColumnType, place: &Place) -> Known {
        Known { origin: origin.clone(), says: Says::Declared(column.clone()), place: place.to_string() }
    }
}

/// The fields of one event.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldTypes(Vec<Known>);

impl FieldTypes {
    /// Joins the declarations with what all expressions of the event say; beside each stands what its result has to be.
    pub fn of(declared: Vec<Known>, expressions: &[(&Written, Option<Kind>)]) -> FieldTypes {
        let mut types = FieldTypes(declared);
        // One use may tell the type of a field that another use needs. Each round finds at least one, or it was the last.
        loop {
            let mut changed = false;
            for (written, wanted) in expressions {
                let mut walk =
                    Walk { types: &mut types, place: &written.place, locals: Vec::new(), changed: &mut changed };
                walk.kind(&written.ast, wanted.as_ref());
            }
            if !changed {
                return types;
            }
        }
    }

    pub fn find(&self, origin: &Origin) -> Option<&Known> {
        self.0.iter().find(|known| same_field(&known.origin, origin))
    }

    /// Paths that are declared, for suggestions.
    pub fn declared(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|known| matches!(known.says, Says::Declared(_))).map(|known| known.origin.to_string())
    }
}

/// The type of metadata, as a column would take it.
pub(super) fn meta_type(meta: &Meta) -> ColumnType {
    match meta {
        Meta::Sequence => ColumnType::U64,
        Meta::Time | Meta::Received => ColumnType::TimestampTz,
        _ => ColumnType::Text,
    }
}

/// `lines[0].sku` and `/lines/0/sku` name one field.
fn same_field(a: &Origin, b: &Origin) -> bool {
    let (Origin::Payload(a), Origin::Payload(b)) = (a, b) else { return a == b };
    let same = |(a, b): (&Step, &Step)| match (a, b) {
        (Step::Either(index), Step::Index(other)) | (Step::Index(index), Step::Either(other)) => index == other,
        (Step::Either(index), Step::Member(name)) | (Step::Member(name), Step::Either(index)) => {
            *name == index.to_string()
        }
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

struct Walk<'w> {
    types: &'w mut FieldTypes,
    place: &'w Place,
    /// Names that `exists` and `all` give, innermost last.
    locals: Vec<(String, Option<Kind>)>,
    changed: &'w mut bool,
}

impl Walk<'_> {
    /// The type of a part as far as it is known by now; `expected` is what its surroundings want it to be.
    fn kind(&mut self, ast: &Ast, expected: Option<&Kind>) -> Option<Kind> {
        match &ast.node {
            Node::Null => Some(Kind::Null),
            Node::Bool(_) => Some(Kind::Bool),
            Node::Number { whole, .. } => Some(if *whole { Kind::Int } else { Kind::Decimal }),
            Node::Text(_) => Some(Kind::Text),
            Node::List(items) => {
                let element = match expected {
                    Some(Kind::List(of)) => Some((**of).clone()),
                    _ => None,
                };
                self.alike(items.iter(), element.as_ref()).map(|kind| Kind::List(Box::new(kind)))
            }
            Node::Path(origin) => self.path(ast, origin, expected),
            Node::Not(inner) => {
                self.kind(inner, Some(&Kind::Bool));
                Some(Kind::Bool)
            }
            Node::Or(parts) | Node::And(parts) => {
                for part in parts {
                    self.kind(part, Some(&Kind::Bool));
                }
                Some(Kind::Bool)
            }
            Node::Negate(inner) => self.kind(inner, Some(&Kind::Decimal)),
            Node::Compare(comparison, left, right) => {
                let presence = matches!(comparison, Comparison::Equal | Comparison::NotEqual)
                    && (matches!(left.node, Node::Null) || matches!(right.node, Node::Null));
                if presence {
                    self.kind(left, None);
                    self.kind(right, None);
                } else {
                    self.alike([&**left, &**right].into_iter(), None);
                }
                Some(Kind::Bool)
            }
            Node::In(needle, list) => {
                let element = match self.kind(list, None) {
                    Some(Kind::List(of)) => Some(*of),
                    _ => None,
                };
                let needle = self.kind(needle, element.map(widest).as_ref());
                if let Some(needle) = needle.filter(|kind| *kind != Kind::Null) {
                    self.kind(list, Some(&Kind::List(Box::new(widest(needle)))));
                }
                Some(Kind::Bool)
            }
            Node::Arithmetic(arithmetic, left, right) => match arithmetic {
                Arithmetic::Add => self.alike([&**left, &**right].into_iter(), expected),
                Arithmetic::Subtract | Arithmetic::Multiply => {
                    let left = self.kind(left, Some(&Kind::Decimal));
                    let right = self.kind(right, Some(&Kind::Decimal));
                    left.and_then(|left| left.join(&right?))
                }
                Arithmetic::Divide | Arithmetic::Remainder => {
                    self.kind(left, Some(&Kind::Int));
                    self.kind(right, Some(&Kind::Int));
                    Some(Kind::Int)
                }
            },
            Node::If(condition, then, otherwise) => {
                self.kind(condition, Some(&Kind::Bool));
                self.alike([&**then, &**otherwise].into_iter(), expected)
            }
            Node::Call { name, target, arguments, .. } => {
                let (function, _) = Function::named(name)?;
                let parts: Vec<&Ast> = target.iter().map(|target| &**target).chain(arguments).collect();
                self.call(function, &parts, expected)
            }
        }
    }

    fn call(&mut self, function: Function, parts: &[&Ast], expected: Option<&Kind>) -> Option<Kind> {
        match function {
            Function::Has => Some(Kind::Bool),
            Function::Exists | Function::All => {
                if let [list, name, body] = parts
                    && let Node::Path(Origin::Payload(steps)) = &name.node
                    && let [Step::Member(name)] = &steps[..]
                {
                    let element = match self.kind(list, None) {
                        Some(Kind::List(of)) => Some(*of),
                        _ => None,
                    };
                    self.locals.push((name.clone(), element));
                    self.kind(body, Some(&Kind::Bool));
                    if let Some((_, Some(element))) = self.locals.pop() {
                        self.kind(list, Some(&Kind::List(Box::new(element))));
                    }
                }
                Some(Kind::Bool)
            }
            Function::Coalesce => self.alike(parts.iter().copied(), expected),
            _ => {
                for (index, part) in parts.iter().enumerate() {
                    self.kind(part, function.expects(index).as_ref());
                }
                match function {
                    Function::Size | Function::Int => Some(Kind::Int),
                    Function::Round | Function::Div => Some(Kind::Decimal),
                    Function::Timestamp => Some(Kind::Timestamp),
                    Function::Date => Some(Kind::Date),
                    Function::Contains | Function::StartsWith | Function::EndsWith => Some(Kind::Bool),
                    _ => Some(Kind::Text),
                }
            }
        }
    }

    /// Parts that have one type: what is known of one is expected of the others.
    fn alike<'a>(&mut self, parts: impl Iterator<Item = &'a Ast> + Clone, expected: Option<&Kind>) -> Option<Kind> {
        let mut joined: Option<Kind> = None;
        for part in parts.clone() {
            if let Some(kind) = self.kind(part, expected) {
                // Parts that do not agree are the checker's business.
                joined = match joined {
                    Some(joined) => joined.join(&kind).or(Some(joined)),
                    None => Some(kind),
                };
            }
        }
        let wanted = widest(joined.clone().filter(|kind| *kind != Kind::Null)?);
        for part in parts {
            self.kind(part, Some(&wanted));
        }
        joined
    }

    fn path(&mut self, ast: &Ast, origin: &Origin, expected: Option<&Kind>) -> Option<Kind> {
        if let Origin::Payload(steps) = origin
            && let [Step::Member(name)] = &steps[..]
            && let Some((_, kind)) = self.locals.iter_mut().rev().find(|(local, _)| local == name)
        {
            if kind.is_none() {
                *kind = expected.cloned();
            }
            return kind.clone();
        }
        if let Origin::Meta(meta) = origin {
            return Some(Kind::of(&meta_type(meta)));
        }
        let expected = expected.filter(|kind| **kind != Kind::Null);
        match (self.types.0.iter_mut().find(|known| same_field(&known.origin, origin)), expected) {
            (Some(Known { says: Says::Declared(column), .. }), _) => Some(Kind::of(column)),
            (Some(Known { says: Says::Inferred(kind), .. }), expected) => {
                // A whole number is a number: the narrower use decides.
                if *kind == Kind::Decimal && expected == Some(&Kind::Int) {
                    *kind = Kind::Int;
                    *self.changed = true;
                }
                Some(kind.clone())
            }
            (None, Some(expected)) => {
                let place = self.place.within_text(ast.range.clone()).to_string();
                let says = Says::Inferred(expected.clone());
                self.types.0.push(Known { origin: origin.clone(), says, place });
                *self.changed = true;
                Some(expected.clone())
            }
            (None, None) => None,
        }
    }
}

/// What a neighbour of a value of this type may be: beside a whole number stands any number.
fn widest(kind: Kind) -> Kind {
    match kind {
        Kind::Int => Kind::Decimal,
        Kind::List(of) => Kind::List(Box::new(widest(*of))),
        other => other,
    }
}
