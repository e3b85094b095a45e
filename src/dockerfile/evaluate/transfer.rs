//! COPY and ADD.

use super::Evaluator;
use crate::dockerfile::chmod::Chmod;
use crate::dockerfile::instruction::{Instruction, Transfer};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::mistake::{Mistake, Result};
use crate::dockerfile::paths;
use crate::dockerfile::remote::{self, GitReference, Remote};
use crate::dockerfile::step::{Action, CopySource, CopyStep};
use crate::dockerfile::words::Lexer;

/// What the sources of one instruction share.
struct Sources<'a> {
    instruction: &'a Instruction,
    transfer: &'a Transfer,
    is_add: bool,
    checksum: Option<String>,
}

impl Evaluator<'_> {
    pub(super) fn transfer(
        &mut self,
        instruction: &Instruction,
        transfer: &Transfer,
        is_add: bool,
    ) -> Result<(Action, Option<String>)> {
        let chown = self.expand_option(instruction, transfer.chown.as_ref())?;
        let chmod = self.expand_option(instruction, transfer.chmod.as_ref())?;
        let checksum = self.expand_option(instruction, transfer.checksum.as_ref())?;
        let mut history = vec![if is_add { "ADD" } else { "COPY" }.to_owned()];
        history.extend(transfer.parents.then(|| "--parents".to_owned()));
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            history.extend(value.as_ref().map(|value| format!("--{flag}={value}")));
        }
        let written: Vec<String> =
            transfer.sources.iter().map(|source| self.expand(instruction, source)).collect::<Result<_>>()?;
        let destination = self.expand(instruction, &transfer.destination)?;
        check_checksum(checksum.as_deref(), &written)?;
        let shared = Sources { instruction, transfer, is_add, checksum };
        let mut sources = Vec::new();
        for source in &written {
            history.push(source.clone());
            sources.push(self.source(&shared, source)?);
        }
        for heredoc in &transfer.inline {
            history.push(format!("<<{}", heredoc.name));
            let lexer = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
            let text = heredoc.text();
            let content = if heredoc.expand { self.expand_with(lexer, instruction, &text)? } else { text };
            sources.push(CopySource::Inline { name: heredoc.name.clone(), content });
        }
        history.push(format!("{destination} # buildkit"));
        let origin = match &transfer.from {
            Some(from) => Some(self.before(self.plan.copy_origin(from)?, from)?),
            None => None,
        };
        let step = CopyStep {
            origin,
            sources,
            into_directory: matches!(destination.rsplit('/').next(), Some("" | ".")),
            destination: paths::join(&self.config.working_dir, &destination),
            chown,
            chmod: chmod.as_deref().map(Chmod::parse).transpose()?,
            link: transfer.link,
            parents: transfer.parents,
            exclude: transfer.exclude.clone(),
            unpack: transfer.unpack.unwrap_or(is_add),
        };
        Ok((Action::Copy(Box::new(step)), Some(history.join(" "))))
    }

    fn source(&mut self, shared: &Sources<'_>, source: &str) -> Result<CopySource> {
        match Remote::of(source)? {
            Remote::No => {
                self.check_ignored(shared, source);
                path(source, shared.transfer.parents)
            }
            _ if !shared.is_add => Err(Mistake::value(format!("COPY takes paths; use ADD for `{source}`"))
                .near(source)
                .suggest(Some("ADD"))),
            Remote::Url => {
                if let Some(checksum) = &shared.checksum {
                    remote::check_digest(checksum)?;
                }
                Ok(CopySource::Url {
                    url: source.to_owned(),
                    file_name: remote::file_name(source).unwrap_or_else(|| "__unnamed__".to_owned()),
                    checksum: shared.checksum.clone(),
                    unpack: shared.transfer.unpack.unwrap_or(false),
                })
            }
            Remote::Git(git) => shared.git(git).map(CopySource::Git).map_err(|mistake| mistake.near(source)),
        }
    }

    fn check_ignored(&mut self, shared: &Sources<'_>, source: &str) {
        let Some(ignored) = self.ignored.filter(|_| shared.transfer.from.is_none()) else { return };
        let cleaned = paths::clean(source);
        let relative = match cleaned.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        if ignored.excludes(relative) {
            let verb = if shared.is_add { "add" } else { "copy" };
            let message = format!("attempting to {verb} file `{cleaned}` that is excluded by the ignore file");
            self.report(Rule::CopyIgnoredFile, message, shared.instruction);
        }
    }
}

impl Sources<'_> {
    /// What the flags add to the address of a repository.
    fn git(&self, mut git: GitReference) -> Result<GitReference> {
        match (self.transfer.keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                return Err(Mistake::value("--keep-git-dir and the address say different things"));
            }
            (flag, query) => git.keep_git_dir = query.or(flag),
        }
        match (&self.checksum, &git.checksum) {
            (Some(flag), Some(query)) if flag != query => {
                return Err(Mistake::value("--checksum and the address name different commits"));
            }
            (flag, None) => git.checksum.clone_from(flag),
            _ => {}
        }
        Ok(git)
    }
}

fn check_checksum(checksum: Option<&str>, sources: &[String]) -> Result<()> {
    if checksum.is_none() {
        return Ok(());
    }
    let [source] = sources else {
        return Err(Mistake::value("--checksum goes with a single source").near("--checksum"));
    };
    if Remote::of(source)? == Remote::No {
        return Err(Mistake::value("--checksum goes with a URL or a git repository").near("--checksum"));
    }
    Ok(())
}

/// A path of a context or stage. With `--parents`, `/./` ends the part whose directories are not kept.
///
/// BuildKit's copy fails where nothing is left of which to keep the directories.
fn path(source: &str, parents: bool) -> Result<CopySource> {
    if !parents {
        let required = !paths::has_wildcards(source);
        return Ok(CopySource::Path { path: paths::join("/", source), pattern: None, required });
    }
    let (base, kept) = source.split_once("/./").unwrap_or(("/", source));
    let pattern = paths::join("/", kept).trim_start_matches('/').to_owned();
    if pattern.is_empty() {
        let message = format!("`{source}` has no part whose directories --parents could keep");
        return Err(Mistake::value(message).near(source).suggest(Some(format!("{}/*", source.trim_end_matches('/')))));
    }
    let required = !paths::has_wildcards(base) && !paths::has_wildcards(kept);
    Ok(CopySource::Path { path: paths::join("/", base), pattern: Some(pattern), required })
}
