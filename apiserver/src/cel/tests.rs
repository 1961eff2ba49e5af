use serde_json::{Value as Json, json};

use super::*;
use crate::cel::types::{Type, of_schema};
use crate::custom::schema::Schema;

fn computed(text: &str, object: &Json, schema: Option<&Schema>) -> Result<bool, String> {
    let program = Program::parse(text)?;
    let mut budget = Budget::new(1_000_000);
    let names = vec![("self", Value::json(object, schema))];
    match program.run(names, &mut budget) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("{other:?}")),
        Err(Failure::Cost) => Err("cost".into()),
        Err(Failure::Error(text)) => Err(text),
        Err(Failure::Open) => Err("open".into()),
    }
}

#[test]
fn the_language() {
    let object =
        json!({"a": 1, "s": "text", "l": [1, 2, 3], "m": {"k": "v", "x": "y"}, "n": null, "namespace": "d"});
    for text in [
        "self.a + 1 == 2 && self.a < 2.5 && -self.a == -1",
        "self.s + '!' == 'text!' && self.s.size() == 4 && size(self.s) == 4",
        "self.l.all(x, x > 0) && self.l.exists(x, x == 3) && !self.l.exists_one(x, x > 1)",
        "self.l.map(x, x * 2) == [2, 4, 6] && self.l.filter(x, x % 2 == 1) == [1, 3]",
        "self.l.map(x, x > 1, x + 1) == [3, 4] && 2 in self.l && 'k' in self.m && !(7 in self.l)",
        "has(self.a) && !has(self.b) && self.?b.orValue(5) == 5 && self.?a.orValue(5) == 1",
        "self.m.all(k, k.size() == 1) && self.m['k'] == 'v' && self.m[?'z'].hasValue() == false",
        "self.m.all(k, v, k != v) && self.l.all(i, x, x == i + 1)",
        "false || (self.a == 1 ? true : self.b)",
        "true || self.b == 1",
        "!(self.b == 1 && false)",
        "self.n == null && self.__namespace__ == 'd'",
        "cel.bind(x, self.a + 1, x * x == 4)",
        "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().hasValue()",
        "[1, ?optional.none(), 2] == [1, 2] && {'a': 1, ?'b': optional.of(2)} == {'b': 2, 'a': 1}",
        "type(1) == int && type('') == string && int('5') == 5 && string(5) == '5' && double('1.5') == 1.5",
        "bytes('a') == b'a' && uint(1) == 1u && 7 / 2 == 3 && 7.0 / 2.0 == 3.5 && 7 % 4 == 3",
        "duration('1h') == duration('60m') && timestamp('2024-01-01T00:00:00Z').getFullYear() == 2024",
        "timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
        "timestamp('2024-01-07T00:00:00Z').getDayOfWeek() == 0 && duration('90s').getMinutes() == 1",
    ] {
        assert_eq!(computed(text, &object, None), Ok(true), "{text}");
    }
    for (text, error) in [
        ("self.b == 1", "no such key: b"),
        ("self.l[5] == 1", "index out of bounds: 5"),
        ("self.a / 0 == 1", "division by zero"),
        ("9223372036854775807 + self.a > 0", "integer overflow"),
        ("self.l.all(x, self.b == x)", "no such key: b"),
    ] {
        assert_eq!(computed(text, &object, None), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn the_functions_of_kubernetes() {
    for text in [
        "'hello'.matches('^h.*o$') && 'abc 123'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]') == ['1', '2', '3']",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b' && 'x'.replace('x', 'y') == 'y'",
        "'Hello'.lowerAscii() == 'hello' && ' a '.trim() == 'a' && 'hello'.substring(1, 3) == 'el'",
        "'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.charAt(0) == 'h'",
        "'%s has %d of %.1f'.format(['x', 1, 2.5]) == 'x has 1 of 2.5'",
        "[1, 2, 3].isSorted() && [1, 2, 3].sum() == 6 && [1, 2, 3].max() == 3 && [3, 1].min() == 1",
        "['a', 'b', 'a'].indexOf('a') == 0 && ['a', 'b', 'a'].lastIndexOf('a') == 2",
        "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 2], [2, 1])",
        "url('https://example.com:80/p?k=v').getHost() == 'example.com:80' && isURL('https://x') && !isURL('x y')",
        "url('https://example.com:80/p?k=v').getPort() == '80' && url('https://x/p?k=v').getQuery()['k'] == ['v']",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')) == quantity('1')",
        "isQuantity('5k') && !isQuantity('x') && quantity('5').asInteger() == 5 && quantity('-1').sign() == -1",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('10.0.0.1') && !isIP('10.0.0')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && string(ip('10.0.0.1')) == '10.0.0.1'",
        "!format.dns1123Label().validate('ok').hasValue() && format.dns1123Label().validate('No!').value().size() == 1",
        "format.named('uuid').hasValue() && !format.named('nope').hasValue()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))",
        "isSemver('1.2.3') && !isSemver('v1.2') && semver('v1.2', true).minor() == 2",
    ] {
        assert_eq!(computed(text, &Json::Null, None), Ok(true), "{text}");
    }
}

#[test]
fn every_step_is_paid_for() {
    let object = json!({"l": vec![1; 2000]});
    assert_eq!(
        computed("self.l.all(x, self.l.all(y, x == y))", &object, None),
        Err("cost".into())
    );
    let mut budget = Budget::new(100);
    let program = Program::parse("'a'.matches('a')").expect("an expression");
    program.run(Vec::new(), &mut budget).expect("cheap");
    assert!(budget.left() < 100);
}

fn checked(text: &str, schema: Json) -> Result<u64, String> {
    let schema = Schema::compile(&schema);
    let decl = of_schema(&schema, true, "object").expect("a type");
    let program = Program::parse(text)?;
    let checked = program.check(Names::new(vec![("self", decl)]))?;
    match checked.decl.ty {
        Type::Bool => Ok(checked.cost),
        ref other => Err(format!("a {other}")),
    }
}

fn schema() -> Json {
    json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 10},
        "count": {"type": "integer"},
        "when": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "maxItems": 5, "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "long": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}}
    }})
}

#[test]
fn mistakes_are_found_before_anything_is_computed() {
    for text in [
        "self.count > 0 && self.name.startsWith('a') && self.metadata.name == 'x'",
        "self.list.all(e, e.x > 0) && self.map.all(k, self.map[k] != '')",
        "self.when < timestamp('2024-01-01T00:00:00Z') && self.port == 80",
        "type(self.port) == int ? self.port < 1024 : self.port == 'http'",
    ] {
        assert!(
            checked(text, schema()).is_ok(),
            "{text}: {:?}",
            checked(text, schema())
        );
    }
    for (text, error) in [
        ("self.nope == 1", "undefined field 'nope'"),
        (
            "self.count == 'a'",
            "found no matching overload for '_==_' applied to '(int, string)'",
        ),
        ("other == 1", "undeclared reference to 'other' (in container '')"),
        ("nope(1)", "undeclared reference to 'nope' (in container '')"),
        (
            "self.count.startsWith('a')",
            "found no matching overload for 'startsWith' applied to 'int.(string)'",
        ),
        ("self.count.all(x, true)", "cannot be range of a comprehension"),
        ("self.metadata.labels == {}", "undefined field 'labels'"),
    ] {
        let found = checked(text, schema()).expect_err(text);
        assert!(found.contains(error), "{text}: {found}");
    }
    assert_eq!(checked("self.count + 1", schema()), Err("a int".into()));
    assert_eq!(
        checked("self.foo == 1", schema()).expect_err("a mistake"),
        "compilation failed: ERROR: <input>:1:5: undefined field 'foo'\n | self.foo == 1\n | ....^"
    );
}

#[test]
fn costs_follow_the_limits_of_the_schema() {
    let bounded = checked("self.list.all(e, e.x > 0)", schema()).expect("bounded");
    assert!(bounded < 100, "{bounded}");
    let unbounded = checked("self.long.all(a, self.long.all(b, a == b))", schema()).expect("unbounded");
    assert!(unbounded > 10_000_000, "{unbounded}");
}

#[test]
fn texts_with_formats_are_what_they_mean() {
    let schema = Schema::compile(&schema());
    let object = json!({"when": "2024-01-01T00:00:00Z", "port": "http"});
    assert_eq!(
        computed(
            "self.when.getFullYear() == 2024 && self.port == 'http'",
            &object,
            Some(&schema)
        ),
        Ok(true)
    );
}
