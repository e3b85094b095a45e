//! The order of paths.

use std::cmp::Ordering;

/// Compares two paths in the order of a walk: depth first, siblings by their bytes, a directory before what is in it.
pub fn compare_paths(left: &[u8], right: &[u8]) -> Ordering {
    // No name holds a NUL byte, so the separator can take its place: it sorts before everything else.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    left[same..].iter().map(key).cmp(right[same..].iter().map(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_a_walk() {
        let sorted: &[&[u8]] = &[b"A", b"a", b"a/b", b"a/b/c", b"a/c", b"a b", b"a!", b"a.txt", b"ab", b"b", b"\xff"];
        let mut paths = sorted.to_vec();
        paths.reverse();
        paths.sort_by(|left, right| compare_paths(left, right));
        // A space sorts before `!`, and both after `/`, whatever their codes are.
        assert_eq!(paths, sorted);
    }
}
