//! `--chown` and USER: names and numbers of users and groups.

use super::files::Owner;
use crate::error::Result;

/// What users and groups a file system knows (`/etc/passwd` and `/etc/group`), by name.
pub trait Account {
    /// The user's number, and that of the group.
    fn user(&self, name: &str) -> Result<Option<Owner>>;

    /// The group's number.
    fn group(&self, name: &str) -> Result<Option<u32>>;
}

/// Whom something is to belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The numbers.
    pub owner: Owner,
    /// Names that the file system does not know. They mean root, as in `BuildKit`.
    pub unknown: Vec<String>,
}

/// One part of `user:group`.
enum Part<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Part<'a> {
    /// Numbers above 2147483647 are names, as in `BuildKit`.
    fn new(text: &'a str) -> Self {
        match text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Self::Number(number),
            None if matches!(text, "" | "root") => Self::Number(0),
            None => Self::Name(text),
        }
    }

    const fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

fn split(text: &str) -> (Part<'_>, Option<Part<'_>>) {
    match text.split_once(':') {
        Some((user, group)) => (Part::new(user), Some(Part::new(group))),
        None => (Part::new(text), None),
    }
}

/// Whether [`owner`] has to look a name up.
pub fn needs_names(text: &str) -> bool {
    let (user, group) = split(text);
    user.is_name() || group.is_some_and(|group| group.is_name())
}

/// What `user`, `user:group` or `:group` means. A number without a group is the group's too; a name brings its group.
///
/// Fails as the accounts do.
pub fn owner(text: &str, accounts: &dyn Account) -> Result<Ownership> {
    let (user, group) = split(text);
    let mut unknown = Vec::new();
    let mut owner = match user {
        Part::Number(number) => Owner { uid: number, gid: number },
        Part::Name(name) => accounts.user(name)?.unwrap_or_else(|| {
            unknown.push(name.to_owned());
            Owner::default()
        }),
    };
    match group {
        None => {}
        Some(Part::Number(number)) => owner.gid = number,
        Some(Part::Name(name)) => match accounts.group(name)? {
            Some(number) => owner.gid = number,
            None => unknown.push(name.to_owned()),
        },
    }
    Ok(Ownership { owner, unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Debian;

    impl Account for Debian {
        fn user(&self, name: &str) -> Result<Option<Owner>> {
            Ok((name == "lp").then_some(Owner { uid: 7, gid: 8 }))
        }

        fn group(&self, name: &str) -> Result<Option<u32>> {
            Ok((name == "adm").then_some(4))
        }
    }

    #[test]
    fn names_and_numbers_are_what_buildkit_takes_them_for() {
        let cases = [
            ("1:2", 1, 2, ""),
            ("1", 1, 1, ""),
            ("1:adm", 1, 4, ""),
            ("lp", 7, 8, ""),
            ("lp:adm", 7, 4, ""),
            ("lp:3", 7, 3, ""),
            ("lp:", 7, 0, ""),
            (":5", 0, 5, ""),
            ("root:root", 0, 0, ""),
            ("nobody", 0, 0, "nobody"),
            ("lp:nobody", 7, 8, "nobody"),
            ("4294967295", 0, 0, "4294967295"),
        ];
        for (text, uid, gid, unknown) in cases {
            let found = owner(text, &Debian).unwrap();
            assert_eq!((found.owner, found.unknown.join(",").as_str()), (Owner { uid, gid }, unknown), "{text}");
        }
    }

    #[test]
    fn numbers_need_no_names() {
        for (text, expected) in [("1:2", false), ("", false), ("root", false), ("0:adm", true), ("lp", true)] {
            assert_eq!(needs_names(text), expected, "{text}");
        }
    }
}
