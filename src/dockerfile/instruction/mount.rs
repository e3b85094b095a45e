//! `RUN --mount`.

use serde::Serialize;

use super::{Mistake, Result, nearest};

/// A mount as written: only where it is mounted from is known before variables are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// All of it.
    pub text: String,
    fields: Vec<(String, Option<String>)>,
    /// A stage, an image or a named context.
    pub from: Option<String>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// `from`: a stage, an image or a named context; the build context where there is none.
    pub from: Option<String>,
    /// `source`: a path in what it is mounted from; the id of a secret.
    pub source: Option<String>,
    /// `target`.
    pub target: Option<String>,
    /// Whether it can only be read.
    pub read_only: bool,
    /// `id` of a cache, a secret or an SSH agent.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Option<Sharing>,
    /// `required`: the step fails where a secret or agent was not given.
    pub required: bool,
    /// `size` of a tmpfs in bytes.
    pub size: Option<u64>,
    /// `mode` of a cache, secret or socket.
    pub mode: Option<u32>,
    /// `uid` of a cache, secret or socket.
    pub uid: Option<u32>,
    /// `gid` of a cache, secret or socket.
    pub gid: Option<u32>,
    /// `env`: the variable that a secret's value goes to.
    pub env: Option<String>,
}

/// `type` of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the type of its name")]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// `sharing` of a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Steps may write to it at the same time.
    Shared,
    /// Each step that uses it at the same time gets one of its own.
    Private,
    /// A step waits for the one before it.
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountSpec {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut spec = Self { text: text.to_owned(), fields: Vec::new(), from: None };
        for field in split_fields(text).map_err(|mistake| mistake.near("--mount"))? {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            let key = key.to_lowercase();
            if let ("from", Some(from)) = (key.as_str(), value) {
                // The stages that are needed have to be known before any variable is.
                if from.find('$').is_some_and(|at| at + 1 != from.len()) {
                    let message = "`from` of a mount takes no variables: give the image a name with FROM ... AS";
                    return Err(Mistake::syntax(message).near(from));
                }
                spec.from = Some(from.to_owned()).filter(|from| !from.is_empty());
            }
            spec.fields.push((key, value.map(str::to_owned)));
        }
        Ok(spec)
    }

    /// Understands it, with a function that expands variables.
    pub(crate) fn evaluate(&self, mut expand: impl FnMut(&str) -> Result<String>) -> Result<Mount> {
        let mut mount = Mount::default();
        let mut read_only = None;
        for (key, value) in &self.fields {
            let value = value.as_deref().map(&mut expand).transpose()?;
            let near = |mistake: Mistake| mistake.near(key);
            match (key.as_str(), value) {
                ("readonly" | "ro", value) => {
                    read_only = Some(parse_bool(key, value.as_deref().unwrap_or("true")).map_err(near)?);
                }
                ("readwrite" | "rw", value) => {
                    read_only = Some(!parse_bool(key, value.as_deref().unwrap_or("true")).map_err(near)?);
                }
                ("required", value) => {
                    mount.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                    mount.required = parse_bool(key, value.as_deref().unwrap_or("true")).map_err(near)?;
                }
                (key, Some(value)) => mount.set(key, value)?,
                (key, None) => {
                    let message = format!("`{key}` of a mount needs a value");
                    return Err(Mistake::value(message).near(key).suggest(nearest(key, KEYS)));
                }
            }
        }
        // What is shared between steps can be written to, unless something else is said.
        let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        mount.read_only = read_only.unwrap_or(!writable);
        mount.check()?;
        Ok(mount)
    }
}

impl Mount {
    fn set(&mut self, key: &str, value: String) -> Result<()> {
        let invalid = || Mistake::value(format!("`{value}` is no {key} of a mount")).near(&value);
        match key {
            "type" => self.kind = choose("type", &value, &KINDS)?,
            "from" => self.from = Some(value).filter(|value| !value.is_empty()),
            "source" | "src" => self.source = Some(value).filter(|value| !value.is_empty()),
            "target" | "dst" | "destination" => self.target = Some(value).filter(|value| !value.is_empty()),
            "id" => self.id = Some(value).filter(|value| !value.is_empty()),
            "env" => self.env = Some(value),
            "sharing" => self.sharing = Some(choose("sharing", &value, &SHARINGS)?),
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                self.size = Some(size(&value).ok_or_else(invalid)?);
            }
            "mode" => self.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| invalid())?),
            "uid" => self.uid = Some(value.parse().map_err(|_| invalid())?),
            "gid" => self.gid = Some(value.parse().map_err(|_| invalid())?),
            _ => {
                let message = format!("unknown key `{key}` of a mount");
                return Err(Mistake::value(message).near(key).suggest(nearest(key, KEYS)));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<()> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(Mistake::value(format!("a {} mount takes no `{key}`", self.kind.name())).near(key))
    }

    fn check(&self) -> Result<()> {
        for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if given.is_some() {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh, MountKind::Cache])?;
            }
        }
        if self.sharing.is_some() {
            self.only_for("sharing", &[MountKind::Cache])?;
        }
        match self.kind {
            MountKind::Secret if self.from.is_some() => {
                Err(Mistake::value("a secret mount takes no `from`").near("from"))
            }
            MountKind::Secret if self.source.is_some() && self.id.is_some() => {
                Err(Mistake::value("a secret mount has an id or a source, not both").near("source"))
            }
            MountKind::Secret if self.source.is_none() && self.target.is_none() && self.id.is_none() => {
                Err(Mistake::value("a secret mount needs an id"))
            }
            MountKind::Ssh if self.source.is_some() => {
                Err(Mistake::value("an ssh mount takes no source").near("source"))
            }
            _ => Ok(()),
        }
    }
}

impl MountKind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

fn choose<T: Copy>(key: &str, value: &str, known: &[(&str, T)]) -> Result<T> {
    if let Some((_, found)) = known.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)) {
        return Ok(*found);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let message = format!("`{value}` is no {key} of a mount: it is one of {}", names.join(", "));
    Err(Mistake::value(message).near(value).suggest(nearest(value, names)))
}

/// The texts that Go's `strconv.ParseBool` takes.
pub(in crate::dockerfile) fn parse_bool(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Mistake::value(format!("`{key}` is true or false, not `{value}`"))),
    }
}

/// `64m`, `1.5 GiB`: a number and a unit, which is a power of 1024.
fn size(text: &str) -> Option<u64> {
    let at = text.rfind(|character: char| character.is_ascii_digit() || matches!(character, '.' | ' '))?;
    let (number, unit) = text.split_at(at + 1);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        // `ib` alone is no unit.
        "" if unit.len() < 2 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as Docker rounds; negatives are refused"
    )]
    let bytes = (number * 1024_f64.powi(power)) as u64;
    (number >= 0.0 && number.is_finite()).then_some(bytes)
}

/// The fields of one line of comma-separated values (RFC 4180).
pub(super) fn split_fields(text: &str) -> Result<Vec<String>> {
    let malformed = || Mistake::syntax(format!("`{text}` is no list of comma-separated fields"));
    if text.is_empty() {
        return Err(malformed());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted).ok_or_else(malformed)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(malformed());
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(malformed()),
        }
    }
}

/// The field that a quote has opened, and what follows it. Two quotes are one that is meant.
fn quoted_field(mut text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let end = text.find('"')?;
        field.push_str(&text[..end]);
        text = &text[end + 1..];
        match text.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                text = after;
            }
            None => return Some((field, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(text: &str) -> Result<Mount> {
        MountSpec::parse(text)?.evaluate(|text| Ok(text.replace("$x", "cache")))
    }

    #[test]
    fn mounts_have_their_options() {
        let mount = evaluate("type=$x,target=/a,ID=b,sharing=LOCKED,mode=0750,uid=1,gid=2").unwrap();
        let expected = Mount {
            kind: MountKind::Cache,
            target: Some("/a".into()),
            id: Some("b".into()),
            sharing: Some(Sharing::Locked),
            mode: Some(0o750),
            uid: Some(1),
            gid: Some(2),
            ..Mount::default()
        };
        assert_eq!(mount, expected);
        let cases = [
            ("target=/a", true),
            ("target=/a,rw", false),
            ("target=/a,ro=false", false),
            ("type=tmpfs,dst=/a,ro", true),
        ];
        for (text, read_only) in cases {
            assert_eq!(evaluate(text).unwrap().read_only, read_only, "{text}");
        }
        assert_eq!(evaluate("type=tmpfs,target=/a,size=1.5k").unwrap().size, Some(1536));
        assert_eq!(evaluate("\"target=/a,b\",from=x").unwrap().target.as_deref(), Some("/a,b"));
    }

    #[test]
    fn wrong_options_are_refused() {
        let wrong = [
            "",
            "type=volume",
            "target",
            "colour=red",
            "type=cache,target=/a,sharing=mine",
            "type=bind,target=/a,sharing=shared",
            "target=/a,mode=0755",
            "target=/a,required",
            "type=cache,target=/a,mode=9",
            "type=cache,target=/a,size=1g",
            "type=tmpfs,target=/a,size=lots",
            "type=secret",
            "type=secret,id=a,source=b",
            "type=secret,id=a,from=b",
            "type=secret,id=a,required=maybe",
            "type=ssh,source=/a",
            "target=/a,rw=x",
            "from=$stage,target=/a",
            "target=\"/a\"",
            "\"target=/a",
        ];
        for text in wrong {
            assert!(evaluate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("0", Some(0)),
            ("1kb", Some(1024)),
            ("2 MiB", Some(2 << 20)),
            ("1b", Some(1)),
            ("1bb", None),
            ("1ib", None),
            ("g", None),
            ("-1", None),
            ("1x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
