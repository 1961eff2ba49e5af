//! CEL, the Common Expression Language, with the functions Kubernetes adds (KEP-2876, <https://cel.dev>).
//!
//! | module | what it does |
//! | --- | --- |
//! | [`parse`] | from text to [`ast`], within bounds of depth and length |
//! | [`types`], [`check`], [`signatures`] | types, mistakes and costs, before anything is computed |
//! | [`value`], [`eval`] | computing, within a budget |
//! | [`json`] | what was computed as JSON |
//! | [`library`] | functions |
//!
//! The language is ours from end to end because users write the expressions: parsing cannot exhaust the stack, every
//! step is paid for, and objects are looked at where they are instead of being copied into values first.

pub mod ast;
pub mod check;
pub mod eval;
pub mod json;
pub mod library;
pub mod parse;
pub mod signatures;
pub mod types;
pub mod value;

use ast::{Expr, Kind};
use check::{Checked, Names};
use eval::{Budget, Failure, Scope};
use parse::Problem;
use value::Value;

/// An expression ready to be checked and computed.
#[derive(Debug, Clone)]
pub struct Program {
    expr: Expr,
    source: Box<str>,
}

impl Program {
    /// Reads an expression. The error is in cel-go's form.
    pub fn parse(source: &str) -> Result<Self, String> {
        match parse::parse(source) {
            Ok(expr) => Ok(Self {
                expr,
                source: source.into(),
            }),
            Err(problem) => Err(pointed(source, &problem)),
        }
    }

    /// What was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Checks types. The error is in cel-go's form.
    pub fn check<'n>(&'n self, mut names: Names<'n>) -> Result<Checked, String> {
        names
            .check(&self.expr)
            .map_err(|problem| pointed(&self.source, &problem))
    }

    /// Computes the expression.
    pub fn run<'e, 'v>(
        &'e self,
        names: Vec<(&'e str, Value<'v>)>,
        budget: &mut Budget,
    ) -> Result<Value<'v>, Failure> {
        eval::eval(&self.expr, &mut Scope::new(names), budget)
    }

    /// Computes the expression where others are computed, too: what variables come to is remembered between them.
    pub fn run_in<'e, 'v>(
        &'e self,
        scope: &mut Scope<'e, 'v>,
        budget: &mut Budget,
    ) -> Result<Value<'v>, Failure> {
        eval::eval(&self.expr, scope, budget)
    }

    /// Whether the expression mentions a name.
    pub fn mentions(&self, name: &str) -> bool {
        mentions(&self.expr, name)
    }
}

fn mentions(expr: &Expr, name: &str) -> bool {
    let any = |list: &[Expr]| list.iter().any(|one| mentions(one, name));
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(found) => &**found == name,
        Kind::Select(of, ..) | Kind::Has(of, _) => mentions(of, name),
        Kind::Index(of, index, _) => mentions(of, name) || mentions(index, name),
        Kind::Call(target, _, args) => {
            target.as_ref().is_some_and(|target| mentions(target, name)) || any(args)
        }
        Kind::List(items) => items.iter().any(|(item, _)| mentions(item, name)),
        Kind::Map(entries) => entries
            .iter()
            .any(|(key, value, _)| mentions(key, name) || mentions(value, name)),
        Kind::And(parts) | Kind::Or(parts) => any(parts),
        Kind::Choice(choice) => any(choice.as_ref()),
        Kind::Loop(one) => {
            mentions(&one.range, name)
                || one.filter.as_ref().is_some_and(|filter| mentions(filter, name))
                || mentions(&one.body, name)
        }
        Kind::Bind(bind) => mentions(&bind.value, name) || mentions(&bind.body, name),
        Kind::Object(_, fields) => fields.iter().any(|(_, value, _)| mentions(value, name)),
    }
}

/// A mistake with the line it is in and a mark below it.
fn pointed(source: &str, problem: &Problem) -> String {
    let at = usize::try_from(problem.at).unwrap_or(usize::MAX);
    let (mut line, mut begin) = (1, 0);
    for (index, c) in source.chars().enumerate().take(at) {
        if c == '\n' {
            line += 1;
            begin = index + 1;
        }
    }
    let column = at.saturating_sub(begin);
    let text: String = source.chars().skip(begin).take_while(|c| *c != '\n').collect();
    format!(
        "compilation failed: ERROR: <input>:{line}:{}: {}\n | {text}\n | {}^",
        column + 1,
        problem.text,
        ".".repeat(column)
    )
}

#[cfg(test)]
mod tests;
