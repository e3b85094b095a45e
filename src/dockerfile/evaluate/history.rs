//! Values as an image's history shows them: as Go prints them.

use std::fmt::Write as _;
use std::time::Duration;

use crate::dockerfile::instruction::{Command, Healthcheck};

/// `["a" "b"]`.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            other if other.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A health check with all its fields.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    let test = match &check.command {
        None => "NONE".to_owned(),
        Some(Command::Shell(text)) => format!("CMD-SHELL {text}"),
        Some(Command::Exec(words)) => format!("CMD {}", words.join(" ")),
    };
    let time = |time: Option<Duration>| duration(time.unwrap_or_default());
    format!(
        "HEALTHCHECK {{Test:[{test}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        check.retries
    )
}

/// `1h0m30s`, `1.5s`, `300ms`.
fn duration(time: Duration) -> String {
    if time.is_zero() {
        return "0s".to_owned();
    }
    if time < Duration::from_secs(1) {
        let (unit, size) = if time >= Duration::from_millis(1) { ("ms", 1_000_000) } else { ("µs", 1_000) };
        return format!("{}{unit}", decimal(time.as_nanos(), size));
    }
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(time.as_nanos() % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A number of units, with a fraction as long as needed.
fn decimal(value: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", value / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        let cases = [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(&["a \"b\"\n".into(), "\u{1b}é".into()]), "[\"a \\\"b\\\"\\n\" \"\\x1bé\"]");
    }
}
