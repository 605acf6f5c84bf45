//! A look at the tokens before the parser sees them: it bounds the parser's recursion, which would
//! follow any source down the stack, and says common mistakes in plain words.

use super::error::{ExprError, member, quoted};

/// Bytes of one expression.
pub(super) const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// How deep an expression may nest; a chain such as `a + b + c` or `a.b.c` nests once a link.
pub(super) const DEPTH_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    Text,
    Symbol,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind,
    pub(super) text: &'s str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn span(&self) -> (usize, usize) {
        (self.start, self.end())
    }
}

/// The tokens of `source`, comments and blanks left out.
///
/// # Errors
/// A text that is not closed, a character that CEL does not know, nesting too deep, a known mistake.
pub(super) fn scan(source: &str) -> Result<Vec<Token<'_>>, ExprError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(ExprError::new("", (0, 0), "the expression is longer than 64 KiB"));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let length = blank(rest);
        if length > 0 {
            at += length;
            continue;
        }
        let (kind, length) = token(rest).map_err(|message| {
            let width = rest.chars().next().map_or(1, char::len_utf8);
            ExprError::new(source, (at, at + width), message)
        })?;
        let text = rest.get(..length).unwrap_or(rest);
        tokens.push(Token { kind, text, start: at });
        at += text.len();
    }
    if tokens.is_empty() {
        return Err(ExprError::new(source, (0, 0), "the expression is empty")
            .help("an empty text is written \"''\", nothing at all is \"null\""));
    }
    if depth(&tokens) > DEPTH_MAX {
        let message = format!("the expression nests or chains deeper than {DEPTH_MAX}");
        return Err(ExprError::new(source, (0, 0), message));
    }
    mistakes(source, &tokens)?;
    Ok(tokens)
}

fn blank(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\x0c']).len()
}

fn token(rest: &str) -> Result<(Kind, usize), String> {
    let while_in = |wanted: fn(u8) -> bool| rest.bytes().take_while(|b| wanted(*b)).count();
    let first = rest.bytes().next().unwrap_or_default();
    let prefix = while_in(|b| matches!(b, b'r' | b'R' | b'b' | b'B'));
    if prefix <= 2 && matches!(rest.as_bytes().get(prefix), Some(b'\'' | b'"')) {
        return text_end(rest, prefix).map(|end| (Kind::Text, end)).ok_or_else(|| {
            "this text is not closed; a quote inside it is written \\' or the whole in other quotes"
                .to_owned()
        });
    }
    match first {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
            Ok((Kind::Name, while_in(|b| b.is_ascii_alphanumeric() || b == b'_')))
        }
        b'0'..=b'9' => Ok((Kind::Number, number_end(rest))),
        b'.' if rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
            Ok((Kind::Number, number_end(rest)))
        }
        b'`' => match rest.get(1..).and_then(|inner| inner.find('`')) {
            Some(length) if rest.is_char_boundary(length + 2) => Ok((Kind::Name, length + 2)),
            _ => Err("this ` is not closed".to_owned()),
        },
        b'&' | b'|' if rest.as_bytes().get(1) == Some(&first) => Ok((Kind::Symbol, 2)),
        b'=' | b'!' | b'<' | b'>' if rest.as_bytes().get(1) == Some(&b'=') => Ok((Kind::Symbol, 2)),
        b'=' | b'!' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'(' | b')' | b'.' | b','
        | b'-' | b'?' | b':' | b'+' | b'*' | b'/' | b'%' => Ok((Kind::Symbol, 1)),
        b'&' => Err("`&` is no operator: and is `&&`, on bits math.bitAnd(a, b)".to_owned()),
        b'|' => Err("`|` is no operator: or is `||`, on bits math.bitOr(a, b)".to_owned()),
        b'$' => Err("`$` begins no path: the event is `event`, as in event.status".to_owned()),
        b';' => Err("an expression is one value, without `;`".to_owned()),
        _ => Err("a character that stands only inside a text".to_owned()),
    }
}

fn number_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let digits = |from: usize| {
        bytes.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
    };
    if rest.starts_with("0x") {
        let hex = bytes.iter().skip(2).take_while(|b| b.is_ascii_hexdigit()).count();
        return 2 + hex + usize::from(matches!(bytes.get(2 + hex), Some(b'u' | b'U')));
    }
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end + usize::from(matches!(bytes.get(end), Some(b'u' | b'U')))
}

fn text_end(rest: &str, prefix: usize) -> Option<usize> {
    let raw = rest.get(..prefix)?.contains(['r', 'R']);
    let body = rest.get(prefix..)?;
    let triple = body.starts_with("'''") || body.starts_with("\"\"\"");
    let quote = body.get(..if triple { 3 } else { 1 })?;
    let mut at = quote.len();
    loop {
        let here = body.get(at..)?;
        if here.starts_with(quote) {
            return Some(prefix + at + quote.len());
        }
        let first = here.chars().next()?;
        if !triple && matches!(first, '\n' | '\r') {
            return None;
        }
        at += first.len_utf8();
        if first == '\\' && !raw {
            at += here.chars().nth(1)?.len_utf8();
        }
    }
}

/// What is known of one bracket while its tokens go by.
#[derive(Default)]
struct Group {
    /// Links of the path or call chain at hand: `a.b[0].c()` has four.
    links: usize,
    /// The deepest bracket in that chain.
    inner: usize,
    /// Operators since the last separator; each holds what stands left of it.
    operators: usize,
    /// The deepest operand of those.
    operand: usize,
    /// The deepest part so far.
    deepest: usize,
    /// Ternaries, each of which holds what follows it.
    ternaries: usize,
}

impl Group {
    fn operator(&mut self) {
        self.operators += 1;
        self.operand = self.operand.max(self.links + self.inner);
        (self.links, self.inner) = (0, 0);
    }

    fn separate(&mut self) {
        self.operand = self.operand.max(self.links + self.inner);
        self.deepest = self.deepest.max(self.operators + self.operand);
        (self.links, self.inner, self.operators, self.operand) = (0, 0, 0, 0);
    }

    fn depth(mut self) -> usize {
        self.separate();
        self.deepest + self.ternaries
    }
}

/// An upper bound of the depth of the syntax tree. `&&` and `||` do not count: the parser balances them.
fn depth(tokens: &[Token<'_>]) -> usize {
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    for token in tokens {
        match token.text {
            "(" | "[" | "{" => outer.push(std::mem::take(&mut group)),
            ")" | "]" | "}" => {
                let inside = group.depth() + 1;
                group = outer.pop().unwrap_or_default();
                group.inner = group.inner.max(inside);
                group.links += 1;
            }
            "," | ":" | "&&" | "||" => group.separate(),
            "?" => {
                group.separate();
                group.ternaries += 1;
            }
            "." => group.links += 1,
            "in" => group.operator(),
            _ if token.kind == Kind::Symbol => group.operator(),
            _ => {}
        }
    }
    let mut depth = group.depth();
    while let Some(mut group) = outer.pop() {
        group.inner = group.inner.max(depth + 1);
        depth = group.depth();
    }
    depth
}

/// Mistakes whose own parse error would lead astray.
fn mistakes(source: &str, tokens: &[Token<'_>]) -> Result<(), ExprError> {
    let error = |token: &Token<'_>, message: &str| ExprError::new(source, token.span(), message);
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let after = tokens.get(at + 1);
        let follows = |text: &str| after.is_some_and(|after| after.text == text);
        if let Some(mistake) = pairs(source, token, after) {
            return Err(mistake);
        }
        match token.text {
            "=" => return Err(error(token, "`=` is no operator: equal is `==`").corrected("==")),
            "and" | "or" | "not" | "is" if !follows("(") && wordy(before, after) => {
                let (symbol, message) = match token.text {
                    "and" => ("&&", "and is `&&`"),
                    "or" => ("||", "or is `||`"),
                    "is" => ("==", "is is `==`"),
                    _ => ("!", "not is `!`"),
                };
                return Err(error(token, message).corrected(symbol));
            }
            "like" if wordy(before, after) => {
                return Err(error(token, "`like` is no operator").help(
                    "texts have .startsWith(t), .endsWith(t), .contains(t) and .matches(regex)",
                ));
            }
            "*" if before.is_some_and(|b| b.text == "[") && follows("]") => {
                return Err(error(token, "`[*]` is not CEL")
                    .help("of each item of a list: event.lines.map(line, line.qty)"));
            }
            "in" | "true" | "false" | "null" if before.is_some_and(|b| b.text == ".") => {
                let start = before.map_or(0, |b| b.start);
                let message = format!("`{}` is a word of CEL's own, not a name", token.text);
                return Err(ExprError::new(source, (start, token.end()), message)
                    .corrected(&member(token.text)));
            }
            _ => {}
        }
    }
    words(source, tokens)
}

/// Operators of other languages that are two tokens here.
fn pairs(source: &str, token: &Token<'_>, after: Option<&Token<'_>>) -> Option<ExprError> {
    let after = after.filter(|after| after.start == token.end())?;
    let error = |message: &str| ExprError::new(source, (token.start, after.end()), message);
    Some(match (token.text, after.text) {
        ("==", "=") => error("`===` is no operator: equal is `==`").corrected("=="),
        ("!=", "=") => error("`!==` is no operator: not equal is `!=`").corrected("!="),
        ("<", ">") => error("`<>` is no operator: not equal is `!=`").corrected("!="),
        ("=", ">") => error("`=>` is no operator")
            .help("a macro names its variable first, as in event.lines.map(line, line.qty)"),
        ("?", "?") => error("`??` is no operator")
            .help("the first that is not null: coalesce(event.a, event.b)"),
        ("?", ".") => {
            error("`?.` is no operator: a path that leads nowhere is null").corrected(".")
        }
        ("{", "{") => error("`{{` is no template: an expression stands alone"),
        _ => return None,
    })
}

/// Whether a word stands where an operator would: between two operands, or (`not`) before one.
fn wordy(before: Option<&Token<'_>>, after: Option<&Token<'_>>) -> bool {
    let operand = |t: &Token<'_>| t.kind != Kind::Symbol || matches!(t.text, ")" | "]" | "}");
    after.is_some_and(|after| after.kind != Kind::Symbol || after.text == "(")
        && before.is_none_or(|before| operand(before) || matches!(before.text, "&&" | "||" | "("))
}

/// Whether the tokens, no blank between them, read as a plain text: `in-transit`, `https://a.b`.
pub(super) fn texty(source: &str, tokens: &[Token<'_>]) -> bool {
    let joins = |token: &Token<'_>| matches!(token.text, "-" | "." | ":" | "/" | "//");
    tokens.iter().all(|t| matches!(t.kind, Kind::Name | Kind::Number) || joins(t))
        && !source.trim().contains([' ', '\t', '\n'])
}

/// Whether it begins like a date, which CEL would take for a subtraction of three numbers.
fn dated(source: &str) -> bool {
    let bytes = source.trim().as_bytes();
    let shape = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    bytes.len() >= 10 && bytes.iter().take(10).enumerate().all(shape)
}

/// A plain text that lacks its quotes: `order placed`, `2026-01-01`.
fn words(source: &str, tokens: &[Token<'_>]) -> Result<(), ExprError> {
    if dated(source) {
        return Err(ExprError::new(source, (0, source.len()), "a date is no expression")
            .help(text_help(source)));
    }
    let word = |token: &Token<'_>| matches!(token.kind, Kind::Name | Kind::Number);
    let plain = tokens.len() > 1 && tokens.iter().all(word);
    if plain && !tokens.iter().any(|t| t.text == "in") {
        return Err(ExprError::new(source, (0, source.len()), "these words are no expression")
            .help(text_help(source)));
    }
    Ok(())
}

/// How a text is written where a TOML string is an expression.
pub(super) fn text_help(text: &str) -> String {
    format!("a TOML string is an expression here; the text itself is \"{}\"", quoted(text.trim()))
}
