//! The floor: reads the files named on standard input, NUL between them, and writes their bytes to one file.
//!
//!     floor buffer|kernel OUTPUT < NAMES
//!
//! `buffer` reads into a mebibyte and writes it when it is full; `kernel` lets the kernel copy. `benches/peers.py` compiles
//! this with `rustc -O`: it is what the machine needs to read and write the same bytes on one thread, and nothing else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, how, output] = arguments.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut names = Vec::new();
    io::stdin().read_to_end(&mut names)?;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes);
    let mut output = File::create(output)?;
    if how == "kernel" {
        for name in names {
            io::copy(&mut File::open(name)?, &mut output)?;
        }
        return Ok(());
    }
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    for name in names {
        let mut file = File::open(name)?;
        loop {
            if filled == buffer.len() {
                output.write_all(&buffer)?;
                filled = 0;
            }
            let (room, count) = (buffer.len() - filled, file.read(&mut buffer[filled..])?);
            filled += count;
            // Less than there was room for is the end of a file on disk.
            if count < room {
                break;
            }
        }
    }
    output.write_all(&buffer[..filled])
}
