//! The matcher against the plain reading of the rules in tests/it/oracle, on trees and ignore files that the fuzzer makes.

#![no_main]
#![allow(dead_code, reason = "the tests use more of the oracle")]

#[path = "../../tests/it/oracle/mod.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|tape: &[u8]| oracle::compare::matcher(tape));
