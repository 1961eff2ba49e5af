//! The rules of one subject by what they are about, for subjects with so many that looking at each would take long.
//!
//! A table says which rules could allow a request; whether one does is asked of the rule itself. It is made when a
//! subject has asked often enough to pay for it, and dropped when a binding of the subject or a role behind one changes.

use std::collections::HashMap;

use super::rule::{EVERY, OTHER, Rule};
use crate::authorization::{Attributes, Target};

/// Subjects with fewer rules are as quickly served by looking at each.
const WORTH: usize = 32;
/// Begins a name that a rule asks for.
const NAME: u8 = 0xfe;
/// Ends the parts of a key. Neither can be part of a text.
const END: u8 = 0xff;

/// Where a rule is: the place of the grant among the subject's, and of the rule in its role.
type Place = (u32, u32);

/// Rules by what they are about.
#[derive(Debug)]
pub(super) struct Table {
    /// Sorted by key, then by place.
    entries: Box<[(u32, Place)]>,
    /// Lengths of the URLs that end in a star, without it; sorted.
    lengths: Box<[u32]>,
    /// Grants whose role does not exist.
    missing: Box<[u32]>,
}

/// What the rules of a key allow already.
#[derive(Default)]
struct Allowed<'r> {
    mask: u16,
    others: Vec<&'r str>,
}

impl<'r> Allowed<'r> {
    /// Adds the verbs of a rule; whether there were new ones.
    fn add(&mut self, rule: &'r Rule) -> bool {
        if self.mask == EVERY {
            return false;
        }
        let mut new = rule.mask & !self.mask != 0;
        self.mask |= rule.mask;
        if rule.mask & OTHER != 0 && rule.mask != EVERY {
            for verb in rule.odd_verbs() {
                if !self.others.contains(&verb) {
                    self.others.push(verb);
                    new = true;
                }
            }
        }
        new
    }
}

/// What a rule is about.
#[derive(PartialEq, Eq, Hash)]
enum About<'r> {
    Resource(&'r str, &'r str, Option<&'r str>),
    Url(&'r str),
    /// Everything that begins so.
    Below(&'r str),
}

impl About<'_> {
    fn key(&self) -> u32 {
        match self {
            About::Resource(group, resource, name) => {
                let key = Key::resources().add(group).end().add(resource).end();
                match name {
                    Some(name) => key.named(name),
                    None => key,
                }
                .finish()
            }
            About::Url(url) => Key::urls().add(url).end().finish(),
            About::Below(url) => Key::urls().add(url).finish(),
        }
    }
}

/// FNV-1a: keys that are the same by chance cost a look at a rule and nothing else.
#[derive(Clone, Copy)]
struct Key(u64);

impl Key {
    fn resources() -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(b'r')
    }

    fn urls() -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(b'u')
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    fn add(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte)
    }

    fn end(self) -> Self {
        self.byte(END)
    }

    fn named(self, name: &str) -> Self {
        self.byte(NAME).add(name)
    }

    fn finish(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "both halves are in it")]
        let folded = (self.0 ^ (self.0 >> 32)) as u32;
        folded
    }
}

impl Table {
    /// The table of a subject with these roles, in the order of its grants; nothing if it would not pay.
    pub(super) fn new<'r>(roles: impl Iterator<Item = Option<&'r [Rule]>>) -> Option<Self> {
        let roles: Vec<Option<&[Rule]>> = roles.collect();
        if roles.iter().flatten().map(|rules| rules.len()).sum::<usize>() < WORTH {
            return None;
        }
        let mut seen: HashMap<About<'_>, Allowed<'_>> = HashMap::new();
        let (mut entries, mut lengths, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for (grant, rules) in roles.iter().enumerate() {
            let grant = u32::try_from(grant).ok()?;
            let Some(rules) = rules else {
                missing.push(grant);
                continue;
            };
            for (at, rule) in rules.iter().enumerate() {
                let place = (grant, u32::try_from(at).ok()?);
                let mut file = |about: About<'r>| {
                    let key = about.key();
                    if seen.entry(about).or_default().add(rule) {
                        entries.push((key, place));
                    }
                };
                for group in &rule.groups {
                    for resource in &rule.resources {
                        if rule.names.is_empty() {
                            file(About::Resource(group, resource, None));
                        }
                        for name in &rule.names {
                            file(About::Resource(group, resource, Some(name)));
                        }
                    }
                }
                for url in &rule.urls {
                    let below = url.trim_end_matches('*');
                    if below.len() == url.len() {
                        file(About::Url(url));
                    } else {
                        file(About::Below(below));
                        lengths.push(u32::try_from(below.len()).ok()?);
                    }
                }
            }
        }
        entries.sort_unstable();
        lengths.sort_unstable();
        lengths.dedup();
        Some(Self {
            entries: entries.into(),
            lengths: lengths.into(),
            missing: missing.into(),
        })
    }

    /// The grants whose role does not exist, in order.
    pub(super) fn missing(&self) -> impl Iterator<Item = usize> {
        self.missing.iter().map(|grant| *grant as usize)
    }

    /// The first grant of which a rule allows the request. `allows` says whether the rule in this place does.
    pub(super) fn find(
        &self,
        attributes: &Attributes<'_>,
        allows: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let mut best: Option<u32> = None;
        let mut look = |key: Key| {
            let key = key.finish();
            let from = self.entries.partition_point(|(known, _)| *known < key);
            for (known, (grant, rule)) in &self.entries[from..] {
                if *known != key || best.is_some_and(|best| best <= *grant) {
                    break;
                }
                if allows(*grant as usize, *rule as usize) {
                    best = Some(*grant);
                    break;
                }
            }
        };
        match attributes.target {
            Target::Resource {
                group,
                resource,
                subresource,
                name,
                ..
            } => {
                for group in [group, "*"] {
                    let group = Key::resources().add(group).end();
                    let mut whatever_name = |key: Key| {
                        look(key.end());
                        look(key.end().named(name));
                    };
                    whatever_name(group.add("*"));
                    if subresource.is_empty() {
                        whatever_name(group.add(resource));
                    } else {
                        whatever_name(group.add(resource).add("/").add(subresource));
                        whatever_name(group.add("*/").add(subresource));
                    }
                }
            }
            Target::Path(path) => {
                let mut key = Key::urls();
                let mut taken = 0;
                for length in self.lengths.iter().map(|length| *length as usize) {
                    let Some(part) = path.as_bytes().get(taken..length) else {
                        break;
                    };
                    key = part.iter().fold(key, |key, byte| key.byte(*byte));
                    taken = length;
                    look(key);
                }
                look(Key::urls().add(path).end());
            }
        }
        best.map(|grant| grant as usize)
    }
}
