//! Expressions, read.

/// An expression and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Position in the source, in characters.
    pub at: u32,
    /// What it is.
    pub kind: Kind,
}

/// The sorts of expressions. Operators are calls of functions named as in CEL's own grammar: `_+_`, `!_`, `_in_`.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A value written out.
    Literal(Literal),
    /// A variable.
    Ident(Box<str>),
    /// `a.b`, `a.?b`
    Select(Box<Expr>, Box<str>, Access),
    /// `has(a.b)`
    Has(Box<Expr>, Box<str>),
    /// `a[b]`, `a[?b]`
    Index(Box<Expr>, Box<Expr>, Access),
    /// `f(a)`, `a.f(b)`
    Call(Option<Box<Expr>>, Box<str>, Vec<Expr>),
    /// `[a, ?b]`
    List(Vec<(Expr, Access)>),
    /// `{a: b, ?c: d}`
    Map(Vec<(Expr, Expr, Access)>),
    /// `a && b && c`
    And(Vec<Expr>),
    /// `a || b || c`
    Or(Vec<Expr>),
    /// `a ? b : c`
    Choice(Box<[Expr; 3]>),
    /// `a.all(x, ...)` and its like
    Loop(Box<Loop>),
    /// A value with a name: `cel.bind(x, a, b)`, `a.optMap(x, b)`
    Bind(Box<Bind>),
    /// `Type{a: b, ?c: d}`
    Object(Box<str>, Vec<(Box<str>, Expr, Access)>),
}

/// How a part of a value is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It has to be there.
    Required,
    /// It may be missing.
    Optional,
}

/// Values written out.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.5`
    Double(f64),
    /// `'a'`
    String(Box<str>),
    /// `b'a'`
    Bytes(Box<[u8]>),
}

/// What a loop makes of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    /// Whether all satisfy the body.
    All,
    /// Whether one does.
    Exists,
    /// Whether exactly one does.
    ExistsOne,
    /// The body's values.
    Map,
    /// The elements that satisfy the body.
    Filter,
}

/// A macro over the elements of a list or the keys of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// What it makes.
    pub kind: LoopKind,
    /// Over what.
    pub range: Expr,
    /// The element, or the key.
    pub var: Box<str>,
    /// With two variables: index and element, or key and value.
    pub second: Option<Box<str>>,
    /// `map` with three arguments looks only at these.
    pub filter: Option<Expr>,
    /// What is computed for each.
    pub body: Expr,
}

/// A value with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Bind {
    /// The name.
    pub var: Box<str>,
    /// The value.
    pub value: Expr,
    /// Where it is known.
    pub body: Expr,
    /// What happens when the value is an optional.
    pub unwrap: Unwrap,
}

/// Whether a bound value is taken out of an optional first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwrap {
    /// It is not: `cel.bind`.
    No,
    /// It is, and the outcome put into one: `optMap`.
    Map,
    /// It is, and the outcome is one: `optFlatMap`.
    FlatMap,
}
