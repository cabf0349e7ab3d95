//! From words to a tree, by CEL's grammar. Paths into the event are put together here, so that only whole paths remain.

use std::ops::Range;

use super::Trouble;
use super::lex::{Spanned, Token};
use super::number::Number;
use crate::codes;
use crate::path::{Origin, Step};

/// Deepest nesting of parentheses, calls and signs: what walks the tree is recursive.
const MOST_DEPTH: usize = 32;

/// A part of an expression and the bytes of the text where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub range: Range<usize>,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number {
        value: Number,
        whole: bool,
    },
    Text(String),
    List(Vec<Ast>),
    /// A field of the event, its metadata, or a name that `exists` or `all` gives.
    Path(Origin),
    Not(Box<Ast>),
    Negate(Box<Ast>),
    /// `||` of any number of conditions.
    Or(Vec<Ast>),
    And(Vec<Ast>),
    Compare(Comparison, Box<Ast>, Box<Ast>),
    In(Box<Ast>, Box<Ast>),
    Arithmetic(Arithmetic, Box<Ast>, Box<Ast>),
    If(Box<Ast>, Box<Ast>, Box<Ast>),
    Call {
        name: String,
        name_at: Range<usize>,
        /// `target.name(…)`.
        target: Option<Box<Ast>>,
        arguments: Vec<Ast>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Words that CEL keeps for itself; as a field's name they go behind a dot or into `$payload['…']`.
const RESERVED: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
    "while",
    "true",
    "false",
];

pub(super) fn parse(tokens: Vec<Spanned>) -> Result<Ast, Trouble> {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    if matches!(parser.peek(), Token::End) {
        return Err(parser.trouble("the expression is empty"));
    }
    let ast = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(ast),
        _ => Err(parser.trouble("the expression should end here, or go on with an operator")),
    }
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn range(&self) -> Range<usize> {
        self.tokens[self.at].1.clone()
    }

    fn next(&mut self) -> Spanned {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let there = self.is(sign);
        if there {
            self.next();
        }
        there
    }

    fn expect(&mut self, sign: &str) -> Result<usize, Trouble> {
        let end = self.range().end;
        if self.take(sign) { Ok(end) } else { Err(self.trouble(format!("`{sign}` was expected"))) }
    }

    fn trouble(&self, message: impl Into<String>) -> Trouble {
        Trouble::new(codes::EXPRESSION_SYNTAX, self.range(), message)
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Parser) -> Result<T, Trouble>) -> Result<T, Trouble> {
        if self.depth >= MOST_DEPTH {
            let message = format!("the expression nests deeper than {MOST_DEPTH} levels");
            return Err(Trouble::new(codes::EXPRESSION_COST, self.range(), message));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Ast, Trouble> {
        self.deeper(|parser| {
            let condition = parser.either()?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let then = parser.either()?;
            parser.expect(":")?;
            let otherwise = parser.expression()?;
            let range = condition.range.start..otherwise.range.end;
            Ok(Ast { range, node: Node::If(Box::new(condition), Box::new(then), Box::new(otherwise)) })
        })
    }

    fn either(&mut self) -> Result<Ast, Trouble> {
        self.several("||", Parser::both, Node::Or)
    }

    fn both(&mut self) -> Result<Ast, Trouble> {
        self.several("&&", Parser::relation, Node::And)
    }

    fn several(
        &mut self,
        sign: &str,
        part: fn(&mut Parser) -> Result<Ast, Trouble>,
        node: fn(Vec<Ast>) -> Node,
    ) -> Result<Ast, Trouble> {
        let first = part(self)?;
        if !self.is(sign) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take(sign) {
            parts.push(part(self)?);
        }
        let range = parts[0].range.start..parts[parts.len() - 1].range.end;
        Ok(Ast { range, node: node(parts) })
    }

    fn relation(&mut self) -> Result<Ast, Trouble> {
        let mut left = self.sum()?;
        loop {
            let comparison = match self.peek() {
                Token::Sign("==") => Some(Comparison::Equal),
                Token::Sign("!=") => Some(Comparison::NotEqual),
                Token::Sign("<") => Some(Comparison::Less),
                Token::Sign("<=") => Some(Comparison::LessEqual),
                Token::Sign(">") => Some(Comparison::Greater),
                Token::Sign(">=") => Some(Comparison::GreaterEqual),
                Token::Name(name) if name == "in" => None,
                _ => return Ok(left),
            };
            self.next();
            let right = self.sum()?;
            let range = left.range.start..right.range.end;
            let (left_part, right_part) = (Box::new(left), Box::new(right));
            let node = match comparison {
                Some(comparison) => Node::Compare(comparison, left_part, right_part),
                None => Node::In(left_part, right_part),
            };
            left = Ast { range, node };
        }
    }

    fn sum(&mut self) -> Result<Ast, Trouble> {
        self.chain(Parser::product, &[("+", Arithmetic::Add), ("-", Arithmetic::Subtract)])
    }

    fn product(&mut self) -> Result<Ast, Trouble> {
        self.chain(
            Parser::signed,
            &[("*", Arithmetic::Multiply), ("/", Arithmetic::Divide), ("%", Arithmetic::Remainder)],
        )
    }

    fn chain(
        &mut self,
        part: fn(&mut Parser) -> Result<Ast, Trouble>,
        signs: &[(&str, Arithmetic)],
    ) -> Result<Ast, Trouble> {
        let mut left = part(self)?;
        let mut length = 0;
        while let Some((_, arithmetic)) = signs.iter().find(|(sign, _)| self.is(sign)) {
            // A chain nests to the left, one level for each sign.
            length += 1;
            if length > MOST_CHAIN {
                let message = format!("more than {MOST_CHAIN} operators in one chain");
                return Err(Trouble::new(codes::EXPRESSION_COST, self.range(), message));
            }
            self.next();
            let right = part(self)?;
            let range = left.range.start..right.range.end;
            left = Ast { range, node: Node::Arithmetic(*arithmetic, Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Ast, Trouble> {
        let start = self.range().start;
        let not = self.is("!");
        if !not && !self.is("-") {
            return self.member();
        }
        self.next();
        let inner = self.deeper(Parser::signed)?;
        let range = start..inner.range.end;
        let node = match inner.node {
            Node::Number { value, whole } if !not => Node::Number { value: value.negate(), whole },
            node => {
                let inner = Box::new(Ast { range: inner.range, node });
                if not { Node::Not(inner) } else { Node::Negate(inner) }
            }
        };
        Ok(Ast { range, node })
    }

    fn member(&mut self) -> Result<Ast, Trouble> {
        let mut left = self.primary()?;
        loop {
            if self.take(".") {
                let (token, name_at) = self.next();
                let Token::Name(name) = token else {
                    return Err(Trouble::new(codes::EXPRESSION_SYNTAX, name_at, "a name was expected behind the dot"));
                };
                if self.is("(") {
                    let (arguments, end) = self.arguments()?;
                    let range = left.range.start..end;
                    left = Ast { range, node: Node::Call { name, name_at, target: Some(Box::new(left)), arguments } };
                } else {
                    left = extend(left, Step::Member(name), name_at.end)?;
                }
            } else if self.take("[") {
                let (token, at) = self.next();
                let step = match token {
                    Token::Number { value, whole: true } => value.to_string().parse().ok().map(Step::Index),
                    Token::Text(name) => Some(Step::Member(name)),
                    _ => None,
                };
                let Some(step) = step else {
                    let message = "between `[` and `]` stands a number from 0, or a name in quotes";
                    return Err(Trouble::new(codes::EXPRESSION_SYNTAX, at, message));
                };
                let end = self.expect("]")?;
                left = extend(left, step, end)?;
            } else {
                return match &left.node {
                    Node::Path(Origin::Payload(steps)) if steps.is_empty() => {
                        let message = "`$payload` stands before a name: `$payload['first name']`";
                        Err(Trouble::new(codes::EXPRESSION_SYNTAX, left.range, message))
                    }
                    _ => Ok(left),
                };
            }
        }
    }

    fn arguments(&mut self) -> Result<(Vec<Ast>, usize), Trouble> {
        self.expect("(")?;
        self.list_until(")")
    }

    fn list_until(&mut self, close: &str) -> Result<(Vec<Ast>, usize), Trouble> {
        let mut items = Vec::new();
        if !self.is(close) {
            loop {
                items.push(self.expression()?);
                if !self.take(",") {
                    break;
                }
            }
        }
        let end = self.range().end;
        match self.take(close) {
            true => Ok((items, end)),
            false => Err(self.trouble(format!("`,` or `{close}` was expected"))),
        }
    }

    fn primary(&mut self) -> Result<Ast, Trouble> {
        let (token, range) = self.next();
        let start = range.start;
        let node = match token {
            Token::Number { value, whole } => Node::Number { value, whole },
            Token::Text(text) => Node::Text(text),
            Token::Name(name) if name == "null" => Node::Null,
            Token::Name(name) if name == "true" => Node::Bool(true),
            Token::Name(name) if name == "false" => Node::Bool(false),
            Token::Name(name) if RESERVED.contains(&name.as_str()) => {
                let message = format!("`{name}` is a word of the language");
                let suggestion = format!("a field of that name is `$payload['{name}']`");
                return Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, message).suggest(Some(suggestion)));
            }
            Token::Name(name) if self.is("(") => {
                let (arguments, end) = self.arguments()?;
                return Ok(Ast {
                    range: start..end,
                    node: Node::Call { name, name_at: range, target: None, arguments },
                });
            }
            Token::Name(name) => Node::Path(Origin::Payload(vec![Step::Member(name)])),
            Token::Root(root) if root == "$payload" => Node::Path(Origin::Payload(Vec::new())),
            Token::Root(root) if root == "$meta" => return self.meta(start),
            Token::Root(root) => {
                let message = format!("there is no `{root}`");
                return Err(
                    Trouble::new(codes::EXPRESSION_SYNTAX, range, message).allowed(["$meta.NAME", "$payload['NAME']"])
                );
            }
            Token::Sign("(") => {
                let inner = self.expression()?;
                let end = self.expect(")")?;
                return Ok(Ast { range: start..end, node: inner.node });
            }
            Token::Sign("[") => {
                let (items, end) = self.deeper(|parser| parser.list_until("]"))?;
                return Ok(Ast { range: start..end, node: Node::List(items) });
            }
            Token::Sign("{") => {
                let message = "objects cannot be made here: an expression gives one value for one column";
                return Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, message));
            }
            Token::End => return Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, "the expression ends too early")),
            Token::Sign(sign) => {
                let message = format!("a value was expected, not `{sign}`");
                return Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, message));
            }
        };
        Ok(Ast { range, node })
    }

    /// `$meta.name`, `$meta.headers.name`, `$meta.headers['X-Name']`.
    fn meta(&mut self, start: usize) -> Result<Ast, Trouble> {
        let mut text = "$meta".to_owned();
        let mut end = start + text.len();
        loop {
            let headers = text == "$meta.headers";
            if self.is("[") && headers {
                self.next();
                let (token, at) = self.next();
                let Token::Text(name) = token else {
                    let message = "the header's name was expected, in quotes";
                    return Err(Trouble::new(codes::EXPRESSION_SYNTAX, at, message));
                };
                end = self.expect("]")?;
                text = format!("{text}.{name}");
                break;
            }
            // A call on metadata: `$meta.event.startsWith('a')`.
            let call = matches!(self.tokens.get(self.at + 2), Some((Token::Sign("("), _)));
            let known = Origin::parse(&text).is_ok();
            if !self.is(".") || (known && call) || (known && !headers) {
                break;
            }
            self.next();
            let (token, at) = self.next();
            let Token::Name(name) = token else {
                return Err(Trouble::new(codes::EXPRESSION_SYNTAX, at, "a name was expected behind the dot"));
            };
            end = at.end;
            text = format!("{text}.{name}");
        }
        match Origin::parse(&text) {
            Ok(origin) => Ok(Ast { range: start..end, node: Node::Path(origin) }),
            Err(_) => {
                let words = crate::path::Meta::WORDS;
                let near = crate::diagnose::closest(&text, words.iter().copied());
                Err(Trouble::new(codes::EXPRESSION_SYNTAX, start..end, format!("there is no metadata `{text}`"))
                    .allowed(words.iter().copied())
                    .suggest(near.map(|word| format!("did you mean `{word}`?"))))
            }
        }
    }
}

/// Longest chain of `+`, `-`, `*`, `/`, `%` without parentheses.
const MOST_CHAIN: usize = 64;

fn extend(left: Ast, step: Step, end: usize) -> Result<Ast, Trouble> {
    let range = left.range.start..end;
    match left.node {
        Node::Path(Origin::Payload(mut steps)) => {
            steps.push(step);
            if steps.len() > crate::scan::MAX_DEPTH {
                let message = "more steps than a payload may nest (64)";
                return Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, message));
            }
            Ok(Ast { range, node: Node::Path(Origin::Payload(steps)) })
        }
        _ => {
            let message = "only a field of the event has parts";
            Err(Trouble::new(codes::EXPRESSION_SYNTAX, range, message))
        }
    }
}
