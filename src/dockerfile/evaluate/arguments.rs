//! ARG within a stage.

use super::{Evaluator, NOT_IN_ENVIRONMENT, check_secret};
use crate::dockerfile::instruction::{Argument, Instruction};
use crate::dockerfile::mistake::Result;

impl Evaluator<'_> {
    /// A value comes from the caller, else from the default, else from before the first FROM.
    pub(super) fn arguments(&mut self, instruction: &Instruction, arguments: &[Argument]) -> Result<String> {
        let mut history = vec!["ARG".to_owned()];
        for Argument { name, default } in arguments {
            check_secret(self.linter, "ARG", name, instruction.span, &instruction.comments);
            let value = match (self.plan.inputs.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(instruction, default)?),
                (None, None) => self.plan.globals.get(name).map(str::to_owned),
            };
            history.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            if let Some(value) = value.as_ref().filter(|_| !NOT_IN_ENVIRONMENT.contains(&name.as_str())) {
                self.state.variables.set(name, value);
            }
            self.state.arguments.push((name.clone(), value));
        }
        Ok(history.join(" "))
    }

    /// ARG and its values, as the history of a RUN has them: `|1 VERSION=2 `.
    pub(super) fn arguments_in_history(&self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        for (name, value) in &self.state.arguments {
            let now = self.state.variables.get(name).or(value.as_deref()).unwrap_or_default();
            let pair = format!("{name}={now}");
            match pairs.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = pair,
                None => pairs.push((name, pair)),
            }
        }
        if pairs.is_empty() {
            return String::new();
        }
        let texts: Vec<String> = pairs.into_iter().map(|(_, pair)| pair).collect();
        format!("|{} {} ", texts.len(), texts.join(" "))
    }
}
