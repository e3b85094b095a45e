//! Which compression a stream has, and what is inside.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

/// Read at a time.
const BUFFER: usize = 64 << 10;
/// What a decoder of xz may take, in KiB: eight times what `xz -9` needs.
const XZ_MEMORY: u32 = 512 << 10;

/// The content of a file that may be compressed, by its first bytes (`compression.Detect` in go-archive).
pub(super) fn decompress(file: &File) -> io::Result<Box<dyn Read + '_>> {
    let mut stream = BufReader::with_capacity(BUFFER, FromStart { file, offset: 0 });
    let magic = stream.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, 8, ..] => Box::new(Members::new(stream)),
        [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(stream)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(XzReader::new_mem_limit(stream, true, XZ_MEMORY)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(stream)?),
        // A frame that is skipped.
        [first, 0x2a, 0x4d, 0x18, _, _, _, _, ..] if first & 0xf0 == 0x50 => {
            Box::new(zstd::Decoder::with_buffer(stream)?)
        }
        _ => Box::new(stream),
    })
}

/// Reads a file from its start, wherever others read it.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Gzip, one member after the other. What comes behind the last is ignored, as gzip itself does.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Members<R> {
    fn new(stream: R) -> Self {
        Self(Some(GzDecoder::new(stream)))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            // The member's checksum was right.
            let Some(member) = self.0.take() else { break };
            let mut rest = member.into_inner();
            if rest.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}
