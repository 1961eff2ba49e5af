//! `x-kubernetes-validations`: rules in CEL, checked when a definition is written and run when an object is.

use keelson_api::field::{Error, Errors, Path};
use serde_json::Value as Json;

use super::check::counterpart;
use super::{ListType, Schema};
use crate::cel::Program;
use crate::cel::check::{Checked, Names};
use crate::cel::eval::{Budget, Failure};
use crate::cel::types::{Decl, REQUEST, Type, of_schema, times_in_request};
use crate::cel::value::Value;

/// What one rule may cost when it runs.
const PER_CALL: u64 = 1_000_000;
/// What all rules of one object may cost when they run.
const PER_OBJECT: u64 = 10_000_000;
/// What one rule may be estimated to cost.
const ESTIMATE: u64 = 10_000_000;
/// What all rules of a schema may be estimated to cost.
const ESTIMATE_WHOLE: u64 = 100_000_000;

/// One rule, read.
#[derive(Debug)]
pub struct Rule {
    /// As the definition has it.
    pub source: Json,
    /// The expression, or what is wrong with it.
    program: Result<Program, String>,
    message: Option<Box<str>>,
    message_expression: Option<Result<Program, String>>,
    reason: Box<str>,
    field: Option<Box<str>>,
    uses_old: bool,
    optional_old: bool,
}

impl Rule {
    /// Reads an element of `x-kubernetes-validations`.
    pub fn read(source: &Json) -> Self {
        let text = |name: &str| {
            source[name]
                .as_str()
                .map(str::trim)
                .filter(|text| !text.is_empty())
        };
        let program = Program::parse(text("rule").unwrap_or_default());
        let message_expression = text("messageExpression").map(Program::parse);
        let uses_old = program.as_ref().is_ok_and(|program| program.mentions("oldSelf"))
            || message_expression
                .as_ref()
                .is_some_and(|program| program.as_ref().is_ok_and(|program| program.mentions("oldSelf")));
        Self {
            program,
            message: text("message").map(Into::into),
            message_expression,
            reason: text("reason").unwrap_or("FieldValueInvalid").into(),
            field: text("fieldPath").map(Into::into),
            uses_old,
            optional_old: source["optionalOldSelf"] == true,
            source: source.clone(),
        }
    }

    /// What it says of itself, or else its text.
    fn about(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.text())
    }

    fn text(&self) -> &str {
        self.source["rule"].as_str().unwrap_or_default().trim()
    }

    fn failure(&self, path: &Path, ty: &str, detail: String) -> Error {
        let path = match &self.field {
            None => path.clone(),
            // The path begins with a dot or bracket of its own.
            Some(field) => Path::new(
                format!("{}{field}", shown(path))
                    .trim_start_matches('.')
                    .to_owned(),
            ),
        };
        match &*self.reason {
            "FieldValueForbidden" => Error::forbidden(&path, detail),
            "FieldValueRequired" => Error::required(&path, detail),
            "FieldValueDuplicate" => Error::duplicate(&path, ty),
            _ => Error::invalid(&path, ty, detail),
        }
    }
}

fn shown(path: &Path) -> String {
    match path.to_string() {
        root if root == "<nil>" => String::new(),
        path => path,
    }
}

/// What rules found.
#[derive(Debug, Default)]
pub struct Found {
    /// What is wrong.
    pub errors: Errors,
    /// What is wrong and was so before: an object may stay as it is when rules are added to its definition.
    pub known: Errors,
}

/// Runs the rules of a schema over an object; `old` is what it was before an update.
pub fn run(value: &Json, old: Option<&Json>, schema: &Schema) -> Found {
    let mut run = Run {
        left: PER_OBJECT,
        found: Found::default(),
    };
    run.node(
        value,
        Before {
            part: old,
            same: false,
        },
        schema,
        &Path::root(),
    );
    run.found
}

/// What a value was before an update.
#[derive(Clone, Copy)]
struct Before<'v> {
    /// The part of the old object that belongs to the value, if it can be told.
    part: Option<&'v Json>,
    /// Whether the value is part of something that has not changed.
    same: bool,
}

struct Run {
    left: u64,
    found: Found,
}

impl Run {
    fn node(&mut self, value: &Json, old: Before<'_>, schema: &Schema, path: &Path) {
        if !schema.has_validations || value.is_null() || self.left == 0 {
            return;
        }
        // Elements of a list are lost in it: whether they have changed is asked of the list.
        let lost = schema.items.is_some() && schema.list != ListType::Map;
        let same = old.same || ((lost || !schema.validations.is_empty()) && old.part == Some(value));
        let old = Before { same, ..old };
        let ty = schema.ty.map_or("", super::Type::as_str);
        for rule in &schema.validations {
            self.rule(rule, value, old, schema, path, ty);
            if self.left == 0 {
                return;
            }
        }
        match value {
            Json::Array(list) => {
                let Some(items) = schema.items.as_deref() else {
                    return;
                };
                for (index, element) in list.iter().enumerate() {
                    let part = old.part.and_then(|old| counterpart(old, element, schema));
                    self.node(element, Before { part, same }, items, &path.index(index));
                }
            }
            Json::Object(map) => {
                for (name, inner) in map {
                    let Some(known) = schema.field(name) else { continue };
                    let path = match (
                        schema.properties.contains_key(name.as_str()),
                        shown(path).is_empty(),
                    ) {
                        (_, true) => Path::new(name.clone()),
                        (true, false) => path.child(name.clone()),
                        (false, false) => path.key(name.as_str()),
                    };
                    let part = old.part.and_then(|old| old.get(name));
                    self.node(inner, Before { part, same }, known, &path);
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, value: &Json, old: Before<'_>, schema: &Schema, path: &Path, ty: &str) {
        let Ok(program) = &rule.program else { return };
        let mut names = vec![("self", Value::json(value, Some(schema)))];
        if rule.uses_old {
            let part = old.part.filter(|old| !old.is_null());
            let before = part.map(|old| Value::json(old, Some(schema)));
            match (rule.optional_old, before) {
                (true, before) => names.push(("oldSelf", Value::Optional(before.map(Box::new)))),
                (false, Some(before)) => names.push(("oldSelf", before)),
                // A rule about a change has nothing to say where there was nothing.
                (false, None) => return,
            }
        }
        let known = old.same && !rule.uses_old;
        let (outcome, exhausted) = self.spend(program, names.clone());
        match outcome {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                let detail = self.message(rule, names);
                self.report(known, rule.failure(path, ty, detail));
            }
            Err(Failure::Cost) => {
                let detail = if exhausted {
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned()
                } else {
                    format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to \
                         call cost exceeds limit for rule: {}",
                        rule.about()
                    )
                };
                self.report(known, Error::invalid(path, ty, detail));
                self.left = 0;
            }
            // Rules know of nobody who could be asked.
            Err(Failure::Open) => {}
            Err(Failure::Error(text)) => {
                let about = rule.about();
                let detail = match text.starts_with("no such overload") {
                    true => format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {about}"
                    ),
                    false => format!("{text} evaluating rule: {about}"),
                };
                self.report(known, Error::invalid(path, ty, detail));
            }
        }
    }

    fn report(&mut self, known: bool, error: Error) {
        match known {
            true => self.found.known.push(error),
            false => self.found.errors.push(error),
        }
    }

    /// Runs a program at the object's expense; whether that is all the object had.
    fn spend<'v>(
        &mut self,
        program: &Program,
        names: Vec<(&'static str, Value<'v>)>,
    ) -> (Result<Value<'v>, Failure>, bool) {
        let granted = PER_CALL.min(self.left);
        let mut budget = Budget::new(granted);
        let outcome = program.run(names, &mut budget);
        self.left -= granted - budget.left();
        (outcome, self.left == 0 || granted < PER_CALL)
    }

    fn message(&mut self, rule: &Rule, names: Vec<(&'static str, Value<'_>)>) -> String {
        if let Some(Ok(program)) = &rule.message_expression {
            let (outcome, _) = self.spend(program, names);
            if let Ok(value) = outcome
                && let Some(text) = value.as_str()
                && !text.trim().is_empty()
                && !text.contains(['\n', '\r'])
                && text.len() <= 5 * 1024
            {
                return text.trim().to_owned();
            }
        }
        match &rule.message {
            Some(message) => message.to_string(),
            None => format!("failed rule: {}", rule.text()),
        }
    }
}

/// Checks the rules of a schema when its definition is written. `unchanged` schemas were accepted before: what their
/// single rules cost is not counted anew.
pub fn check(schema: &Schema, path: &Path, unchanged: bool) -> Errors {
    let mut check = Check {
        errors: Errors::new(),
        total: 0,
        costly: Vec::new(),
        unchanged,
    };
    let place = Place {
        times: Some(1),
        uncorrelatable: None,
    };
    check.node(schema, path, true, &place);
    if check.total > ESTIMATE_WHOLE {
        for path in std::mem::take(&mut check.costly) {
            check.errors.push(Error::forbidden(
                &path,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let text = too_costly(name, check.total, ESTIMATE_WHOLE);
        check.errors.push(Error::forbidden(path, text));
    }
    check.errors
}

struct Check {
    errors: Errors,
    total: u64,
    /// Rules that alone cost a hundredth of what all may.
    costly: Vec<Path>,
    unchanged: bool,
}

#[derive(Clone)]
struct Place {
    /// How often values here can appear in one object; `None` as often as a request has room for.
    times: Option<u64>,
    /// The outermost place above whose old and new parts cannot be told to belong together.
    uncorrelatable: Option<Path>,
}

impl Check {
    fn node(&mut self, schema: &Schema, path: &Path, root: bool, place: &Place) {
        if !schema.has_validations {
            return;
        }
        if !schema.validations.is_empty() {
            let decl = of_schema(schema, root, "object").unwrap_or_else(|| {
                let any = Decl::sized(Type::Dyn, REQUEST - 2);
                std::sync::Arc::new(any)
            });
            for (index, rule) in schema.validations.iter().enumerate() {
                let path = path.child("x-kubernetes-validations").index(index);
                self.rule(rule, &decl, &path, place);
            }
        }
        let rules = schema.rules.as_deref();
        let times = |limit: Option<usize>| {
            let limit = u64::try_from(limit?).ok()?;
            place.times?.checked_mul(limit.max(1))
        };
        let lost = |lost: bool| match &place.uncorrelatable {
            None if lost => Some(path.clone()),
            known => known.clone(),
        };
        for (name, inner) in &schema.properties {
            let place = Place {
                times: place.times,
                uncorrelatable: lost(schema.atomic_map),
            };
            self.node(inner, &path.child("properties").key(&**name), false, &place);
        }
        if let Some(inner) = schema.additional.schema() {
            let place = Place {
                times: times(rules.and_then(|rules| rules.max_properties)),
                uncorrelatable: lost(schema.atomic_map),
            };
            self.node(inner, &path.child("additionalProperties"), false, &place);
        }
        if let Some(items) = &schema.items {
            let place = Place {
                times: times(rules.and_then(|rules| rules.max_items)),
                uncorrelatable: lost(schema.list != ListType::Map),
            };
            self.node(items, &path.child("items"), false, &place);
        }
    }

    fn rule(&mut self, rule: &Rule, decl: &std::sync::Arc<Decl>, path: &Path, place: &Place) {
        let at = path.child("rule");
        let names = || {
            let old = if rule.optional_old {
                std::sync::Arc::new(Decl::sized(Type::Optional(decl.clone()), decl.max))
            } else {
                decl.clone()
            };
            Names::new(vec![("self", decl.clone()), ("oldSelf", old)])
        };
        let times = place.times.unwrap_or_else(|| times_in_request(decl.least));
        match checked(&rule.program, names()) {
            Ok(found) if matches!(found.decl.ty, Type::Bool | Type::Dyn) => {
                self.cost("estimated rule cost", found.cost.saturating_mul(times), &at);
            }
            Ok(_) => self.invalid(&at, rule, "must evaluate to a bool".into()),
            Err(text) => self.invalid(&at, rule, text),
        }
        if let Some(program) = &rule.message_expression {
            let at = path.child("messageExpression");
            match checked(program, names()) {
                Ok(found) if matches!(found.decl.ty, Type::String | Type::Dyn) => {
                    self.cost("estimated messageExpression cost", found.cost, &at);
                }
                Ok(_) => self.invalid(&at, rule, "messageExpression must evaluate to a string".into()),
                Err(text) => self.invalid(&at, rule, format!("messageExpression {text}")),
            }
        }
        if let Some(above) = place.uncorrelatable.as_ref().filter(|_| rule.uses_old) {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
            self.errors.push(Error::invalid(&at, rule.text(), detail));
        }
        if !rule.uses_old && rule.source.get("optionalOldSelf").is_some() {
            self.errors.push(Error::invalid(
                &path.child("optionalOldSelf"),
                rule.optional_old,
                "may not be set if oldSelf is not used in rule",
            ));
        }
    }

    fn invalid(&mut self, path: &Path, rule: &Rule, text: String) {
        self.errors.push(Error::invalid(path, rule.source.clone(), text));
    }

    fn cost(&mut self, name: &str, cost: u64, path: &Path) {
        self.total = self.total.saturating_add(cost);
        if cost > ESTIMATE_WHOLE / 100 {
            self.costly.push(path.clone());
        }
        if cost > ESTIMATE && !self.unchanged {
            self.errors
                .push(Error::forbidden(path, too_costly(name, cost, ESTIMATE)));
        }
    }
}

fn checked(program: &Result<Program, String>, names: Names<'_>) -> Result<Checked, String> {
    match program {
        Ok(program) => {
            let names: Names<'_> = names;
            program.check(names)
        }
        Err(text) => Err(text.clone()),
    }
}

fn too_costly(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(rules: Json) -> Schema {
        Schema::compile(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "x-kubernetes-validations": rules,
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "string"}},
                "kept": {"type": "string", "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "may not change"}]}
            }
        }}}))
    }

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_hold_or_say_why_not() {
        let schema = schema(json!([
            {"rule": "self.min <= self.max", "message": "min over max"},
            {"rule": "!has(self.list) || self.list.all(x, x != 'no')"},
            {"rule": "self.max < 100", "messageExpression": "'max is ' + string(self.max)", "fieldPath": ".max",
             "reason": "FieldValueForbidden"}
        ]));
        assert_eq!(
            texts(&errors(&json!({"spec": {"min": 1, "max": 2}}), None, &schema)),
            [""; 0]
        );
        assert_eq!(
            texts(&errors(
                &json!({"spec": {"min": 200, "max": 150, "list": ["no"]}}),
                None,
                &schema
            )),
            [
                "spec: Invalid value: \"object\": min over max",
                "spec: Invalid value: \"object\": failed rule: !has(self.list) || self.list.all(x, x != 'no')",
                "spec.max: Forbidden: max is 150",
            ]
        );
        assert_eq!(
            texts(&errors(&json!({"spec": {"max": 1}}), None, &schema)),
            ["spec: Invalid value: \"object\": no such key: min evaluating rule: min over max"]
        );
    }

    fn errors(value: &Json, old: Option<&Json>, schema: &Schema) -> Errors {
        run(value, old, schema).errors
    }

    /// KEP-4008: what has not changed may stay as it is, and whoever writes the object is warned.
    #[test]
    fn what_was_there_before_a_rule_may_stay() {
        let rule = |text: &str| json!([{"rule": text}]);
        let schema = Schema::compile(&json!({"type": "object", "properties": {
            "x": {"type": "string"},
            "l": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule("self == 'z'")}},
            "o": {"type": "object", "x-kubernetes-validations": rule("self.a == 'z'"),
                "properties": {"a": {"type": "string"}}}}}));
        let old = json!({"x": "1", "l": ["a", "b"], "o": {"a": "y"}});
        let changed = |field: &str, value: Json| {
            let mut new = old.clone();
            new[field] = value;
            let found = run(&new, Some(&old), &schema);
            (texts(&found.errors), texts(&found.known))
        };
        let [a, b] = [0, 1].map(|i| format!("l[{i}]: Invalid value: \"string\": failed rule: self == 'z'"));
        let o = "o: Invalid value: \"object\": failed rule: self.a == 'z'".to_owned();
        assert_eq!(
            changed("x", json!("2")),
            (vec![], vec![a.clone(), b.clone(), o.clone()])
        );
        let (errors, known) = changed("l", json!(["a", "c"]));
        assert_eq!((errors, known), (vec![a.clone(), b.clone()], vec![o.clone()]));
        assert_eq!(changed("o", json!({"a": "x"})), (vec![o], vec![a, b]));
    }

    #[test]
    fn rules_about_changes_need_something_that_was() {
        let schema = schema(json!([]));
        let (old, new) = (json!({"spec": {"kept": "a"}}), json!({"spec": {"kept": "b"}}));
        assert!(errors(&new, None, &schema).is_empty());
        assert!(errors(&old, Some(&old), &schema).is_empty());
        assert_eq!(
            texts(&errors(&new, Some(&old), &schema)),
            ["spec.kept: Invalid value: \"string\": may not change"]
        );
    }

    #[test]
    fn a_property_that_is_null_is_not_there() {
        let number = json!({"type": "integer", "nullable": true});
        let schema = |rule: &str| {
            Schema::compile(
                &json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
                "n": number, "m": {"type": "object", "additionalProperties": number},
                "either": {"x-kubernetes-int-or-string": true, "nullable": true}}}),
            )
        };
        let object = json!({"n": null, "m": {"k": null}, "either": null});
        for (rule, wanted) in [
            ("!has(self.n) && !has(self.either)", None),
            ("self.m['k'] == null && 'k' in self.m", None),
            ("self.n == 1", Some("no such key: n evaluating rule: self.n == 1")),
        ] {
            let errors = texts(&errors(&object, None, &schema(rule)));
            let right = match wanted {
                None => errors.is_empty(),
                Some(text) => errors.len() == 1 && errors[0].ends_with(text),
            };
            assert!(right, "{rule}: {errors:?}");
        }
    }

    #[test]
    fn an_optional_old_self_is_there_from_the_beginning() {
        let rule = json!([{"rule": "oldSelf.hasValue() || self.min == 1", "optionalOldSelf": true}]);
        let schema = schema(rule);
        assert!(errors(&json!({"spec": {"min": 1}}), None, &schema).is_empty());
        assert_eq!(errors(&json!({"spec": {"min": 2}}), None, &schema).len(), 1);
        let old = json!({"spec": {"min": 1}});
        assert!(errors(&json!({"spec": {"min": 2}}), Some(&old), &schema).is_empty());
    }

    #[test]
    fn mistakes_are_found_when_the_definition_is_written() {
        let path = Path::new("s");
        for (rule, wanted) in [
            (json!({"rule": "self.nope > 1"}), "undefined field 'nope'"),
            (json!({"rule": "self.min"}), "must evaluate to a bool"),
            (json!({"rule": "self.min >"}), "Syntax error"),
            (
                json!({"rule": "self.list.all(a, self.list.all(b, a == b || a != b))"}),
                "estimated rule cost exceeds budget by factor of more than 100x",
            ),
            (
                json!({"rule": "true", "optionalOldSelf": true}),
                "may not be set if oldSelf is not used in rule",
            ),
            (
                json!({"rule": "true", "messageExpression": "1"}),
                "messageExpression must evaluate to a string",
            ),
        ] {
            let found = texts(&check(&schema(json!([rule])), &path, false)).join("\n");
            assert!(found.contains(wanted), "{rule}: {found}");
        }
        assert!(check(&schema(json!([{"rule": "self.min <= self.max"}])), &path, false).is_empty());
        let list = Schema::compile(
            &json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 10,
            "items": {"type": "string", "maxLength": 5,
                      "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}),
        );
        assert!(
            texts(&check(&list, &path, false))[0]
                .contains("uncorrelatable portion of the schema within s.properties[l]")
        );
    }
}
