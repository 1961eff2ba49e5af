use super::*;

#[test]
fn reads_what_people_write() {
    for text in [
        "self.replicas <= self.maxReplicas && size(self.list) > 0",
        "self.items.all(i, i.name.startsWith('a') || i.name == \"b\")",
        "has(self.a) ? self.a == oldSelf.?a.orValue(1) : true",
        "[1, 2u, 3.0, -4, 0x1f, r'\\d', b'x', '''long'''].size() == 8",
        "{'a': 1, 'b': [?optional.none()]}['a'] in [1] // comment",
        "!(-x > -9223372036854775808) || self.m[?'k'].hasValue()",
        "cel.bind(x, self.a, x + x) == 2",
        "self.all(k, v, k != v)",
        "Object{spec: Object.spec{replicas: 3, ?paused: self.?a,}}",
        "[JSONPatch{op: 'add', path: '/a', value: {}}]",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }
    for text in [
        "",
        "self.",
        "a b",
        "'open",
        "a ? b",
        "[1,",
        "has(a)",
        "1 +",
        "x.map(1, 2)",
        "9223372036854775808",
        "Object{1: 2}",
        "self.a(){b: 1}",
        "Object{",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    for text in [
        "(".repeat(100_000 - 1),
        format!("{}1", "!".repeat(5000)),
        vec!["1"; 5000].join("+"),
        format!("a{}", ".b".repeat(5000)),
        "[".repeat(5000),
        format!("{}1", "a?b:".repeat(5000)),
        "O{a:".repeat(5000),
    ] {
        assert!(parse(&text).is_err());
    }
    assert!(parse(&vec!["true"; 5000].join("&&")).is_ok());
}
