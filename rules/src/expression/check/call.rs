//! Checks of calls: which function, how it is written, what its arguments are.

use std::ops::Range;

use super::{Checker, Local, MOST_PLACES, NO_DIGITS, Part, SWEEP, align_cost, bounded, product_cost, read_as};
use crate::codes;
use crate::diagnose::closest;
use crate::expression::Trouble;
use crate::expression::evaluate::Op;
use crate::expression::function::{Form, Function};
use crate::expression::kind::{Digits, Kind};
use crate::expression::parse::{Ast, Node};
use crate::path::{Origin, Step};

impl Checker<'_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        name_at: &Range<usize>,
        target: Option<&Ast>,
        arguments: &[Ast],
        range: &Range<usize>,
    ) -> Result<Part, Trouble> {
        let names = || Function::TABLE.iter().map(|entry| entry.1);
        let usages = || Function::TABLE.iter().map(|entry| entry.3);
        let Some((function, form)) = Function::named(name) else {
            let near = closest(name, names()).map(|near| format!("did you mean `{near}`?"));
            return Err(Trouble::new(
                codes::EXPRESSION_FUNCTION,
                name_at.clone(),
                format!("there is no function `{name}`"),
            )
            .allowed(usages())
            .suggest(near));
        };
        let misused = |at: Range<usize>| {
            let message = format!("`{name}` is used otherwise");
            Trouble::new(codes::EXPRESSION_FUNCTION, at, message).allowed([function.usage()])
        };
        if (target.is_some() && form == Form::Call) || (target.is_none() && form == Form::Method) {
            return Err(misused(name_at.clone()));
        }
        let parts: Vec<&Ast> = target.into_iter().chain(arguments).collect();
        let made = |op, kind, digits, cost, wide| Part { op, kind, digits, cost, wide, range: range.clone() };
        Ok(match (function, &parts[..]) {
            (Function::Has, [asked]) => match &asked.node {
                Node::Path(origin) if self.local(origin).is_none() => {
                    let index = self.presence_typed(origin);
                    made(Op::Has(index), Kind::Bool, NO_DIGITS, 1, false)
                }
                _ => return Err(misused(asked.range.clone())),
            },
            (Function::Exists | Function::All, [list, name, body]) => {
                self.walk(function, list, name, body, range, misused)?
            }
            (Function::Size, [of]) => {
                let of = self.part(of)?;
                if !matches!(of.kind, Kind::Text | Kind::List(_) | Kind::Null) {
                    return Err(self.wrong(&of, "text and lists have a size", &Kind::Text));
                }
                self.no_sweep_inside(&of)?;
                made(Op::Call(function, vec![of.op]), Kind::Int, Digits { whole: 20, scale: 0 }, of.cost + SWEEP, false)
            }
            (Function::String, [of]) => {
                let of = self.part(of)?;
                if matches!(of.kind, Kind::List(_)) {
                    return Err(self.wrong(&of, "a list has no form as text", &Kind::Text));
                }
                self.no_sweep_inside(&of)?;
                let (cost, wide) = (of.cost + SWEEP, of.wide);
                made(Op::Call(function, vec![of.op]), Kind::Text, NO_DIGITS, cost, wide)
            }
            (Function::Int, [of]) => {
                let of = self.number(of)?;
                let (digits, cost) = (Digits { scale: 0, ..of.digits }, of.cost + 1 + align_cost(of.digits, NO_DIGITS));
                made(Op::Call(function, vec![of.op]), Kind::Int, digits, cost, false)
            }
            (Function::Round, [of, places]) => {
                let (of, places) = (self.number(of)?, digits_of(places)?);
                let digits = Digits { whole: of.digits.whole + 1, scale: of.digits.scale.min(places) };
                let kind = if places == 0 { Kind::Int } else { Kind::Decimal };
                let cost = of.cost + 1 + align_cost(of.digits, NO_DIGITS);
                made(Op::Round(Box::new(of.op), places), kind, digits, cost, false)
            }
            (Function::Div, [left, right, places]) => {
                let (left, right, places) = (self.number(left)?, self.number(right)?, digits_of(places)?);
                // The smallest divisor has one digit in its last place.
                let digits = Digits { whole: left.digits.whole + right.digits.scale + 1, scale: places };
                bounded(digits, range)?;
                let long = left.digits.both() + right.digits.scale + places;
                let cost = left.cost + right.cost + 1 + product_cost(long, right.digits.both());
                let kind = if places == 0 { Kind::Int } else { Kind::Decimal };
                made(Op::Divide(Box::new(left.op), Box::new(right.op), places), kind, digits, cost, false)
            }
            (Function::Coalesce, [first, rest @ ..]) if !rest.is_empty() => {
                let mut joined = self.part(first)?;
                let mut ops = Vec::with_capacity(parts.len());
                for part in rest {
                    let part = self.part(part)?;
                    joined.kind = self.one_kind(&joined, &part)?;
                    joined.digits = joined.digits.join(part.digits);
                    (joined.cost, joined.wide) = (joined.cost + part.cost + 1, joined.wide || part.wide);
                    ops.push(std::mem::replace(&mut joined.op, part.op));
                }
                ops.push(joined.op);
                made(Op::Call(function, ops), joined.kind, joined.digits, joined.cost + 1, joined.wide)
            }
            (Function::Timestamp, [of]) => self.constant(of, &Kind::Timestamp, misused)?,
            (Function::Date, [of]) if matches!(of.node, Node::Text(_)) => self.constant(of, &Kind::Date, misused)?,
            (Function::Date, [of]) => {
                let of = self.part(of)?;
                if !matches!(of.kind, Kind::Timestamp | Kind::Null) {
                    return Err(self.wrong(&of, "the date of a timestamp can be told", &Kind::Timestamp));
                }
                made(Op::Call(function, vec![of.op]), Kind::Date, NO_DIGITS, of.cost + 1, false)
            }
            (Function::Contains | Function::StartsWith | Function::EndsWith, [text, part]) => {
                let (text, part) = (self.text(text)?, self.text(part)?);
                if function == Function::Contains {
                    self.no_sweep_inside(&text)?;
                }
                let cost = text.cost + part.cost + SWEEP;
                made(Op::Call(function, vec![text.op, part.op]), Kind::Bool, NO_DIGITS, cost, false)
            }
            (Function::LowerAscii | Function::UpperAscii | Function::Trim, [text]) => {
                let text = self.text(text)?;
                self.no_sweep_inside(&text)?;
                let (cost, wide) = (text.cost + SWEEP, text.wide);
                made(Op::Call(function, vec![text.op]), Kind::Text, NO_DIGITS, cost, wide)
            }
            _ => return Err(misused(range.clone())),
        })
    }

    fn walk(
        &mut self,
        function: Function,
        list: &Ast,
        name: &Ast,
        body: &Ast,
        range: &Range<usize>,
        misused: impl Fn(Range<usize>) -> Trouble,
    ) -> Result<Part, Trouble> {
        let elements = match &list.node {
            Node::List(items) => Some(items.len() as u64),
            _ => None,
        };
        let list = self.part(list)?;
        let Kind::List(of) = list.kind.clone() else {
            return Err(self.wrong(&list, "only a list is walked", &Kind::List(Box::new(Kind::Text))));
        };
        let local = match &name.node {
            Node::Path(Origin::Payload(steps)) => match &steps[..] {
                [Step::Member(name)] => name.clone(),
                _ => return Err(misused(name.range.clone())),
            },
            _ => return Err(misused(name.range.clone())),
        };
        let sweeps = elements.is_none();
        if sweeps {
            self.no_sweep_inside(&list)?;
        }
        self.sweeps += usize::from(sweeps);
        self.locals.push(Local { name: local, kind: *of, digits: list.digits });
        let body = self.condition_part(body);
        self.locals.pop();
        self.sweeps -= usize::from(sweeps);
        let body = body?;
        let times = elements.unwrap_or(SWEEP);
        let cost = list.cost + times.saturating_mul(body.cost + 1);
        let op = Op::Walk { list: Box::new(list.op), body: Box::new(body.op), every: function == Function::All };
        Ok(Part { op, kind: Kind::Bool, digits: NO_DIGITS, cost, wide: false, range: range.clone() })
    }

    fn constant(&mut self, of: &Ast, kind: &Kind, misused: impl Fn(Range<usize>) -> Trouble) -> Result<Part, Trouble> {
        match &of.node {
            Node::Text(_) => {
                let part = self.part(of)?;
                read_as(part, kind)
            }
            _ => Err(misused(of.range.clone())),
        }
    }
}

/// How many digits `round` and `div` keep: a number written out.
fn digits_of(ast: &Ast) -> Result<u32, Trouble> {
    let places = match &ast.node {
        Node::Number { value, whole: true } => value.to_string().parse().ok(),
        _ => None,
    };
    places.filter(|places| *places <= MOST_PLACES).ok_or_else(|| {
        let message = "how many digits stay is a number written out";
        Trouble::new(codes::EXPRESSION_TYPE, ast.range.clone(), message).allowed([format!("0 to {MOST_PLACES}")])
    })
}
