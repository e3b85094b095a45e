//! How much may stay.

use std::time::Duration;

/// What may stay in a store. Neither field set: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many bytes: what was not used for the longest time goes first.
    pub keep_bytes: Option<u64>,
    /// Only what was used within this time.
    pub older_than: Option<Duration>,
}

/// A number of bytes: `1024`, `500k`, `1.5 GiB`. As in Docker, `k`, `kb` and `kib` are all 1024. `None` for anything else.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << power);
    }
    let (whole, part) = number.split_once('.')?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << power)?;
    // Twelve digits are more than any unit can tell apart that matters here.
    let digits = part.get(..part.len().min(12)).filter(|digits| !digits.is_empty() && !part.contains('.'))?;
    let value = u128::from(digits.parse::<u64>().ok()?) << power;
    let part = value / 10_u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// A time: `90s`, `30m`, `24h`, `7d`, `2w`, or several of them, `1h30m`. `None` for anything else.
pub fn parse_age(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut age = 0_u64;
    while !rest.is_empty() || text.trim().is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let seconds = match unit.as_bytes().first()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 24 * 3600,
            b'w' => 7 * 24 * 3600,
            _ => return None,
        };
        age = age.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
        rest = &unit[1..];
    }
    Some(Duration::from_secs(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_numbers_with_units() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("24h", 86_400), (" 2w ", 14 * 86_400), ("1d1h30m", 91_800)] {
            assert_eq!(parse_age(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", " ", "5", "h", "1h30", "-1h", "1.5h", "1y", "1é", "99999999999999w"] {
            assert_eq!(parse_age(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, size) in [
            ("0", 0),
            ("1024", 1024),
            ("500k", 500 << 10),
            ("1.5 GiB", 3 << 29),
            ("2MB", 2 << 20),
            ("0.0009765625k", 1),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in ["", "k", "-1", "1.2.3g", "1.g", ".5g", "10 apples", "99999999999t", "1e3"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
