//! The ports of EXPOSE: `80`, `8000-8010/udp`, and `[ip:]host:container`, of which only the container's port counts.

use std::net::IpAddr;

use super::mistake::{Mistake, Result};

/// The ports of a word, and what is to say about how it is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// As `port/protocol`.
    pub(super) list: Vec<String>,
    /// The protocol is not in lower case.
    pub(super) upper_protocol: bool,
    /// It has an address or a host's port.
    pub(super) is_mapping: bool,
}

pub(super) fn parse(word: &str) -> Result<Ports> {
    let wrong = |what: &str| Mistake::value(format!("`{word}` is no port of EXPOSE: {what}")).near(word);
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong("the protocol is tcp, udp or sctp"));
    }
    let (first, last) = parse_range(range).ok_or_else(|| wrong("a port is a number up to 65535, or two with `-`"))?;
    if !address.is_empty() {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        bare.parse::<IpAddr>().map_err(|_| wrong("what stands before the first `:` is no address"))?;
    }
    if !host.is_empty() {
        let (from, to) = parse_range(host).ok_or_else(|| wrong("the host's port is none"))?;
        if to - from != last - first && last != first {
            return Err(wrong("the two ranges are not of one length"));
        }
    }
    Ok(Ports {
        list: (first..=last).map(|port| format!("{port}/{lower}")).collect(),
        upper_protocol: protocol != protocol.to_lowercase(),
        is_mapping: !host.is_empty() || !address.is_empty(),
    })
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_forms() {
        let cases = [
            ("80", "80/tcp", false, false),
            ("80/", "80/tcp", false, false),
            ("53/UDP", "53/udp", true, false),
            ("8000-8002", "8000/tcp 8001/tcp 8002/tcp", false, false),
            ("8080:80", "80/tcp", false, true),
            ("127.0.0.1:8080:80/sctp", "80/sctp", false, true),
            ("127.0.0.1::80", "80/tcp", false, true),
            ("[::1]:80:80", "80/tcp", false, true),
            ("::1:80:80", "80/tcp", false, true),
            ("8080-8090:80", "80/tcp", false, true),
        ];
        for (word, ports, upper_protocol, is_mapping) in cases {
            let expected = Ports { list: ports.split(' ').map(str::to_owned).collect(), upper_protocol, is_mapping };
            assert_eq!(parse(word).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for word in ["", "/tcp", "http", "65536", "-1", "90-80", "80/icmp", "x:80:80", "1-3:80-81", "80:x", "1-2-3"] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
