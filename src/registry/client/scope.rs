//! What a token allows (distribution's docs/spec/auth/scope.md).

use std::collections::BTreeSet;
use std::fmt;

/// Actions on one resource, such as `repository:team/app:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    resource: String,
    actions: BTreeSet<String>,
}

impl Scope {
    /// Reading a repository.
    pub(super) fn pull(repository: &str) -> Self {
        Self { resource: format!("repository:{repository}"), actions: ["pull".to_owned()].into() }
    }

    /// Reading and writing a repository.
    pub(super) fn push(repository: &str) -> Self {
        Self { resource: format!("repository:{repository}"), actions: ["pull".to_owned(), "push".to_owned()].into() }
    }

    /// Those of a challenge.
    pub(super) fn all(text: &str) -> impl Iterator<Item = Self> {
        text.split_whitespace().filter_map(|scope| {
            let (resource, actions) = scope.rsplit_once(':')?;
            Some(Self { resource: resource.to_owned(), actions: actions.split(',').map(str::to_owned).collect() })
        })
    }

    /// The repository that it is about, if it is about one.
    pub(super) fn repository(&self) -> Option<&str> {
        self.resource.strip_prefix("repository:")
    }

    /// Whether this allows all that `other` does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.resource == other.resource && self.actions.is_superset(&other.actions)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}:{}", self.resource, actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_and_cover() {
        let all: Vec<Scope> = Scope::all("repository:h:5000/a:push,pull registry:catalog:* junk").collect();
        assert_eq!(
            all.iter().map(Scope::to_string).collect::<Vec<_>>(),
            ["repository:h:5000/a:pull,push", "registry:catalog:*"]
        );
        assert!(Scope::push("a").covers(&Scope::pull("a")) && !Scope::pull("a").covers(&Scope::push("a")));
        assert!(!Scope::push("a").covers(&Scope::pull("b")));
    }
}
