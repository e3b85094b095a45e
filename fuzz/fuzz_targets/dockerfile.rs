//! Any bytes as a Dockerfile: findings and errors whose places are in the text, and instructions in order.

#![no_main]

use cooper::dockerfile::{Dockerfile, Inputs, check};
use cooper::error::Error;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|byte| *byte == b'\n').count();
    let Ok(platform) = "linux/amd64".parse() else { return };
    let report = check("Dockerfile", text, &Inputs::new(platform), None);
    let places = report.findings.iter().map(|found| &found.location);
    for place in places.chain(report.error.iter().filter_map(Error::location)) {
        assert!(place.line >= 1 && place.line <= place.end_line && place.end_line <= lines, "{place:?}");
    }
    if let Ok(file) = Dockerfile::parse("Dockerfile", text) {
        let mut last = 0;
        for instruction in file.instructions() {
            assert!(last < instruction.span.line && instruction.span.line <= instruction.span.end_line);
            last = instruction.span.end_line;
        }
        assert!(last <= lines);
    }
});
