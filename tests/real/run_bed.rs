//! Builds with commands: the native engine on a base of busybox, at each level that this user can have.

use std::collections::BTreeMap;
use std::fs;

use cooper::error::Error;
use cooper::event::Event;
use cooper::request::{BuildRequest, Helper};

use crate::native_bed::{Bed, Done};

/// The levels at which a root user's commands are run here.
pub(crate) const LEVELS: [&str; 4] = ["root", "subordinate", "single", "chroot"];

/// What every Dockerfile here begins with.
const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\n\
    COPY passwd group /etc/\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

/// A context with busybox in it, and a store.
pub(crate) struct RunBed {
    pub(crate) bed: Bed,
    level: &'static str,
}

impl RunBed {
    /// A Dockerfile behind the base's, and further files.
    pub(crate) fn new(level: &'static str, dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let bed = Bed::new(files);
        bed.write("Dockerfile", &format!("{BASE}{dockerfile}"));
        bed.write("passwd", "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n");
        bed.write("group", "root:x:0:\nme:x:1000:\nextra:x:1001:me\n");
        fs::copy("/bin/busybox", bed.context().join("busybox")).expect("the package busybox-static");
        Self { bed, level }
    }

    /// What is asked for.
    fn change(&self, request: &mut BuildRequest) {
        request.engine.sandbox = Some(self.level.to_owned());
        let program = env!("CARGO_BIN_EXE_cooper-helper").into();
        request.engine.helper = Some(Helper { program, arguments: Vec::new() });
    }

    pub(crate) async fn build(&self) -> Done {
        self.build_with(|_| {}).await
    }

    pub(crate) async fn build_with(&self, change: impl FnOnce(&mut BuildRequest)) -> Done {
        self.try_with(change).await.0.unwrap_or_else(|error| panic!("{}: {error:?}", self.level))
    }

    pub(crate) async fn fail_with(&self, change: impl FnOnce(&mut BuildRequest)) -> (Error, Vec<Event>) {
        let (done, events) = self.try_with(change).await;
        (done.unwrap_err(), events)
    }

    /// Builds; what was told, and what came of it.
    pub(crate) async fn try_with(&self, change: impl FnOnce(&mut BuildRequest)) -> (Result<Done, Error>, Vec<Event>) {
        self.bed
            .attempt(|request| {
                self.change(request);
                change(request);
            })
            .await
    }
}

impl RunBed {
    /// Builds until `watch` cancels it; the error, and what was told.
    pub(crate) async fn interrupted(&self, cancel: cooper::cancel::Cancel, watch: impl FnMut(&Event)) -> Error {
        self.bed.attempt_until(|request| self.change(request), cancel, watch).await.0.unwrap_err()
    }
}

/// What commands printed.
pub(crate) fn printed(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::StepLog { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// The last layer, by path, in the words of the other bed; whiteouts among them.
pub(crate) fn last_layer(done: &Done) -> BTreeMap<String, String> {
    let line = |line: &String| {
        let mut words = line.splitn(3, ' ');
        let (mode, owner, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (path, rest) = rest.split_once(": ").unwrap_or((rest, ""));
        (path.to_owned(), format!("{mode} {owner} {rest}").trim().to_owned())
    };
    done.image.layers.last().unwrap().iter().map(line).collect()
}
