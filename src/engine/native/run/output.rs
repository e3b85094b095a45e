//! What a command prints: told while it runs, and its last lines kept.

use super::super::progress::Teller;
use super::secrets::Redactor;
use crate::buildkit::output::{Tail, Utf8Decoder};
use crate::sandbox::Stream;

/// The output of one command.
pub(super) struct Output {
    teller: Teller,
    streams: [Printed; 2],
    tail: Tail,
}

/// One of its streams.
struct Printed {
    redactor: Redactor,
    decoder: Utf8Decoder,
}

impl Output {
    /// An output that is told as a step's. `redactor` makes what takes secrets out of a stream.
    pub(super) fn new(teller: Teller, redactor: impl Fn() -> Redactor) -> Self {
        let stream = || Printed { redactor: redactor(), decoder: Utf8Decoder::default() };
        Self { teller, streams: [stream(), stream()], tail: Tail::default() }
    }

    /// Takes what was printed. Blocks while nobody listens.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let number = u8::from(stream == Stream::Err);
        let Printed { redactor, decoder } = &mut self.streams[usize::from(number)];
        let text = decoder.decode(&redactor.push(bytes));
        self.tell(number, text);
    }

    fn tell(&mut self, number: u8, text: String) {
        if !text.is_empty() {
            self.tail.push(&text);
            self.teller.log(number + 1, text);
        }
    }

    /// Tells what was held back; the last lines of all.
    pub(super) fn finish(mut self) -> Vec<String> {
        for number in [0, 1] {
            let Printed { redactor, decoder } = &mut self.streams[usize::from(number)];
            let mut text = decoder.decode(&redactor.finish());
            text.push_str(&decoder.finish());
            self.tell(number, text);
        }
        self.tail.lines()
    }
}
