//! The process that runs commands, for tests: in a build, it is Python that starts it.

fn main() {
    cooper::sandbox::serve();
}
