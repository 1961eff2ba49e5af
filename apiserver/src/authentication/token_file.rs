//! `--token-auth-file`: a CSV file of token, user, uid and groups.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::User;

/// The users of the file, by the hash of their token: looking a hash up says nothing about the token through time.
pub struct TokenFile {
    users: HashMap<[u8; 32], User>,
}

impl TokenFile {
    /// Reads the file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--token-auth-file: cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("--token-auth-file: {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                bail!("line {}: token, user and uid are needed", number + 1);
            };
            if token.is_empty() {
                bail!("line {}: the token is empty", number + 1);
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups
                .split(',')
                .map(str::trim)
                .filter(|g| !g.is_empty())
                .map(str::to_owned);
            let mut user = User::named(name.clone(), groups);
            user.uid.clone_from(uid);
            users.insert(hash(token), user);
        }
        Ok(Self { users })
    }

    /// Whose token it is.
    pub fn user(&self, token: &str) -> Option<User> {
        self.users.get(&hash(token)).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The fields of a line; quotes keep commas together and are doubled inside quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut chars) = (false, line.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                push(&mut fields, '"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => push(&mut fields, c),
        }
    }
    fields.iter().map(|f| f.trim().to_owned()).collect()
}

fn push(fields: &mut [String], c: char) {
    if let Some(last) = fields.last_mut() {
        last.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_upstream_reads_them() {
        let file = TokenFile::parse("abc,alice,1,\"a,b\"\n\n xyz, bob, 2\n").expect("a file");
        let alice = file.user("abc").expect("alice");
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "1"));
        assert_eq!(alice.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(file.user("xyz").expect("bob").name, "bob");
        assert!(file.user("nope").is_none());
        assert!(TokenFile::parse("only,two").is_err());
    }
}
