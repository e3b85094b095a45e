//! Flags of an instruction: `--name`, `--name=value`.

use super::mistake::{Mistake, Result, nearest};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true` (or nothing) or `false`.
    Bool,
    /// One value.
    Text,
    /// A value; the flag may be given again.
    Texts,
}

/// The flags that an instruction was given, each known to it.
#[derive(Debug, Default)]
pub(super) struct Flags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Flags<'a> {
    /// Checks what was given.
    pub(super) fn parse(given: &'a [String], known: &[(&str, Takes)]) -> Result<Self> {
        let mut flags = Self::default();
        for flag in given {
            let (written, value) = flag.split_once('=').map_or((flag.as_str(), None), |(a, b)| (a, Some(b)));
            let name = written.strip_prefix("--").unwrap_or(written);
            let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let nearest = nearest(name, known.iter().map(|(name, _)| *name));
                let suggestion = nearest.map(|name| format!("--{name}"));
                return Err(Mistake::syntax(format!("unknown flag `{written}`")).near(written).suggest(suggestion));
            };
            if *takes != Takes::Texts && flags.0.iter().any(|(known, _)| *known == name) {
                return Err(Mistake::syntax(format!("the flag `{written}` is given twice")).near(written));
            }
            flags.0.push((name, checked(*takes, written, value)?));
        }
        Ok(flags)
    }

    /// The value of a flag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.texts(name).pop()
    }

    /// All values of a flag.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()).collect()
    }

    /// The value of a flag that is true or false.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value == "true")
    }
}

fn checked<'a>(takes: Takes, written: &str, value: Option<&'a str>) -> Result<&'a str> {
    let missing = || Mistake::syntax(format!("the flag `{written}` needs a value")).near(written);
    match (takes, value) {
        (Takes::Bool, None) => Ok("true"),
        (Takes::Bool, Some("")) | (Takes::Text | Takes::Texts, None) => Err(missing()),
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => Ok("true"),
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => Ok("false"),
        (Takes::Bool, Some(value)) => {
            Err(Mistake::syntax(format!("the flag `{written}` is true or false, not `{value}`")).near(written))
        }
        (_, Some(value)) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Takes)] = &[("link", Takes::Bool), ("chown", Takes::Text), ("exclude", Takes::Texts)];

    fn parse(given: &[&str]) -> Result<(Option<bool>, Option<String>, Vec<String>)> {
        let given: Vec<String> = given.iter().map(|flag| (*flag).to_owned()).collect();
        let flags = Flags::parse(&given, KNOWN)?;
        Ok((flags.bool("link"), flags.text("chown"), flags.texts("exclude")))
    }

    #[test]
    fn flags_have_values() {
        let given = ["--link", "--exclude=a=b", "--chown=", "--exclude=c"];
        let expected = (Some(true), Some(String::new()), vec!["a=b".to_owned(), "c".to_owned()]);
        assert_eq!(parse(&given).unwrap(), expected);
        assert_eq!(parse(&["--link=False"]).unwrap(), (Some(false), None, vec![]));
    }

    #[test]
    fn wrong_flags_are_refused() {
        for given in [&["--lnk"][..], &["--link="], &["--link=1"], &["--chown"], &["--exclude"], &["--link", "--link"]]
        {
            assert!(parse(given).is_err(), "{given:?}");
        }
    }
}
