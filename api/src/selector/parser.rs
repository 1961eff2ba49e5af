//! Reads the text form of label selectors.

use std::collections::BTreeSet;

use super::SelectorError;
use super::label::{Operator, Requirement, check_key};
use crate::field::{self, Path};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::End => "",
            Self::Open => "(",
            Self::Close => ")",
            Self::Comma => ",",
            Self::Not => "!",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Identifier(text) => text,
        }
    }

    /// `in` and `notin` are operators only where an operator may stand.
    fn as_value(self) -> Self {
        match self {
            Self::In | Self::NotIn => Self::Identifier(self.text()),
            other => other,
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn scan(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            '=' if rest.starts_with("==") => (Token::DoubleEquals, 2),
            '=' => (Token::Equals, 1),
            '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
            '!' => (Token::Not, 1),
            _ => {
                let length = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
                let token = match &rest[..length] {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    text => Token::Identifier(text),
                };
                (token, length)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.position).copied().unwrap_or(Token::End)
    }

    fn peek_value(&self) -> Token<'a> {
        self.peek().as_value()
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn next_value(&mut self) -> Token<'a> {
        self.next().as_value()
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next_value();
        let negated = token == Token::Not;
        if negated {
            token = self.next_value();
        }
        let Token::Identifier(key) = token else {
            return Err(found(token, "expected: identifier"));
        };
        let mut errors = Vec::new();
        check_key(key, &Path::root(), &mut errors);
        if !errors.is_empty() {
            return Err(SelectorError(field::aggregate(&errors)));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek_value(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let token = self.next();
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            other => return Err(found(other, "expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.list()?,
            _ => self.exact()?,
        };
        Requirement::new(key, operator, values.into_iter().map(str::to_owned).collect())
    }

    fn exact(&mut self) -> Result<BTreeSet<&'a str>, SelectorError> {
        if matches!(self.peek_value(), Token::End | Token::Comma) {
            return Ok(BTreeSet::from([""]));
        }
        match self.next_value() {
            Token::Identifier(value) => Ok(BTreeSet::from([value])),
            other => Err(found(other, "expected: identifier")),
        }
    }

    fn list(&mut self) -> Result<BTreeSet<&'a str>, SelectorError> {
        let token = self.next_value();
        if token != Token::Open {
            return Err(found(token, "expected: '('"));
        }
        let mut values = BTreeSet::new();
        match self.peek_value() {
            Token::Close => {}
            Token::Identifier(_) | Token::Comma => self.items(&mut values)?,
            other => return Err(found(other, "expected: ',', ')' or identifier")),
        }
        match self.next_value() {
            Token::Close => Ok(values),
            other => Err(found(other, "expected: ')'")),
        }
    }

    /// The values up to the closing parenthesis; between two commas stands the empty one.
    fn items(&mut self, values: &mut BTreeSet<&'a str>) -> Result<(), SelectorError> {
        loop {
            match self.next_value() {
                Token::Identifier(value) => {
                    values.insert(value);
                    match self.peek_value() {
                        Token::Comma => {}
                        Token::Close => return Ok(()),
                        other => return Err(found(other, "expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert("");
                    }
                    match self.peek_value() {
                        Token::Close => {
                            values.insert("");
                            return Ok(());
                        }
                        Token::Comma => {
                            self.next();
                            values.insert("");
                        }
                        _ => {}
                    }
                }
                other => return Err(found(other, "expected: ',', or identifier")),
            }
        }
    }
}

fn found(token: Token<'_>, expected: &str) -> SelectorError {
    SelectorError(format!("found '{}', {expected}", token.text()))
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser {
        tokens: scan(text),
        position: 0,
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek_value() {
            Token::Identifier(_) | Token::Not => {
                let requirement = parser
                    .requirement()
                    .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                requirements.push(requirement);
                match parser.next_value() {
                    Token::End => return Ok(requirements),
                    Token::Comma => match parser.peek_value() {
                        Token::Identifier(_) | Token::Not => {}
                        other => return Err(found(other, "expected: identifier after ','")),
                    },
                    other => return Err(found(other, "expected: ',' or 'end of string'")),
                }
            }
            Token::End => return Ok(requirements),
            other => return Err(found(other, "expected: !, identifier, or 'end of string'")),
        }
    }
}
