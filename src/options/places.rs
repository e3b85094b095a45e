//! Where images and the results of steps go: `output`, `cache-from`, `cache-to`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::fields::{Field, fields};
use super::read::{Given, invalid};
use super::{Value, closest};
use crate::error::Result;
use crate::request::{CacheMode, CacheSpec, Output, RegistryCache};

/// Where an image goes (`--output`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outputs {
    /// Into its registry: `type=registry`, `type=image,push=true`.
    pub push: bool,
    /// Elsewhere.
    pub outputs: Vec<Output>,
}

/// The attributes of one place.
struct Attributes {
    option: String,
    kind: String,
    rest: BTreeMap<String, String>,
}

impl Attributes {
    fn fail<T>(&self, reason: impl std::fmt::Display) -> Result<T> {
        invalid(&self.option, format!("type={}: {reason}", self.kind))
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(text) = self.rest.remove(key) else { return Ok(None) };
        let given = Given { name: self.option.clone(), value: Value::Text(text) };
        given.flag().map(Some).or_else(|_| self.fail(format_args!("`{key}` is either true or false")))
    }

    fn dest(&mut self) -> Result<Option<PathBuf>> {
        match self.rest.remove("dest") {
            Some(dest) if dest.is_empty() => self.fail("`dest` is empty"),
            Some(dest) if dest == "-" => self.fail(STDOUT),
            dest => Ok(dest.map(PathBuf::from)),
        }
    }

    fn needed_dest(&mut self) -> Result<PathBuf> {
        match self.dest()? {
            Some(dest) => Ok(dest),
            None => self.fail(format_args!("it needs a destination: `type={},dest=PATH`", self.kind)),
        }
    }

    /// Fails for an attribute that is not one of these.
    fn only(&self, known: &[&str]) -> Result<()> {
        let Some(key) = self.rest.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let hint = match key.as_str() {
            "name" => "the image is named with `--tag` (`tags=` of `build()`)".to_owned(),
            "compression" | "compression-level" | "force-compression" => {
                "layers are compressed as `--compression` says (`compression=` of `build()`)".to_owned()
            }
            key => closest(key, known.iter().copied()).map_or_else(
                || format!("it has {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") }),
                |known| format!("did you mean `{known}`?"),
            ),
        };
        self.fail(format_args!("there is no attribute `{key}`; {hint}"))
    }
}

/// stdout is where the result of the command goes.
const STDOUT: &str = "an image cannot go to stdout, which has the image's name; write it to a file, e.g. \
                      `type=oci,dest=image.tar`";

/// Reads `--output`: one, or several, as text or as a mapping. Fails with `InvalidOption`.
pub fn outputs(value: Value) -> Result<Outputs> {
    let mut found = Outputs::default();
    for place in many(value) {
        let push = match place {
            Value::Text(text) if text == "-" => return invalid("output", STDOUT),
            Value::Text(text) if is_path(&text) => {
                found.outputs.push(Output::Local { dest: text.into() });
                continue;
            }
            place => output(attributes("output", place)?, &mut found.outputs)?,
        };
        found.push |= push;
    }
    Ok(found)
}

/// `-o DIR` alone.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', ','])
}

/// Reads one output; says whether it is a push.
fn output(mut given: Attributes, outputs: &mut Vec<Output>) -> Result<bool> {
    match given.kind.as_str() {
        "docker" => {
            given.only(&["dest"])?;
            outputs.push(Output::Docker { dest: given.dest()? });
        }
        "oci" => {
            given.only(&["dest", "tar"])?;
            outputs.push(Output::Oci { dest: given.needed_dest()?, tar: given.flag("tar")? });
        }
        "local" => {
            given.only(&["dest"])?;
            outputs.push(Output::Local { dest: given.needed_dest()? });
        }
        "registry" => return given.only(&[]).map(|()| true),
        "image" => {
            given.only(&["push"])?;
            let push = given.flag("push")?.unwrap_or(false);
            if !push {
                outputs.push(Output::Store);
            }
            return Ok(push);
        }
        "tar" => return given.fail("not supported; `type=local` writes the image's files, `type=oci` the image"),
        "cacheonly" => return given.fail("not supported; without an output the image stays in the engine's own place"),
        _ => return given.fail("there is no such output; there are docker, oci, local, registry and image"),
    }
    Ok(false)
}

impl Given {
    /// `NAME`, `type=registry,ref=NAME`, a mapping of attributes, or a list of these.
    pub(super) fn caches(self) -> Result<Vec<CacheSpec>> {
        let name = self.name;
        many(self.value).into_iter().map(|value| cache(&name, value)).collect()
    }
}

fn cache(option: &str, value: Value) -> Result<CacheSpec> {
    if let Value::Text(text) = &value
        && !text.contains(['=', ','])
    {
        return Ok(CacheSpec::Image(text.parse()?));
    }
    let mut given = attributes(option, value)?;
    if given.kind != "registry" {
        return Ok(CacheSpec::Other(given.kind, given.rest));
    }
    let Some(reference) = given.rest.remove("ref") else {
        return given.fail("it needs a name: `type=registry,ref=NAME`");
    };
    let mode = match given.rest.remove("mode").as_deref() {
        None => None,
        Some("min") => Some(CacheMode::Min),
        Some("max") => Some(CacheMode::Max),
        Some(_) => return given.fail("`mode` is either min or max"),
    };
    let ignore_error = given.flag("ignore-error")?.unwrap_or(false);
    Ok(CacheSpec::Registry(RegistryCache { reference: reference.parse()?, mode, ignore_error, attributes: given.rest }))
}

fn many(value: Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::List(items) => items,
        one => vec![one],
    }
}

/// `type=KIND,key=value`, or a mapping of the same.
fn attributes(option: &str, value: Value) -> Result<Attributes> {
    let pairs = match value {
        Value::Text(text) => fields(option, &text)?
            .into_iter()
            .map(|field| match field {
                Field { key: Some(key), value } => Ok((key, value)),
                Field { key: None, .. } => invalid(option, "write it as `type=KIND,key=value`"),
            })
            .collect::<Result<Vec<_>>>()?,
        value => Given { name: option.to_owned(), value }.attributes()?,
    };
    let mut rest = BTreeMap::new();
    for (key, value) in pairs {
        if rest.insert(key.clone(), value).is_some() {
            return invalid(option, format!("`{key}` is given twice"));
        }
    }
    match rest.remove("type").filter(|kind| !kind.is_empty()) {
        Some(kind) => Ok(Attributes { option: option.to_owned(), kind, rest }),
        None => invalid(option, "`type=` is missing"),
    }
}

impl Given {
    /// The entries of a mapping, as text.
    fn attributes(self) -> Result<Vec<(String, String)>> {
        let Value::Map(pairs) = self.value else { return self.wrong_kind("text or a mapping with a `type`") };
        let mut attributes = Vec::new();
        for (key, value) in pairs {
            let text = match value {
                Value::Null => continue,
                Value::Text(text) => text,
                Value::Bool(flag) => flag.to_string(),
                Value::Int(number) => number.to_string(),
                other => return invalid(&self.name, format!("`{key}` is {}; text is wanted", other.kind())),
            };
            attributes.push((key.replace('_', "-").to_ascii_lowercase(), text));
        }
        Ok(attributes)
    }
}
