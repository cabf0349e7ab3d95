//! Words of an expression: CEL's tokens, each with the bytes where it stands.

use std::ops::Range;

use super::Trouble;
use super::number::Number;
use crate::codes;

#[derive(Clone, Debug)]
pub(super) enum Token {
    Name(String),
    /// `$meta`, `$payload`.
    Root(String),
    /// Digits as written; `whole` without point and exponent.
    Number {
        value: Number,
        whole: bool,
    },
    Text(String),
    Sign(&'static str),
    End,
}

pub(super) type Spanned = (Token, Range<usize>);

/// Longest first, so that `<=` is not read as `<`.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",", "?", ":",
    "{", "}",
];

/// All tokens, the last one [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, Trouble> {
    let mut lexer = Lexer { text, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.space();
        let start = lexer.at;
        let token = lexer.next()?;
        let end = matches!(token, Token::End);
        out.push((token, start..lexer.at));
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        loop {
            let blank = self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
            self.at += blank;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn trouble(&self, range: Range<usize>, message: impl Into<String>) -> Trouble {
        Trouble::new(codes::EXPRESSION_SYNTAX, range, message)
    }

    fn next(&mut self) -> Result<Token, Trouble> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if let Some(raw) = self.quote_ahead() {
            return self.quoted(raw);
        }
        if first == '$' || first == '_' || first.is_ascii_alphabetic() {
            let length = self.rest()[1..].find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            let word = self.rest()[..length.map_or(self.rest().len(), |length| length + 1)].to_owned();
            self.at += word.len();
            return Ok(if first == '$' { Token::Root(word) } else { Token::Name(word) });
        }
        let digit_behind_point = self.rest()[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && digit_behind_point) {
            return self.number();
        }
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let range = self.at..self.at + first.len_utf8();
        let suggestion = match first {
            '=' => Some("two values are compared with `==`"),
            '&' => Some("both conditions: `&&`"),
            '|' => Some("either condition: `||`"),
            _ => None,
        };
        Err(self.trouble(range, format!("`{}` has no meaning here", first.escape_default())).suggest(suggestion))
    }

    /// A quote, or a raw one (`r'…'`): `Some(raw)`.
    fn quote_ahead(&self) -> Option<bool> {
        let rest = self.rest();
        let raw = rest.strip_prefix(['r', 'R']);
        if raw.is_some_and(|rest| rest.starts_with(['\'', '"'])) {
            return Some(true);
        }
        rest.starts_with(['\'', '"']).then_some(false)
    }

    fn quoted(&mut self, raw: bool) -> Result<Token, Trouble> {
        let start = self.at;
        self.at += usize::from(raw);
        let quote = if self.rest().starts_with("'''") || self.rest().starts_with("\"\"\"") {
            self.rest()[..3].to_owned()
        } else {
            self.rest()[..1].to_owned()
        };
        self.at += quote.len();
        let mut out = String::new();
        loop {
            if self.rest().starts_with(&quote) {
                self.at += quote.len();
                return Ok(Token::Text(out));
            }
            let Some(next) = self.rest().chars().next() else {
                return Err(self.trouble(start..self.text.len(), format!("the text has no closing {quote}")));
            };
            if next == '\n' && quote.len() == 1 {
                return Err(self.trouble(start..self.at, format!("the text has no closing {quote} on its line")));
            }
            if next == '\\' && !raw {
                out.push(self.escape()?);
            } else {
                out.push(next);
                self.at += next.len_utf8();
            }
        }
    }

    fn escape(&mut self) -> Result<char, Trouble> {
        let start = self.at;
        let kind = self.rest().chars().nth(1);
        let hex = |digits: usize| {
            let digits = self.rest().get(2..2 + digits)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| plain)?)
        };
        let octal = || {
            let digits = self.rest().get(1..4).filter(|digits| digits.bytes().all(|b| (b'0'..=b'7').contains(&b)))?;
            char::from_u32(u32::from_str_radix(digits, 8).ok()?)
        };
        let (read, length) = match kind {
            Some('n') => (Some('\n'), 2),
            Some('r') => (Some('\r'), 2),
            Some('t') => (Some('\t'), 2),
            Some('a') => (Some('\u{7}'), 2),
            Some('b') => (Some('\u{8}'), 2),
            Some('f') => (Some('\u{c}'), 2),
            Some('v') => (Some('\u{b}'), 2),
            Some(plain @ ('\\' | '\'' | '"' | '`' | '?')) => (Some(plain), 2),
            Some('x' | 'X') => (hex(2), 4),
            Some('u') => (hex(4), 6),
            Some('U') => (hex(8), 10),
            Some('0'..='3') => (octal(), 4),
            _ => (None, 2),
        };
        let Some(read) = read else {
            return Err(self
                .trouble(start..(start + 2).min(self.text.len()), "there is no such escape in text")
                .suggest(Some("a backslash itself is written `\\\\`; in JSON every one of them twice")));
        };
        self.at += length;
        Ok(read)
    }

    fn number(&mut self) -> Result<Token, Trouble> {
        let start = self.at;
        if let Some(hex) = self.rest().strip_prefix("0x").or_else(|| self.rest().strip_prefix("0X")) {
            let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let value = u64::from_str_radix(&hex[..length], 16);
            self.at += 2 + length;
            self.unsigned_mark();
            let value = value.ok().and_then(|value| Number::parse(&value.to_string()));
            return match value {
                Some(value) => Ok(Token::Number { value, whole: true }),
                None => Err(self.trouble(start..self.at, "this is no hexadecimal number of up to 64 bits")),
            };
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let whole = digits(self.rest());
        let mut length = whole;
        let mut fraction = 0;
        if self.rest()[length..].starts_with('.') && digits(&self.rest()[length + 1..]) > 0 {
            fraction = digits(&self.rest()[length + 1..]);
            length += 1 + fraction;
        }
        let mut exponent = 0i32;
        if let Some(rest) = self.rest()[length..].strip_prefix(['e', 'E']) {
            let sign = usize::from(rest.starts_with(['+', '-']));
            let count = digits(&rest[sign..]);
            if count > 0 {
                exponent = rest[..sign + count].trim_start_matches('+').parse().unwrap_or(i32::MAX);
                length += 1 + sign + count;
            }
        }
        let written = self.rest()[..length].to_owned();
        self.at += length;
        self.unsigned_mark();
        let range = start..self.at;
        if written.len() > MOST_LITERAL || exponent.unsigned_abs() > MOST_LITERAL as u32 {
            return Err(self.trouble(range, format!("a number has at most {MOST_LITERAL} digits")));
        }
        let mantissa = format!("{:0>1}{}", &written[..whole], &written[whole..].trim_start_matches('.')[..fraction]);
        let scale = fraction as i32 - exponent;
        let value = Number::parse(&shifted(&mantissa, scale));
        let plain = fraction == 0 && written.len() == whole;
        match value {
            Some(value) => Ok(Token::Number { value, whole: plain }),
            None => Err(self.trouble(range, "this is no number")),
        }
    }

    /// CEL marks unsigned numbers with `u`; here all whole numbers are one type.
    fn unsigned_mark(&mut self) {
        self.at += usize::from(self.rest().starts_with(['u', 'U']));
    }
}

/// Digits and exponent of a number that is written out.
const MOST_LITERAL: usize = 100;

/// `digits` / 10^`scale` written out.
fn shifted(digits: &str, scale: i32) -> String {
    if scale <= 0 {
        return format!("{digits}{}", "0".repeat(scale.unsigned_abs() as usize));
    }
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{whole}.{fraction}")
}
