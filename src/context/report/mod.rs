//! What is in a context, why it is as big as it is, and what should perhaps not be in it.
//!
//! One pass over the entries finds sizes ([`sizes`]) and what looks out of place ([`findings`]: by name, [`names`], and
//! where that says too little by a bounded look into the file, [`content`]). [`excluded`] looks into what the ignore file
//! excludes, [`suggest`] says what it could exclude besides, and
//! tries it ([`trial`]).

mod content;
mod excluded;
mod findings;
mod names;
mod sizes;
mod suggest;
mod trial;

use serde::Serialize;

use super::notice::Notice;
use super::{Context, PatternUse, Summary};
use crate::cancel::Cancel;
use crate::error::Result;

pub use excluded::Removed;
pub use findings::{Category, Found, Warning};
pub use sizes::{Node, Size};
pub use suggest::{SuggestedLine, Suggestion};

pub(super) use excluded::measure;

use findings::{Finding, Findings, LARGE};
use sizes::{Measured, Sizes};

/// How many entries are looked at between two looks at the cancel flag.
const CANCEL_EVERY: usize = 1024;

/// A context, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The root, if there is one.
    pub root: Option<String>,
    /// The ignore file, if there is one.
    pub ignore_file: Option<String>,
    /// The context in numbers.
    pub summary: Summary,
    /// The root with the largest directories and files, each in the one that it is in.
    pub tree: Node,
    /// The largest files, the largest first.
    pub largest_files: Vec<Size>,
    /// The directories with the most bytes in and below them, the largest first.
    pub largest_directories: Vec<Size>,
    /// What each pattern of the ignore file excluded.
    pub patterns: Vec<PatternUse>,
    /// The same with what is in excluded directories, in the order of the patterns; only if it was asked for.
    pub removed: Option<Vec<Removed>>,
    /// What the user should look at.
    pub warnings: Vec<Warning>,
    /// What was left out.
    pub notices: Vec<Notice>,
}

/// A context in one line, and what the user should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The root, if there is one.
    pub root: Option<String>,
    /// The ignore file, if there is one.
    pub ignore_file: Option<String>,
    /// The context in numbers.
    #[serde(flatten)]
    pub summary: Summary,
    /// The largest directory or file directly below the root, unless all is empty.
    pub largest: Option<Size>,
    /// What the user should look at.
    pub warnings: Vec<Warning>,
    /// What to do about warnings.
    pub hint: &'static str,
}

const HINT: &str =
    "`cooper context du` shows what is in a build context, `cooper context suggest` what could be left out";

impl Context {
    /// Describes the context. Looks into files whose names suggest credentials or large outputs; how many, and how much of
    /// them, is bounded. With `excluded`, what the ignore file excludes is looked at too, which may take much longer.
    ///
    /// Fails with `Interrupted`.
    pub fn report(&self, excluded: bool, cancel: &Cancel) -> Result<Report> {
        let (measured, found) = self.look(cancel)?;
        let warnings = self.warnings(&measured, &found);
        Ok(Report {
            root: self.root_name(),
            ignore_file: self.ignore.file.clone(),
            summary: self.summary.clone(),
            tree: measured.tree,
            largest_files: measured.largest_files,
            largest_directories: measured.largest_directories,
            patterns: self.ignore.patterns.clone(),
            removed: excluded.then(|| measure(self, b"", cancel)).transpose()?,
            warnings,
            notices: self.notices.clone(),
        })
    }

    /// What a build says of its context. Costs one pass over the entries in memory, and looks into files as
    /// [`Context::report`] does. Fails with `Interrupted`.
    pub fn overview(&self, cancel: &Cancel) -> Result<Overview> {
        let (measured, found) = self.look(cancel)?;
        Ok(Overview {
            root: self.root_name(),
            ignore_file: self.ignore.file.clone(),
            summary: self.summary.clone(),
            warnings: self.warnings(&measured, &found),
            largest: measured.top.into_iter().next(),
            hint: HINT,
        })
    }

    fn root_name(&self) -> Option<String> {
        self.root.as_ref().map(|root| root.path.display().to_string())
    }

    fn look(&self, cancel: &Cancel) -> Result<(Measured, Vec<Finding>)> {
        let mut sizes = Sizes::new();
        let mut findings = Findings::new(self);
        for (number, entry) in self.entries().enumerate() {
            if number % CANCEL_EVERY == 0 {
                cancel.check()?;
            }
            sizes.add(&entry);
            findings.add(&entry);
        }
        Ok((sizes.finish(), findings.finish()))
    }

    fn warnings(&self, measured: &Measured, found: &[Finding]) -> Vec<Warning> {
        let Summary { bytes, files, .. } = self.summary;
        let large =
            || Warning::Large { bytes, files, ignored: self.ignore.file.is_some(), largest: measured.top.clone() };
        let large = (bytes > LARGE).then(large);
        large.into_iter().chain(findings::warnings(found)).collect()
    }
}
