//! From text to expressions.
//!
//! The parser is our own because expressions come from users: it holds nesting and length within bounds that the
//! stack can bear, where a generated parser goes as deep as the text wants.

use super::ast::{Access, Bind, Expr, Kind, Literal, Loop, LoopKind, Unwrap};

/// Characters of an expression at most.
const MAX_LENGTH: usize = 100_000;
/// Levels of an expression at most.
const MAX_DEPTH: usize = 100;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Position in characters.
    pub at: u32,
    /// In words.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Ident(String),
    Literal(Literal),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// Reads an expression.
pub fn parse(source: &str) -> Result<Expr, Problem> {
    if source.chars().count() > MAX_LENGTH {
        return Err(Problem {
            at: 0,
            text: format!(
                "expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}",
                source.len()
            ),
        });
    }
    let tokens = Lexer::new(source).tokens()?;
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
    };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.unexpected(&other.clone())),
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

const SIGNS: [&str; 28] = [
    "==", "!=", "<=", ">=", "&&", "||", ".?", "[?", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".",
    ",", "(", ")", "[", "]", "{", "}", "=", "@",
];

impl Lexer {
    fn new(source: &str) -> Self {
        Self {
            chars: source.chars().collect(),
            at: 0,
        }
    }

    fn problem(&self, at: usize, text: impl Into<String>) -> Problem {
        Problem {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            text: text.into(),
        }
    }

    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn tokens(mut self) -> Result<Vec<(u32, Token)>, Problem> {
        let mut tokens = Vec::new();
        loop {
            while self.peek(0).is_whitespace() {
                self.at += 1;
            }
            if self.peek(0) == '/' && self.peek(1) == '/' {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
                continue;
            }
            let at = u32::try_from(self.at).unwrap_or(u32::MAX);
            if self.at >= self.chars.len() {
                tokens.push((at, Token::End));
                return Ok(tokens);
            }
            let token = self.token()?;
            tokens.push((at, token));
        }
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if matches!(c, '"' | '\'') {
            return self.string(false, false);
        }
        if c.is_alphabetic() || c == '_' {
            let begin = self.at;
            while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word: String = self.chars[begin..self.at].iter().collect();
            if matches!(self.peek(0), '"' | '\'') && word.len() <= 2 {
                let lower = word.to_ascii_lowercase();
                if lower.chars().all(|c| matches!(c, 'r' | 'b')) {
                    return self.string(lower.contains('r'), lower.contains('b'));
                }
            }
            return Ok(match word.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word),
            });
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == c) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err(self.problem(
            self.at,
            format!("Syntax error: token recognition error at: '{c}'"),
        ))
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let begin = self.at;
        let bad = |lexer: &Self| lexer.problem(begin, "Syntax error: invalid number literal");
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            let digits = self.take(|c| c.is_ascii_hexdigit());
            if matches!(self.peek(0), 'u' | 'U') {
                self.at += 1;
                let number = u64::from_str_radix(&digits, 16).map_err(|_| bad(self))?;
                return Ok(Token::Literal(Literal::Uint(number)));
            }
            let number = i64::from_str_radix(&digits, 16).map_err(|_| bad(self))?;
            return Ok(Token::Literal(Literal::Int(number)));
        }
        let mut text = self.take(|c| c.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            double = true;
            self.at += 1;
            text.push('.');
            text.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        if matches!(self.peek(0), 'e' | 'E') {
            double = true;
            text.push('e');
            self.at += 1;
            if matches!(self.peek(0), '+' | '-') {
                text.push(self.peek(0));
                self.at += 1;
            }
            text.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        if double {
            if text.starts_with('.') {
                text.insert(0, '0');
            }
            return text
                .parse()
                .map(|number| Token::Literal(Literal::Double(number)))
                .map_err(|_| bad(self));
        }
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return text
                .parse()
                .map(|number| Token::Literal(Literal::Uint(number)))
                .map_err(|_| bad(self));
        }
        // The least integer is written with its sign: the parser puts the two together.
        match text.parse::<u64>() {
            Ok(number) if number == i64::MIN.unsigned_abs() => Ok(Token::Literal(Literal::Int(i64::MIN))),
            Ok(number) => i64::try_from(number)
                .map(|number| Token::Literal(Literal::Int(number)))
                .map_err(|_| bad(self)),
            Err(_) => Err(bad(self)),
        }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let begin = self.at;
        while self.at < self.chars.len() && wanted(self.peek(0)) {
            self.at += 1;
        }
        self.chars[begin..self.at].iter().collect()
    }

    fn string(&mut self, raw: bool, bytes: bool) -> Result<Token, Problem> {
        let begin = self.at;
        let quote = self.peek(0);
        let long = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if long { 3 } else { 1 };
        let (mut text, mut out): (String, Vec<u8>) = Default::default();
        let push = |text: &mut String, out: &mut Vec<u8>, c: char| {
            if bytes {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        };
        loop {
            if self.at >= self.chars.len() || (!long && self.peek(0) == '\n') {
                return Err(self.problem(begin, "Syntax error: unterminated string literal"));
            }
            let c = self.peek(0);
            if c == quote && (!long || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if long { 3 } else { 1 };
                break;
            }
            self.at += 1;
            if c != '\\' || raw {
                push(&mut text, &mut out, c);
                continue;
            }
            let escape = self.peek(0);
            self.at += 1;
            let plain = match escape {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'v' => '\x0b',
                '\\' | '"' | '\'' | '`' | '?' => escape,
                'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                    let (digits, radix) = match escape {
                        'x' | 'X' => (2, 16),
                        'u' => (4, 16),
                        'U' => (8, 16),
                        _ => {
                            self.at -= 1;
                            (3, 8)
                        }
                    };
                    let end = (self.at + digits).min(self.chars.len());
                    let number: String = self.chars[self.at..end].iter().collect();
                    self.at = end;
                    let code = u32::from_str_radix(&number, radix)
                        .map_err(|_| self.problem(begin, "Syntax error: invalid escape sequence"))?;
                    if bytes && digits < 4 {
                        out.push(u8::try_from(code).unwrap_or_default());
                        continue;
                    }
                    char::from_u32(code)
                        .ok_or_else(|| self.problem(begin, "Syntax error: invalid unicode code point"))?
                }
                other => {
                    return Err(self.problem(begin, format!("Syntax error: unable to unescape \\{other}")));
                }
            };
            push(&mut text, &mut out, plain);
        }
        Ok(Token::Literal(if bytes {
            Literal::Bytes(out.into())
        } else {
            Literal::String(text.into())
        }))
    }
}

struct Parser {
    tokens: Vec<(u32, Token)>,
    next: usize,
    depth: usize,
}

/// Binary operators, the weakest first, all of which group to the left.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<", "_<_"),
        ("<=", "_<=_"),
        (">", "_>_"),
        (">=", "_>=_"),
        ("in", "_in_"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> u32 {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(0, |(at, _)| *at)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Problem> {
        if self.sign(sign) {
            return Ok(());
        }
        Err(self.unexpected(&self.peek().clone()))
    }

    fn unexpected(&self, token: &Token) -> Problem {
        let shown = match token {
            Token::End => "<EOF>".to_owned(),
            Token::Ident(name) => format!("'{name}'"),
            Token::Sign(sign) => format!("'{sign}'"),
            Token::Literal(literal) => format!("{literal:?}"),
        };
        Problem {
            at: self.at(),
            text: format!("Syntax error: mismatched input {shown}"),
        }
    }

    fn problem(&self, at: u32, text: impl Into<String>) -> Problem {
        Problem {
            at,
            text: text.into(),
        }
    }

    /// Goes one level down, if there are any left.
    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        if self.depth >= MAX_DEPTH {
            return Err(self.problem(
                self.at(),
                format!("expression recursion limit exceeded: {MAX_DEPTH}"),
            ));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Result<Expr, Problem> {
        self.deeper(|parser| {
            let at = parser.at();
            let condition = parser.or()?;
            if !parser.sign("?") {
                return Ok(condition);
            }
            let yes = parser.or()?;
            parser.expect(":")?;
            let no = parser.expr()?;
            Ok(Expr {
                at,
                kind: Kind::Choice(Box::new([condition, yes, no])),
            })
        })
    }

    fn or(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        let first = self.and()?;
        let mut all = vec![first];
        while self.sign("||") {
            all.push(self.and()?);
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Expr {
                at,
                kind: Kind::Or(all),
            },
        })
    }

    fn and(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        let first = self.binary(0)?;
        let mut all = vec![first];
        while self.sign("&&") {
            all.push(self.binary(0)?);
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Expr {
                at,
                kind: Kind::And(all),
            },
        })
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Problem> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        let mut chain = 0;
        loop {
            let at = self.at();
            let Token::Sign(sign) = self.peek() else { break };
            let Some((_, name)) = operators.iter().find(|(text, _)| text == sign) else {
                break;
            };
            self.next += 1;
            // A chain is as deep as it is long once it is evaluated.
            chain += 1;
            if self.depth + chain > MAX_DEPTH {
                return Err(self.problem(at, format!("expression recursion limit exceeded: {MAX_DEPTH}")));
            }
            let right = self.binary(level + 1)?;
            left = Expr {
                at,
                kind: Kind::Call(None, (*name).into(), vec![left, right]),
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        if self.sign("!") {
            let of = self.deeper(Self::unary)?;
            return Ok(call(at, "!_", vec![of]));
        }
        if self.sign("-") {
            if let Token::Literal(literal) = self.peek() {
                let negative = match literal {
                    Literal::Int(number) => Some(Literal::Int(number.wrapping_neg())),
                    Literal::Double(number) => Some(Literal::Double(-number)),
                    _ => None,
                };
                if let Some(literal) = negative {
                    self.next += 1;
                    let literal = Expr {
                        at,
                        kind: Kind::Literal(literal),
                    };
                    return self.members(literal);
                }
            }
            let of = self.deeper(Self::unary)?;
            return Ok(call(at, "-_", vec![of]));
        }
        if let Token::Literal(Literal::Int(i64::MIN)) = self.peek() {
            return Err(self.problem(at, "Syntax error: invalid number literal"));
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut of: Expr) -> Result<Expr, Problem> {
        let mut chain = 0;
        loop {
            let at = self.at();
            chain += 1;
            if self.depth + chain > MAX_DEPTH {
                return Err(self.problem(at, format!("expression recursion limit exceeded: {MAX_DEPTH}")));
            }
            if self.sign(".") || self.sign(".?") {
                let optional = matches!(self.tokens.get(self.next - 1), Some((_, Token::Sign(".?"))));
                let Token::Ident(name) = self.peek().clone() else {
                    return Err(self.unexpected(&self.peek().clone()));
                };
                self.next += 1;
                if !optional && self.sign("(") {
                    let args = self.args(")")?;
                    of = method(at, of, &name, args).map_err(|text| self.problem(at, text))?;
                    continue;
                }
                let access = if optional {
                    Access::Optional
                } else {
                    Access::Required
                };
                of = Expr {
                    at,
                    kind: Kind::Select(Box::new(of), name.into(), access),
                };
            } else if self.sign("[") || self.sign("[?") {
                let optional = matches!(self.tokens.get(self.next - 1), Some((_, Token::Sign("[?"))));
                let index = self.expr()?;
                self.expect("]")?;
                let access = if optional {
                    Access::Optional
                } else {
                    Access::Required
                };
                of = Expr {
                    at,
                    kind: Kind::Index(Box::new(of), Box::new(index), access),
                };
            } else if let Some(name) = type_name(&of)
                && self.sign("{")
            {
                let fields = self.deeper(Self::fields)?;
                of = Expr {
                    at: of.at,
                    kind: Kind::Object(name.into(), fields),
                };
            } else {
                return Ok(of);
            }
        }
    }

    /// The fields of an object that is written out.
    fn fields(&mut self) -> Result<Vec<(Box<str>, Expr, Access)>, Problem> {
        let mut fields = Vec::new();
        loop {
            if self.sign("}") {
                return Ok(fields);
            }
            let access = if self.sign("?") {
                Access::Optional
            } else {
                Access::Required
            };
            let Token::Ident(name) = self.peek().clone() else {
                return Err(self.unexpected(&self.peek().clone()));
            };
            self.next += 1;
            self.expect(":")?;
            fields.push((name.into(), self.expr()?, access));
            if !self.sign(",") {
                self.expect("}")?;
                return Ok(fields);
            }
        }
    }

    fn args(&mut self, end: &str) -> Result<Vec<Expr>, Problem> {
        let mut args = Vec::new();
        if self.sign(end) {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.sign(end) {
                return Ok(args);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        let token = self.peek().clone();
        let kind = match token {
            Token::Literal(literal) => {
                self.next += 1;
                Kind::Literal(literal)
            }
            Token::Sign("(") => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[" | "[?") => {
                let first_optional = self.sign("[?");
                self.next += usize::from(!first_optional);
                Kind::List(self.list(first_optional)?)
            }
            Token::Sign("{") => {
                self.next += 1;
                Kind::Map(self.map()?)
            }
            Token::Sign(".") => {
                self.next += 1;
                return self.primary();
            }
            Token::Ident(name) => {
                self.next += 1;
                if self.sign("(") {
                    let args = self.args(")")?;
                    return function(at, &name, args).map_err(|text| self.problem(at, text));
                }
                Kind::Ident(name.into())
            }
            other => return Err(self.unexpected(&other)),
        };
        Ok(Expr { at, kind })
    }

    fn list(&mut self, mut optional: bool) -> Result<Vec<(Expr, Access)>, Problem> {
        let mut items = Vec::new();
        loop {
            if self.sign("]") {
                return Ok(items);
            }
            let access = if optional || self.sign("?") {
                Access::Optional
            } else {
                Access::Required
            };
            optional = false;
            items.push((self.expr()?, access));
            if !self.sign(",") {
                self.expect("]")?;
                return Ok(items);
            }
        }
    }

    fn map(&mut self) -> Result<Vec<(Expr, Expr, Access)>, Problem> {
        let mut entries = Vec::new();
        loop {
            if self.sign("}") {
                return Ok(entries);
            }
            let access = if self.sign("?") {
                Access::Optional
            } else {
                Access::Required
            };
            let key = self.or()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, access));
            if !self.sign(",") {
                self.expect("}")?;
                return Ok(entries);
            }
        }
    }
}

/// What names joined by dots name, when a brace follows: a type.
fn type_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select(of, name, Access::Required) => Some(format!("{}.{name}", type_name(of)?)),
        _ => None,
    }
}

fn call(at: u32, name: &str, args: Vec<Expr>) -> Expr {
    Expr {
        at,
        kind: Kind::Call(None, name.into(), args),
    }
}

/// `has` is a macro, everything else a function.
fn function(at: u32, name: &str, mut args: Vec<Expr>) -> Result<Expr, String> {
    if name != "has" {
        return Ok(call(at, name, args));
    }
    let argument = args.pop().filter(|_| args.is_empty());
    match argument.map(|argument| argument.kind) {
        Some(Kind::Select(of, field, Access::Required)) => Ok(Expr {
            at,
            kind: Kind::Has(of, field),
        }),
        _ => Err("invalid argument to has() macro".into()),
    }
}

fn variable(expr: &Expr) -> Result<Box<str>, String> {
    match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err("argument must be a simple name".into()),
    }
}

/// Macros that look like methods.
fn method(at: u32, of: Expr, name: &str, mut args: Vec<Expr>) -> Result<Expr, String> {
    let kind = match (name, args.len()) {
        ("all", 2 | 3) => LoopKind::All,
        ("exists", 2 | 3) => LoopKind::Exists,
        ("exists_one" | "existsOne", 2 | 3) => LoopKind::ExistsOne,
        ("map", 2 | 3) => LoopKind::Map,
        ("filter", 2) => LoopKind::Filter,
        ("transformList", 3) => LoopKind::Map,
        ("optMap" | "optFlatMap", 2) | ("bind", 3) => {
            let is_cel = matches!(&of.kind, Kind::Ident(root) if &**root == "cel");
            let unwrap = match name {
                "optMap" => Unwrap::Map,
                "optFlatMap" => Unwrap::FlatMap,
                _ if is_cel => Unwrap::No,
                _ => return Ok(plain(at, of, name, args)),
            };
            let body = args.pop().ok_or("a macro without a body")?;
            let (var, value) = if unwrap == Unwrap::No {
                let value = args.pop().ok_or("a macro without a value")?;
                (args.pop().ok_or("a macro without a variable")?, value)
            } else {
                (args.pop().ok_or("a macro without a variable")?, of)
            };
            return Ok(Expr {
                at,
                kind: Kind::Bind(Box::new(Bind {
                    var: variable(&var)?,
                    value,
                    body,
                    unwrap,
                })),
            });
        }
        _ => return Ok(plain(at, of, name, args)),
    };
    let body = args.pop().ok_or("a macro without a body")?;
    let var = variable(&args[0])?;
    let extra = (args.len() > 1).then(|| args.remove(1));
    let (second, filter) = match extra {
        Some(filter) if name == "map" => (None, Some(filter)),
        Some(second) => (Some(variable(&second)?), None),
        None => (None, None),
    };
    Ok(Expr {
        at,
        kind: Kind::Loop(Box::new(Loop {
            kind,
            range: of,
            var,
            second,
            filter,
            body,
        })),
    })
}

fn plain(at: u32, of: Expr, name: &str, args: Vec<Expr>) -> Expr {
    Expr {
        at,
        kind: Kind::Call(Some(Box::new(of)), name.into(), args),
    }
}

#[cfg(test)]
mod tests;
