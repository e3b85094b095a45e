//! The progress stream of a daemon: JSON values with white space between them, cut into chunks anywhere.

use std::time::Duration;

use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Api, Exchange};
use crate::error::{Error, Result};

/// No message of a daemon is this long; what is has another meaning.
const MAX_MESSAGE: usize = 16 << 20;

/// One message (moby, `pkg/jsonmessage`; Podman sends the same).
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Message {
    /// Text of a classic build.
    pub(crate) stream: Option<String>,
    /// State of a layer, or a line.
    pub(crate) status: Option<String>,
    /// The layer, or the tag.
    pub(crate) id: Option<String>,
    #[serde(rename = "progressDetail")]
    pub(crate) progress: Option<Progress>,
    /// The last message of a failure.
    #[serde(rename = "errorDetail")]
    pub(crate) error_detail: Option<ErrorDetail>,
    pub(crate) error: Option<String>,
    /// Results: an image id, a digest.
    pub(crate) aux: Option<Value>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Progress {
    pub(crate) current: i64,
    pub(crate) total: i64,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct ErrorDetail {
    pub(crate) code: Option<i64>,
    pub(crate) message: String,
}

impl Message {
    /// Text and exit code of a failure.
    pub(crate) fn failure(&self) -> Option<(String, Option<i64>)> {
        let detail = self.error_detail.as_ref();
        let text = match (detail, &self.error) {
            (Some(detail), _) if !detail.message.is_empty() => detail.message.clone(),
            (_, Some(error)) if !error.is_empty() => error.clone(),
            (Some(_), _) | (_, Some(_)) => "the daemon gave no reason".to_owned(),
            (None, None) => return None,
        };
        Some((text, detail.and_then(|detail| detail.code).filter(|code| *code != 0)))
    }

    /// `current` and `total`, 0 where unknown.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.progress.as_ref().map_or((0, 0), |progress| {
            (u64::try_from(progress.current).unwrap_or(0), u64::try_from(progress.total).unwrap_or(0))
        })
    }
}

/// Cuts bytes into messages.
#[derive(Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Start of what has not been given out.
    start: usize,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` if more bytes are needed. The error is a reason.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, String> {
        let rest = &self.buffer[self.start..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Message>();
        match values.next() {
            Some(Ok(message)) => {
                self.start += values.byte_offset();
                Ok(Some(message))
            }
            Some(Err(error)) if error.is_eof() && rest.len() < MAX_MESSAGE => Ok(None),
            Some(Err(error)) => Err(format!("it sent something that is no progress message ({error})")),
            None => Ok(None),
        }
    }

    /// Whether bytes are left over that make no message.
    pub(crate) fn is_cut(&self) -> bool {
        self.buffer[self.start..].iter().any(|byte| !byte.is_ascii_whitespace())
    }
}

/// The messages of one response.
pub(crate) struct Messages<'a> {
    api: &'a Api,
    exchange: Exchange,
    decoder: Decoder,
    action: &'a str,
    /// How long the daemon may say nothing; `None` for RUN steps, which may be silent for hours.
    silence: Option<Duration>,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(api: &'a Api, exchange: Exchange, action: &'a str, silence: Option<Duration>) -> Self {
        Self { api, exchange, decoder: Decoder::default(), action, silence }
    }

    /// The next message; `None` at the end. Fails with `DaemonProtocol` for garbage, a cut connection or a cut message,
    /// and with `TimedOut` after too long a silence.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>> {
        let broken = |reason: String| Error::DaemonProtocol { action: self.action.to_owned(), reason };
        loop {
            if let Some(message) = self.decoder.next().map_err(broken)? {
                return Ok(Some(message));
            }
            let frame = self.exchange.response.body_mut().frame();
            let frame = match self.silence {
                Some(limit) => tokio::time::timeout(limit, frame)
                    .await
                    .map_err(|_| Error::TimedOut { action: self.action.to_owned(), after: limit })?,
                None => frame.await,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.decoder.push(bytes);
                    }
                }
                Some(Err(error)) => return Err(self.api.broken(&error, self.action)),
                None if self.decoder.is_cut() => return Err(broken("the last message is cut off".into())),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = "{\"stream\":\"Step 1/2 : FROM a\\n\"}\r\n{\"status\":\"x\",\"id\":\"l\",\"progressDetail\":{\"current\":1,\"total\":2}} {\"aux\":{\"ID\":\"sha256:1\"}}\n\n{\"errorDetail\":{\"code\":3,\"message\":\"m\"},\n \"error\":\"m\"}";

    proptest! {
        #[test]
        fn chunks_may_end_anywhere(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for pair in cuts.windows(2) {
                decoder.push(&STREAM.as_bytes()[pair[0]..pair[1]]);
                while let Some(message) = decoder.next().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert!(!decoder.is_cut());
            prop_assert_eq!(seen.len(), 4);
            prop_assert_eq!(seen[1].counts(), (1, 2));
            prop_assert_eq!(seen[3].failure(), Some(("m".to_owned(), Some(3))));
        }
    }

    #[test]
    fn garbage_and_cut_messages_are_seen() {
        let mut decoder = Decoder::default();
        decoder.push(b"<html>");
        assert!(decoder.next().is_err());
        let mut decoder = Decoder::default();
        decoder.push(b"{\"stream\":");
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.is_cut());
    }
}
