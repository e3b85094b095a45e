//! Layers as they travel.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::oci::media::Compression;

/// How much compressed data is read at once.
const BUFFER: usize = 128 << 10;
/// The biggest window of a Zstandard frame, as a power of two: 128 MiB, which is what `zstd -d` accepts too.
const MAX_WINDOW_LOG: u32 = 27;

/// A reader of what is in a compressed layer: of all gzip members or Zstandard frames that follow each other. Memory is
/// bounded, whatever the layer says. What is malformed or cut off is an [`io::Error`]; readers here make `ImageInvalid` of it.
pub fn decompress<'a>(reader: impl Read + Send + 'a, compression: Compression) -> Box<dyn Read + Send + 'a> {
    let reader = BufReader::with_capacity(BUFFER, reader);
    match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Compression::Zstd => match zstd(reader) {
            Ok(decoder) => Box::new(decoder),
            Err(error) => Box::new(Broken(Some(error))),
        },
    }
}

fn zstd<R: Read>(reader: BufReader<R>) -> io::Result<zstd::Decoder<'static, BufReader<R>>> {
    let mut decoder = zstd::Decoder::with_buffer(reader)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// A decoder that could not be made: there is no memory for it.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::OutOfMemory.into()))
    }
}
