//! `cooper build --check`: everything that can be said of a Dockerfile without building it.

use super::evaluate::{Evaluated, Evaluator, Start};
use super::inputs::Inputs;
use super::lint::{Finding, Ignored, Linter, Options, check_lines, check_stages};
use super::mistake::Result;
use super::plan::{Origin, Plan};
use super::{Dockerfile, Span};
use crate::error::Error;

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// What can be said against the Dockerfile, in the order of its lines.
    pub findings: Vec<Finding>,
    /// Why it cannot be built.
    pub error: Option<Error>,
    /// Whether the Dockerfile asks for findings to be errors (`# check=error=true`).
    pub findings_are_errors: bool,
}

/// Checks the stage that `inputs` name and what it needs, or all stages where they name none. Base images are not looked
/// at. `ignored` is what an ignore file without `!` patterns excludes.
pub fn check(name: &str, text: &[u8], inputs: &Inputs, ignored: Option<&dyn Ignored>) -> Report {
    let (file, read) = Dockerfile::read(name, text);
    let options = match options(&file, inputs) {
        Ok(options) => options,
        Err(mistake) => return Report { error: Some(file.error(mistake)), ..Report::default() },
    };
    let findings_are_errors = options.error;
    let mut linter = Linter::new(options);
    check_lines(&mut linter, &file);
    let checked = read.and_then(|()| check_file(&file, inputs, ignored, &mut linter));
    let error = checked.err().map(|mistake| file.error(mistake));
    Report { findings: linter.findings(file.source()), error, findings_are_errors }
}

fn check_file(file: &Dockerfile, inputs: &Inputs, ignored: Option<&dyn Ignored>, linter: &mut Linter) -> Result<()> {
    check_stages(linter, &file.stages);
    let plan = Plan::new(file, inputs, linter)?;
    let needed = plan.needed();
    let mut done: Vec<Option<Evaluated>> = Vec::new();
    for (id, node) in plan.nodes().iter().enumerate() {
        let base = match node.base {
            Origin::Stage(base) => done[base].as_ref().map_or(Start::Unknown, Start::Stage),
            Origin::Scratch => Start::Empty,
            Origin::Image(_) | Origin::Context(_) => Start::Unknown,
        };
        let wanted = inputs.target.is_none() || needed.contains(&id);
        let evaluate = || Evaluator::new(&plan, id, base, linter, ignored).run();
        done.push(wanted.then(evaluate).transpose()?);
    }
    Ok(())
}

/// The argument that replaces what `# check=` says.
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

fn options(file: &Dockerfile, inputs: &Inputs) -> Result<Options> {
    if let Some(given) = inputs.build_args.get(CHECK_ARGUMENT) {
        return Options::parse(given);
    }
    let Some(directive) = &file.directives.check else { return Ok(Options::default()) };
    let value = directive.value.split(' ').next().unwrap_or_default();
    Options::parse(value).map_err(|mistake| mistake.at(Span::of(directive.line)))
}
