//! The classic builder's (and Podman's) text, read as steps.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Instant;

use regex::Regex;

use crate::error::MAX_TAIL_LINES;
use crate::event::Event;
use crate::outcome::StepOutcome;

/// `Step 2/5 : RUN x` of Docker, `STEP 2/5: RUN x` and `[1/2] STEP 2/5: RUN x` of Podman.
static STEP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:\[(\d+)/\d+\] )?(?:Step|STEP) (\d+)/(\d+) ?: (.*)$").expect("a constant pattern")
});
/// The builder's own lines: the image or container that a step uses or made.
static CHATTER: LazyLock<Regex> = LazyLock::new(|| {
    let docker = r" ---> (?:Running in |Removed intermediate container )?(?:[0-9a-f]{12,64})?| ---> Using cache|Removing intermediate container [0-9a-f]+";
    let podman =
        r"--> (?:Using cache |Pushing cache |Cache pulled )?\S*|COMMIT ?\S*|Successfully tagged \S+|[0-9a-f]{64}";
    Regex::new(&format!("^(?:{docker}|{podman})$")).expect("a constant pattern")
});
/// The last line of a build that went well.
static BUILT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^Successfully built ([0-9a-f]+)$").expect("a constant pattern"));

/// Docker's marks around what a command wrote to standard error.
const STDERR_START: &str = "\u{1b}[91m";
const STDERR_END: &str = "\u{1b}[0m";

/// The step that runs.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: String,
    /// `[2/5] RUN x`.
    pub(super) name: String,
    /// `RUN x`, as the builder prints it.
    pub(super) instruction: String,
    started: Instant,
    cached: bool,
}

/// Turns text into events, and remembers what a failure needs.
#[derive(Default)]
pub(super) struct Steps {
    /// The step that runs.
    pub(super) current: Option<Step>,
    /// Steps that have ended.
    pub(super) done: Vec<StepOutcome>,
    /// The last lines of the running step's output.
    tail: VecDeque<String>,
    /// A line that has begun.
    line: String,
    /// What comes now was written to standard error.
    stderr: bool,
    /// Docker sends the end of a step's line in a message of its own.
    open_line: bool,
    /// The image's (short) id, once the builder has said that it is done.
    pub(super) built: Option<String>,
}

impl Steps {
    /// Takes text from the builder, any piece of it.
    pub(super) fn text(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let mut output = String::new();
        for (at, piece) in text.split_inclusive('\n').enumerate() {
            if std::mem::take(&mut self.open_line) && piece == "\n" {
                continue;
            }
            // The builder's own lines begin a line, or a message after output that ended without a line break.
            let begins = at == 0 || plain(&self.line).is_empty();
            let own = begins && self.own_line(piece.trim_end_matches(['\n', '\r']), &mut output, &mut events);
            if own {
                self.open_line = !piece.ends_with('\n');
            } else {
                self.remember(piece);
                output.push_str(piece);
            }
        }
        self.flush(&mut output, &mut events);
        events
    }

    /// Handles a line of the builder itself; false for a command's output.
    fn own_line(&mut self, line: &str, output: &mut String, events: &mut Vec<Event>) -> bool {
        if let Some(step) = STEP.captures(line) {
            self.flush(output, events);
            events.extend(self.end(None));
            events.push(self.begin(&step));
            return true;
        }
        if let Some(built) = BUILT.captures(line) {
            self.built = Some(built[1].to_owned());
            return true;
        }
        if !CHATTER.is_match(line) {
            return false;
        }
        if line.contains("Using cache")
            && let Some(step) = &mut self.current
        {
            step.cached = true;
        }
        true
    }

    fn begin(&mut self, step: &regex::Captures<'_>) -> Event {
        let (stage, number, total, instruction) = (step.get(1), &step[2], &step[3], &step[4]);
        let prefix = stage.map(|stage| format!("{}-", stage.as_str())).unwrap_or_default();
        let id = format!("step-{prefix}{number}");
        let stage = stage.map(|stage| format!("stage {} ", stage.as_str())).unwrap_or_default();
        let name = format!("[{stage}{number}/{total}] {instruction}");
        self.tail.clear();
        self.line.clear();
        self.stderr = false;
        let event = Event::StepStarted { id: id.clone(), name: name.clone() };
        self.current =
            Some(Step { id, name, instruction: instruction.to_owned(), started: Instant::now(), cached: false });
        event
    }

    /// Ends the running step.
    pub(super) fn end(&mut self, error: Option<String>) -> Option<Event> {
        let step = self.current.take()?;
        let seconds = step.started.elapsed().as_secs_f64();
        if error.is_none() {
            self.done.push(StepOutcome { name: step.name.clone(), seconds, cached: step.cached });
        }
        Some(Event::StepDone { id: step.id, name: step.name, seconds, cached: step.cached, error })
    }

    /// The last lines of the running step's output, oldest first.
    pub(super) fn tail(&self) -> Vec<String> {
        let open = Some(plain(&self.line)).filter(|line| !line.is_empty());
        let mut lines: Vec<String> = self.tail.iter().cloned().chain(open).collect();
        lines.drain(..lines.len().saturating_sub(MAX_TAIL_LINES));
        lines
    }

    fn remember(&mut self, piece: &str) {
        self.line.push_str(piece);
        if self.line.ends_with('\n') {
            let line = plain(self.line.trim_end_matches(['\n', '\r']));
            self.line.clear();
            if !line.is_empty() {
                self.tail.push_back(line);
            }
            if self.tail.len() > MAX_TAIL_LINES {
                self.tail.pop_front();
            }
        }
    }

    /// Sends the output so far, standard error apart from standard output.
    fn flush(&mut self, output: &mut String, events: &mut Vec<Event>) {
        let text = std::mem::take(output);
        let Some(step) = &self.current else { return };
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let mark = if self.stderr { STDERR_END } else { STDERR_START };
            let (now, after) = rest.split_once(mark).map_or((rest, None), |(now, after)| (now, Some(after)));
            if !now.is_empty() {
                let stream = if self.stderr { 2 } else { 1 };
                events.push(Event::StepLog { id: step.id.clone(), stream, text: now.to_owned() });
            }
            if after.is_some() {
                self.stderr = !self.stderr;
            }
            rest = after.unwrap_or_default();
        }
    }
}

/// A line without Docker's marks, and of a line that was redrawn only the last state.
fn plain(line: &str) -> String {
    let line = line.replace(STDERR_START, "").replace(STDERR_END, "");
    line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(events: &[Event]) -> Vec<String> {
        events
            .iter()
            .map(|event| match event {
                Event::StepStarted { name, .. } => format!("start {name}"),
                Event::StepDone { name, cached, error, .. } => format!("done {name} {cached} {}", error.is_some()),
                Event::StepLog { stream, text, .. } => format!("log {stream} {text:?}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn docker_text_becomes_steps() {
        let mut steps = Steps::default();
        let mut events = Vec::new();
        for text in [
            "Step 1/3 : FROM busybox",
            "\n",
            " ---> 0123456789ab\n",
            "Step 2/3 : RUN echo hi",
            "\n ---> Using cache\n",
            " ---> 1123456789ab\n",
            "Step 3/3 : RUN x\n",
            " ---> Running in 2123456789ab\n",
            "out\npart",
            "ial\n\u{1b}[91moops\n\u{1b}[0m",
            "Removing intermediate container 2123456789ab\n",
            " ---> Removed intermediate container 2123456789ab\n",
            " ---> 3123456789ab\n",
            "Successfully built 3123456789ab\n",
        ] {
            events.extend(steps.text(text));
        }
        events.extend(steps.end(None));
        assert_eq!(
            names(&events),
            [
                "start [1/3] FROM busybox",
                "done [1/3] FROM busybox false false",
                "start [2/3] RUN echo hi",
                "done [2/3] RUN echo hi true false",
                "start [3/3] RUN x",
                "log 1 \"out\\npart\"",
                "log 1 \"ial\\n\"",
                "log 2 \"oops\\n\"",
                "done [3/3] RUN x false false",
            ]
        );
        assert_eq!(steps.built.as_deref(), Some("3123456789ab"));
        assert_eq!(steps.done.iter().filter(|step| step.cached).count(), 1);
    }

    #[test]
    fn the_tail_is_bounded_and_without_marks() {
        let mut steps = Steps::default();
        steps.text("Step 1/1 : RUN x\n");
        for number in 0..100 {
            steps.text(&format!("\u{1b}[91mline {number}\n\u{1b}[0m"));
        }
        steps.text("50%\r100%\nlast");
        let tail = steps.tail();
        assert_eq!(tail.len(), MAX_TAIL_LINES);
        assert_eq!(tail[tail.len() - 3..], ["line 99", "100%", "last"]);
    }

    #[test]
    fn podman_text_becomes_steps() {
        let mut steps = Steps::default();
        let mut events =
            steps.text("[2/2] STEP 1/2: FROM a AS b\n[2/2] STEP 2/2: RUN x\n--> Using cache 012\nCOMMIT\n--> 0123\n");
        events.extend(steps.end(None));
        assert_eq!(names(&events)[1], "done [stage 2 1/2] FROM a AS b false false");
        assert_eq!(names(&events)[3], "done [stage 2 2/2] RUN x true false");
    }
}
