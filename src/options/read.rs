//! How the value of one option is read, in each of the forms that people write it in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Value;
use super::fields::{Field, fields};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::request::{SecretSource, SecretSpec, SshSpec};
use crate::secret::Secret;

/// An option as it was given: its name in the user's spelling, and a value.
pub(super) struct Given {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Given {
    pub(super) fn invalid<T>(&self, reason: impl Into<String>) -> Result<T> {
        invalid(&self.name, reason)
    }

    pub(super) fn wrong_kind<T>(&self, wanted: &str) -> Result<T> {
        self.invalid(format!("it is {}; {wanted} is wanted", self.value.kind()))
    }

    /// The entries of a mapping.
    pub(super) fn entries(self) -> Result<Vec<(String, Value)>> {
        match self.value {
            Value::Map(pairs) => Ok(pairs),
            Value::Null => Ok(Vec::new()),
            _ => self.wrong_kind("a mapping"),
        }
    }

    pub(super) fn text(self) -> Result<String> {
        match self.value {
            Value::Text(text) if !text.is_empty() => Ok(text),
            Value::Text(_) => self.invalid("it is empty"),
            Value::Int(number) => Ok(number.to_string()),
            _ => self.wrong_kind("text"),
        }
    }

    /// `true` and `false` in the spellings of Go's `strconv.ParseBool`, which the Docker CLI uses.
    pub(super) fn flag(self) -> Result<bool> {
        match &self.value {
            Value::Bool(flag) => Ok(*flag),
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::Text(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => self.invalid("it is either true or false"),
            },
            _ => self.wrong_kind("true or false"),
        }
    }

    pub(super) fn count(self) -> Result<u64> {
        let number = match &self.value {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => return self.wrong_kind("an integer"),
        };
        number.map_or_else(|| self.invalid("it is no whole number from 0 up"), Ok)
    }

    /// Bytes, as a number or with a unit (docker/go-units, `RAMInBytes`: powers of 1024).
    pub(super) fn size(self) -> Result<u64> {
        let size = match &self.value {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Text(text) => bytes(text),
            _ => return self.wrong_kind("a size, such as 67108864 or \"64m\","),
        };
        size.map_or_else(|| self.invalid("it is no size; write bytes, or a number and one of b, k, m, g, t, p"), Ok)
    }

    /// A size, or -1 for no limit.
    pub(super) fn size_or_unlimited(self) -> Result<i64> {
        if self.value == Value::Int(-1) || self.value == Value::Text("-1".into()) {
            return Ok(-1);
        }
        let name = self.name.clone();
        i64::try_from(self.size()?).or_else(|_| invalid(&name, "it is too large"))
    }

    /// `linux/amd64`, several with commas between them, or a list.
    pub(super) fn platforms(self) -> Result<Vec<Platform>> {
        let name = self.name.clone();
        let mut platforms: Vec<Platform> = Vec::new();
        for text in self.names()? {
            let platform = text.parse()?;
            if platforms.contains(&platform) {
                return invalid(&name, format!("`{platform}` is given twice"));
            }
            platforms.push(platform);
        }
        Ok(platforms)
    }

    /// One text, or several.
    pub(super) fn texts(self) -> Result<Vec<String>> {
        let items = match self.value {
            Value::List(items) => items,
            single => vec![single],
        };
        items.into_iter().map(|value| Self { name: self.name.clone(), value }.text()).collect()
    }

    /// Names, in a list or with commas between them.
    pub(super) fn names(self) -> Result<Vec<String>> {
        let name = self.name.clone();
        let names: Vec<String> =
            self.texts()?.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) { invalid(&name, "a name is empty") } else { Ok(names) }
    }

    /// `{"K": "V"}`, `["K=V", "K"]` or `"K=V"`: name -> value, `None` for a name alone.
    fn pairs(self, separators: &[char]) -> Result<Vec<(String, Option<Value>)>> {
        let given = self.clone_name();
        let pairs: Vec<_> = match self.value {
            Value::Map(pairs) => pairs.into_iter().map(|(key, value)| (key, Some(value))).collect(),
            value @ (Value::Text(_) | Value::List(_)) => {
                let texts = given.clone_name().with(value).texts()?;
                let split = |text: String| match text.split_once(separators) {
                    Some((key, value)) => (key.to_owned(), Some(Value::Text(value.to_owned()))),
                    None => (text, None),
                };
                texts.into_iter().map(split).collect()
            }
            value => return given.with(value).wrong_kind("a mapping or a list of `NAME=VALUE`"),
        };
        if pairs.iter().any(|(key, _)| key.trim().is_empty()) {
            return given.invalid("a name is empty");
        }
        Ok(pairs)
    }

    /// Build arguments: a missing value comes from the environment. A list may repeat a name; the last one holds.
    pub(super) fn arguments(self) -> Result<BTreeMap<String, Option<String>>> {
        let name = self.name.clone();
        let read = |(key, value): (String, Option<Value>)| {
            let value = scalar(&name, &key, value.unwrap_or(Value::Null))?;
            Ok((key, value))
        };
        self.pairs(&['='])?.into_iter().map(read).collect()
    }

    /// Labels: a missing value is empty.
    pub(super) fn labels(self) -> Result<BTreeMap<String, String>> {
        Ok(self.arguments()?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
    }

    /// Name -> text, both there.
    pub(super) fn named_texts(self) -> Result<BTreeMap<String, String>> {
        let name = self.name.clone();
        let read = |(key, value): (String, Option<Value>)| match scalar(&name, &key, value.unwrap_or(Value::Null))? {
            Some(text) if !text.is_empty() => Ok((key, text)),
            _ => invalid(&name, format!("`{key}` has no value; write `{key}=SOURCE`")),
        };
        self.pairs(&['='])?.into_iter().map(read).collect()
    }

    /// `{"host": "address"}` or `["host:address", "host=address"]`.
    pub(super) fn hosts(self) -> Result<BTreeMap<String, String>> {
        let name = self.name.clone();
        let mut hosts = BTreeMap::new();
        for (host, address) in self.pairs(&[':', '='])? {
            let Some(Value::Text(address)) = address else {
                return invalid(&name, format!("`{host}` has no address; write `{host}:ADDRESS`"));
            };
            let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                return invalid(&name, format!("`{address}` is no IP address (of `{host}`)"));
            }
            if hosts.insert(host.clone(), address).is_some() {
                return invalid(&name, format!("`{host}` is given twice"));
            }
        }
        Ok(hosts)
    }

    /// `["nofile=1024:2048"]`, `{"nofile": 1024}`, or docker-py's `{"Name": ..., "Soft": ..., "Hard": ...}`.
    pub(super) fn ulimits(self) -> Result<Vec<String>> {
        let name = self.name.clone();
        if let Value::List(items) = self.value {
            let one = |value| Self { name: name.clone(), value }.ulimits();
            return Ok(items.into_iter().map(one).collect::<Result<Vec<_>>>()?.concat());
        }
        let mut value = self.value;
        if let Some(Value::Text(limit)) = value.take("Name") {
            value = Value::Map(vec![(limit, value)]);
        }
        let pairs = Self { name: name.clone(), value }.pairs(&['='])?;
        pairs.into_iter().map(|(limit, value)| ulimit(&name, &limit, value.unwrap_or(Value::Null))).collect()
    }

    /// `["id=a,src=file", "id=b,env=VAR", {"id": "c", "value": b"..."}]`, one of these, or `{"a": {"env": "VAR"}}`.
    pub(super) fn secrets(self) -> Result<Vec<SecretSpec>> {
        let name = self.name.clone();
        match self.value {
            Value::List(items) => {
                let one = |value| Self { name: name.clone(), value }.secrets();
                Ok(items.into_iter().map(one).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            Value::Text(text) => Ok(vec![secret(&name, None, secret_fields(&name, &text)?)?]),
            value @ Value::Map(_) if value.get("id").is_some() => {
                Ok(vec![secret(&name, None, Self { name: name.clone(), value }.entries()?)?])
            }
            Value::Map(pairs) => pairs.into_iter().map(|(id, value)| named_secret(&name, id, value)).collect(),
            value => Self { name, value }.wrong_kind("text such as \"id=token,env=TOKEN\", a list or a mapping"),
        }
    }

    /// `"default"`, `["id=path,path"]`, `{"id": "path"}`.
    pub(super) fn ssh(self) -> Result<Vec<SshSpec>> {
        let name = self.name.clone();
        let read = |(id, value): (String, Option<Value>)| {
            let paths = match value {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Text(text)) => text.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
                Some(list) => {
                    Self { name: name.clone(), value: list }.texts()?.into_iter().map(PathBuf::from).collect()
                }
            };
            Ok(SshSpec { id, paths })
        };
        if self.value == Value::Bool(true) {
            return Ok(vec![SshSpec { id: "default".into(), paths: Vec::new() }]);
        }
        self.pairs(&['='])?.into_iter().map(read).collect()
    }

    fn clone_name(&self) -> Self {
        Self { name: self.name.clone(), value: Value::Null }
    }

    fn with(self, value: Value) -> Self {
        Self { name: self.name, value }
    }
}

pub(super) fn invalid<T>(name: &str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { name: name.to_owned(), reason: reason.into() })
}

/// The text of one argument or label; `None` where there is no value.
fn scalar(name: &str, key: &str, value: Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Int(number) => Ok(Some(number.to_string())),
        Value::Float(number) => Ok(Some(number.to_string())),
        other => invalid(name, format!("`{key}` is {}; write the text that the build should see", other.kind())),
    }
}

/// docker/go-units `RAMInBytes`: `64m`, `1.5g`, `512 KiB`, `100`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let factor = 1024_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    // `1.5g`: the fraction is exact enough in thousandths of the unit.
    let (whole, fraction) = number.split_once('.')?;
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    whole.checked_mul(factor)?.checked_add(factor.checked_mul(thousandths)? / 1000)
}

/// `name=soft[:hard]`.
fn ulimit(option: &str, limit: &str, mut value: Value) -> Result<String> {
    let number = |value: &Value| match value {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    let (soft, hard) = match &value {
        Value::Text(text) => match text.split_once(':') {
            Some((soft, hard)) => (soft.parse().ok(), hard.parse().ok()),
            None => (text.parse().ok(), text.parse().ok()),
        },
        Value::Int(_) => (number(&value), number(&value)),
        Value::Map(_) => {
            let mut part = |upper, lower| value.take(upper).or_else(|| value.take(lower));
            let (soft, hard) = (part("Soft", "soft"), part("Hard", "hard"));
            let hard = hard.or_else(|| soft.clone());
            (soft.as_ref().and_then(number), hard.as_ref().and_then(number))
        }
        _ => (None, None),
    };
    match (soft, hard) {
        (Some(soft), Some(hard)) if hard == -1 || (soft != -1 && soft <= hard) => Ok(format!("{limit}={soft}:{hard}")),
        (Some(_), Some(_)) => invalid(option, format!("the soft limit of `{limit}` is above the hard one")),
        _ => invalid(option, format!("write `{limit}=SOFT[:HARD]` with whole numbers")),
    }
}

/// The fields of `id=a,src=b`.
fn secret_fields(name: &str, text: &str) -> Result<Vec<(String, Value)>> {
    let split = |field: Field| match field {
        Field { key: Some(key), value } => Ok((key, Value::Text(value))),
        Field { key: None, .. } => invalid(name, "write it as id=ID,src=FILE or id=ID,env=VARIABLE"),
    };
    fields(name, text)?.into_iter().map(split).collect()
}

/// `{"a": {"env": "VAR"}}` or `{"a": "env=VAR"}`.
fn named_secret(name: &str, id: String, value: Value) -> Result<SecretSpec> {
    let fields = match value {
        Value::Map(fields) => fields,
        Value::Text(text) => secret_fields(name, &text)?,
        other => {
            return invalid(name, format!("`{id}` is {}; write {{\"env\": ...}} or {{\"src\": ...}}", other.kind()));
        }
    };
    secret(name, Some(id), fields)
}

/// One secret out of its fields. With an id alone, the variable of that name holds the value, or else the file does.
fn secret(name: &str, mut id: Option<String>, fields: Vec<(String, Value)>) -> Result<SecretSpec> {
    let (mut kind, mut file, mut env, mut content) = (None, None, None, None);
    for (key, value) in fields {
        let text = |value| Given { name: name.to_owned(), value }.text();
        match key.as_str() {
            "id" => id = Some(text(value)?),
            "type" => kind = Some(text(value)?),
            "src" | "source" | "file" => file = Some(text(value)?),
            "env" => env = Some(text(value)?),
            "value" => match value {
                Value::Text(text) => content = Some(text.into_bytes()),
                Value::Bytes(bytes) => content = Some(bytes),
                other => return invalid(name, format!("its value is {}; text or bytes are wanted", other.kind())),
            },
            _ => {
                return invalid(
                    name,
                    format!("`{key}` is no field of a secret; there are id, src, env, type and value"),
                );
            }
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { return invalid(name, "an id is missing") };
    match kind.as_deref() {
        None | Some("file") => {}
        // `type=env,src=VAR` names the variable in `src`.
        Some("env") => env = env.or_else(|| file.take()),
        Some(_) => return invalid(name, format!("the type of `{id}` is neither `file` nor `env`")),
    }
    let source = match (file, env, content) {
        (Some(file), None, None) => SecretSource::File(file.into()),
        (None, Some(env), None) => SecretSource::Env(env),
        (None, None, Some(value)) => SecretSource::Value(Secret::new(serde_bytes::ByteBuf::from(value))),
        (None, None, None) if std::env::var_os(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None, None) => SecretSource::File(PathBuf::from(&id)),
        _ => return invalid(name, format!("`{id}` has more than one source")),
    };
    Ok(SecretSpec { id, source })
}
