//! Tests against a real daemon and a real registry, started by `scripts/testbed`.
