//! Which ids inside of a user namespace are which outside of it.

use serde::{Deserialize, Serialize};

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
}
