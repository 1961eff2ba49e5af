//! Whose turn it is: who changes objects is asked once more when somebody else has changed the object since.
//!
//! The plugins run once, and a second time if policies or webhooks have changed anything. The second time, policies and
//! webhooks look at the object again only if they want to (`reinvocationPolicy: IfNeeded`) and it is not as they left it.

/// What has happened to a request's object so far.
#[derive(Debug, Default)]
pub struct Turns {
    /// Set when a policy or webhook has changed the object.
    pub changed: bool,
    /// Set when the plugins run for the second time.
    pub second: bool,
    /// Of mutating policies.
    pub policies: Asked,
    /// Of mutating webhooks.
    pub webhooks: Asked,
}

/// Who of one plugin was asked, and is to be asked again.
#[derive(Debug, Default)]
pub struct Asked {
    /// Who wants to be asked again about later changes.
    waiting: Vec<String>,
    /// Who is to be asked again.
    due: Vec<String>,
    /// The object as the plugin left it.
    left: Option<Vec<u8>>,
}

impl Asked {
    /// Somebody changed the object: whoever waits for that is to be asked again.
    pub fn changed(&mut self) {
        self.due.append(&mut self.waiting);
    }

    /// Somebody was asked who waits for changes.
    pub fn waits(&mut self, who: String) {
        self.waiting.push(who);
    }

    /// Whether it is somebody's turn again.
    pub fn is_due(&self, who: &str) -> bool {
        self.due.iter().any(|due| due == who)
    }

    /// Whether anybody may be asked again.
    pub fn matters(&self) -> bool {
        !(self.waiting.is_empty() && self.due.is_empty())
    }

    /// The plugin is done with the object for the first time.
    pub fn leave(&mut self, object: Vec<u8>) {
        self.left = Some(object);
    }

    /// The plugin sees the object for the second time.
    pub fn return_to(&mut self, object: &[u8]) {
        if self.left.as_deref().is_some_and(|left| left != object) {
            self.changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_before_a_change_is_asked_again() {
        let mut asked = Asked::default();
        asked.waits("first".into());
        asked.changed();
        asked.waits("second".into());
        assert!(asked.is_due("first") && !asked.is_due("second"));
        asked.leave(b"a".to_vec());
        asked.return_to(b"a");
        assert!(!asked.is_due("second"));
        asked.return_to(b"b");
        assert!(asked.is_due("second"));
    }
}
