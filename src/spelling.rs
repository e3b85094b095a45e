//! How far a word is from the one that was perhaps meant.

/// How many letters must be added, dropped, changed or swapped with their neighbour (optimal string alignment).
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn neighbours_that_are_swapped_are_one_mistake() {
        for (left, right, expected) in
            [("", "", 0), ("", "abc", 3), ("COPY", "COYP", 1), ("kitten", "sitting", 3), ("ß", "s", 1)]
        {
            assert_eq!((distance(left, right), distance(right, left)), (expected, expected), "{left} {right}");
        }
    }
}
