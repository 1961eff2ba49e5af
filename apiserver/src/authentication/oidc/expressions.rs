//! What is computed from claims, and from the user they make, in CEL.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cel::Program;
use crate::cel::check::Names;
use crate::cel::eval::{Budget, Failure};
use crate::cel::types::{Decl, Fields, REQUEST, Type};
use crate::cel::value::Value;

/// What one expression may cost.
const COST: u64 = 1_000_000;

/// What an expression looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// `claims`: those of the token.
    Claims,
    /// `user`: whom they make.
    User,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Claims => "claims",
            Subject::User => "user",
        }
    }

    fn decl(self) -> Arc<Decl> {
        let text = || Arc::new(Decl::sized(Type::String, REQUEST));
        let any = Arc::new(Decl::sized(Type::Dyn, REQUEST));
        let texts = || Arc::new(Decl::sized(Type::List(text()), REQUEST));
        let ty = match self {
            Subject::Claims => Type::Map(text(), any),
            Subject::User => Type::Object(Arc::new(Fields {
                name: "kubernetes.UserInfo".into(),
                fields: BTreeMap::from([
                    ("username".to_owned(), text()),
                    ("uid".to_owned(), text()),
                    ("groups".to_owned(), texts()),
                    (
                        "extra".to_owned(),
                        Arc::new(Decl::sized(Type::Map(text(), texts()), REQUEST)),
                    ),
                ]),
            })),
        };
        Arc::new(Decl::sized(ty, REQUEST))
    }
}

/// What an expression has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A text.
    Text,
    /// A text or several.
    Texts,
    /// Yes or no.
    Bool,
}

/// An expression that has been checked.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    subject: Subject,
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str, subject: Subject, wanted: Wanted) -> Result<Self, String> {
        let program = Program::parse(text)?;
        let checked = program.check(Names::new(vec![(subject.name(), subject.decl())]))?;
        let fits = matches!(
            (wanted, &checked.decl.ty),
            (_, Type::Dyn)
                | (Wanted::Text | Wanted::Texts, Type::String)
                | (Wanted::Texts, Type::List(_) | Type::Null)
                | (Wanted::Bool, Type::Bool)
        );
        if !fits {
            return Err(match wanted {
                Wanted::Text => "must evaluate to string".into(),
                Wanted::Texts => "must evaluate to one of [string list(string)]".into(),
                Wanted::Bool => "must evaluate to bool".into(),
            });
        }
        Ok(Self { program, subject })
    }

    /// The expression's text.
    pub fn source(&self) -> &str {
        self.program.source()
    }

    fn run<'v>(&'v self, of: &'v Json) -> Result<Value<'v>, String> {
        let names = vec![(self.subject.name(), Value::json(of, None))];
        self.program
            .run(names, &mut Budget::new(COST))
            .map_err(|failure| match failure {
                Failure::Cost => "operation cancelled: actual cost limit exceeded".to_owned(),
                Failure::Error(text) => text,
                // These expressions know of nobody who could be asked.
                Failure::Open => "nobody can be asked".to_owned(),
            })
            .map_err(|error| format!("expression '{}' resulted in error: {error}", self.source()))
    }

    /// The text it comes to.
    ///
    /// # Errors
    /// When it comes to nothing, or to something else.
    pub fn text(&self, of: &Json) -> Result<String, String> {
        let value = self.run(of)?;
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| format!("expression '{}' must return a string", self.source()))
    }

    /// The texts it comes to; an empty one is none.
    ///
    /// # Errors
    /// When it comes to nothing, or to something else.
    pub fn texts(&self, of: &Json) -> Result<Vec<String>, String> {
        let value = self.run(of)?;
        if let Some(one) = value.as_str() {
            return Ok(Some(one.to_owned())
                .into_iter()
                .filter(|one| !one.is_empty())
                .collect());
        }
        if matches!(value, Value::Null) {
            return Ok(Vec::new());
        }
        let wrong = || {
            format!(
                "expression '{}' must return a string or a list of strings",
                self.source()
            )
        };
        let list = value.elements().ok_or_else(wrong)?;
        list.iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect()
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it comes to nothing, or to something else.
    pub fn holds(&self, of: &Json) -> Result<bool, String> {
        match self.run(of)? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(format!("expression '{}' must return a bool", self.source())),
        }
    }
}
