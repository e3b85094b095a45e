//! Which ids inside of a user namespace are which outside of it.

use std::fs;

use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::level::{Level, Problem};

/// Ids that follow each other inside and outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id, as the command sees it.
    pub inside: u32,
    /// The first id, as this process sees it.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

impl IdRange {
    /// All ids as they are.
    const SAME: Self = Self { inside: 0, outside: 0, count: u32::MAX };

    fn translate(from: u32, to: u32, count: u32, id: u32) -> Option<u32> {
        let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
        to.checked_add(offset)
    }
}

/// The users and groups of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// The ids of a level, for this user. Root shares its own; others have what `/etc/subuid` and `/etc/subgid` give them,
    /// above their own id, which is root's inside.
    pub fn of(level: Level) -> Result<Self, Problem> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        match level {
            Level::Root | Level::Chroot | Level::None => {
                Ok(Self { uids: vec![IdRange::SAME], gids: vec![IdRange::SAME] })
            }
            Level::Single => Ok(Self { uids: vec![own(uid)], gids: vec![own(gid)] }),
            Level::Subordinate if uid == 0 => {
                Ok(Self { uids: shared("/proc/self/uid_map"), gids: shared("/proc/self/gid_map") })
            }
            Level::Subordinate => {
                let name = user_name(uid);
                Ok(Self {
                    uids: with_subordinate(own(uid), "/etc/subuid", uid, name.as_deref())?,
                    gids: with_subordinate(own(gid), "/etc/subgid", uid, name.as_deref())?,
                })
            }
        }
    }
}

const fn own(id: u32) -> IdRange {
    IdRange { inside: 0, outside: id, count: 1 }
}

/// The ids that this process has itself.
fn shared(map: &str) -> Vec<IdRange> {
    let text = fs::read_to_string(map).unwrap_or_default();
    let ranges = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(IdRange { inside: first, outside: first, count })
    });
    ranges.collect()
}

fn with_subordinate(own: IdRange, file: &str, uid: u32, name: Option<&str>) -> Result<Vec<IdRange>, Problem> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut ranges = vec![own];
    let mut next = 1_u32;
    for (first, count) in subordinate(&text, uid, name) {
        let Some(after) = next.checked_add(count) else { break };
        ranges.push(IdRange { inside: next, outside: first, count });
        next = after;
    }
    if ranges.len() == 1 {
        let shown = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Err(Problem {
            reason: format!("{file} gives no ids to the user `{shown}`"),
            advice: Some(format!(
                "have the administrator run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shown}`"
            )),
        });
    }
    Ok(ranges)
}

/// What a file of subordinate ids (subuid(5)) gives a user, who is named or numbered there.
fn subordinate<'a>(text: &'a str, uid: u32, name: Option<&'a str>) -> impl Iterator<Item = (u32, u32)> + 'a {
    text.lines().filter_map(move |line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(who) == name || who.parse() == Ok(uid)).then_some((first, count)).filter(|(_, count)| *count > 0)
    })
}

fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = users.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The first of `ranges` that has `id` inside says what it is outside.
pub fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| IdRange::translate(range.inside, range.outside, range.count, id))
}

/// The first of `ranges` that has `id` outside says what it is inside.
pub fn inside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| IdRange::translate(range.outside, range.inside, range.count, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_both_ways() {
        let map = [
            IdRange { inside: 0, outside: 1000, count: 1 },
            IdRange { inside: 1, outside: 100_000, count: 65_536 },
            IdRange { inside: 65_537, outside: u32::MAX, count: 2 },
        ];
        for (inner, outer) in [(0, 1000), (1, 100_000), (65_536, 165_535), (65_537, u32::MAX)] {
            assert_eq!((outside(&map, inner), inside(&map, outer)), (Some(outer), Some(inner)));
        }
        assert_eq!((outside(&map, 65_538), outside(&map, 70_000), inside(&map, 0)), (None, None, None));
    }

    #[test]
    fn subordinate_ids_are_named_or_numbered() {
        let text = "ann:100000:65536\n1000:300000:10\n\nbob:1:1\nann:200000:0\nann:x:5\nann:400000:5\n";
        let of = |uid, name| subordinate(text, uid, name).collect::<Vec<_>>();
        assert_eq!(of(1000, Some("ann")), [(100_000, 65_536), (300_000, 10), (400_000, 5)]);
        assert_eq!(of(1000, None), [(300_000, 10)]);
        assert_eq!(of(1, Some("eve")), []);
    }
}
