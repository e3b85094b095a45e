//! How well commands can be isolated here, and why not better.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How commands are isolated, and whose files they can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A user namespace with the subordinate ids that the administrator gave the user: files have their true owners.
    Subordinate,
    /// A user namespace with one id, the user's own: other owners are recorded, not real.
    Single,
    /// The user is root, with `CAP_SYS_ADMIN`: all namespaces but the one of users.
    Root,
    /// The user is root in a container that allows no namespaces: another root directory, and nothing else.
    Chroot,
    /// Commands cannot be run.
    None,
}

impl Level {
    /// The levels that run commands, those first that are better for an unprivileged user.
    pub const ALL: [Self; 4] = [Self::Root, Self::Subordinate, Self::Single, Self::Chroot];

    /// Its name, as options and messages have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subordinate => "subordinate",
            Self::Single => "single",
            Self::Root => "root",
            Self::Chroot => "chroot",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something does not work here, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was tried and how it failed.
    pub reason: String,
    /// What the user or the administrator can do.
    pub advice: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// What was found out about one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelSupport {
    /// Which level.
    pub level: Level,
    /// Why commands cannot be run at this level; `None` if they can.
    pub problem: Option<Problem>,
    /// Why overlayfs does not work at this level in the directory that was tried, if it does not. Roots are then copied.
    pub overlay: Option<Problem>,
    /// Whether `/proc` is of the sandbox alone; else it is the one of this machine or container.
    pub own_proc: bool,
}

/// What was found out about a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Each level that was tried, best first.
    pub levels: Vec<LevelSupport>,
}

impl Support {
    /// The best level that works; [`Level::Chroot`], which isolates little, only if that is wanted.
    pub fn best(&self, chroot: bool) -> Level {
        let mut works = self.levels.iter().filter(|found| found.problem.is_none()).map(|found| found.level);
        works.find(|level| *level != Level::Chroot || chroot).unwrap_or(Level::None)
    }

    /// What was found out about one level.
    pub fn of(&self, level: Level) -> Option<&LevelSupport> {
        self.levels.iter().find(|found| found.level == level)
    }
}
