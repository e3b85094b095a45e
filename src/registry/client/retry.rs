//! When to try again, and how long to wait before.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often one thing is tried before it has failed, if nothing gets further.
    pub tries: u32,
    /// The wait before the second try; it doubles from one to the next, and half of it is chance.
    pub first_wait: Duration,
    /// The longest wait of our own choice.
    pub longest_wait: Duration,
    /// The longest wait that a registry may ask for (`Retry-After`).
    pub longest_asked: Duration,
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// For the answer to the end of an upload: registries then copy the blob within their storage.
    pub commit: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            longest_asked: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            commit: Duration::from_secs(300),
        }
    }
}

/// The tries of one thing.
pub(super) struct Retry {
    limits: Limits,
    /// In a row.
    failures: u32,
    /// Altogether.
    all: u32,
}

/// A transfer that gets further each time may break more often than one that does not, but not for ever.
const PATIENCE: u32 = 10;

impl Retry {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, failures: 0, all: 0 }
    }

    /// Notes a failure. How long to wait before the next try; `None` if there is none.
    pub(super) fn failed(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        self.all += 1;
        if self.failures >= self.limits.tries || self.all >= self.limits.tries.saturating_mul(PATIENCE) {
            return None;
        }
        let doubled = self.limits.first_wait.saturating_mul(1 << (self.failures - 1).min(16));
        let own = doubled.min(self.limits.longest_wait);
        let own = own.mul_f64(0.5 + chance() / 2.0);
        Some(asked.map_or(own, |asked| asked.min(self.limits.longest_asked).max(own)))
    }

    /// Notes that the last try got further than the one before.
    pub(super) const fn got_further(&mut self) {
        self.failures = 0;
    }
}

/// From 0 to 1. Two clients that were refused together must not come back together.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Whether what a status says passes: too many requests, and faults of a server or of something before it.
pub(super) fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=524)
}

/// How long a server asks us to wait: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_end() {
        let limits = Limits { tries: 4, ..Limits::default() };
        let mut retry = Retry::new(limits);
        let waits: Vec<_> = (0..4).map(|_| retry.failed(None)).collect();
        for (wait, most) in waits[..3].iter().zip([250, 500, 1000]) {
            let wait = wait.unwrap().as_millis();
            assert!(wait >= most / 2 && wait <= most, "{wait}");
        }
        assert_eq!(waits[3], None);
        let mut retry = Retry::new(limits);
        let endless = (0..1000).find(|_| {
            retry.got_further();
            retry.failed(None).is_none()
        });
        assert_eq!(endless, Some(39));
    }

    #[test]
    fn a_registry_may_ask_for_time() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            asked(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        assert!(of(&later).unwrap() > Duration::from_secs(3000));
        let mut retry = Retry::new(Limits::default());
        assert_eq!(retry.failed(of(&later)), Some(Duration::from_secs(60)));
    }
}
