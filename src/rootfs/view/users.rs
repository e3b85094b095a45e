//! Names of users and groups, by the rules of moby/sys/user (`GetExecUser`).

use super::View;
use crate::error::{Error, Result};

/// Bigger numbers are no users or groups (`maxID` there).
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// Who runs a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecUser {
    /// The user's number.
    pub uid: u32,
    /// The main group's number.
    pub gid: u32,
    /// The numbers of further groups.
    pub groups: Vec<u32>,
    /// The home directory; `/` where none is known.
    pub home: String,
}

impl View {
    /// Who `user`, `user:group` of USER is; empty is root. `None` if the file system does not know a name.
    ///
    /// Numbers for both are taken as they are. Else a user's line of `/etc/passwd` says the main group, unless one is named,
    /// and `/etc/group` the further ones (moby/sys/user `GetExecUser`; BuildKit `executor/oci/user.go`; the home directory as
    /// runc finds it). Fails with `ImageInvalid` as [`View::user`] does.
    pub fn exec_user(&self, text: &str) -> Result<Option<ExecUser>> {
        let text = if text.is_empty() { "0" } else { text };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => {
                (if user.is_empty() { "0" } else { user }, Some(group).filter(|group| !group.is_empty()))
            }
            None => (text, None),
        };
        let Some((uid, main)) = self.user(user)? else { return Ok(None) };
        let (gid, groups) = match group {
            Some(group) => match self.group(group)? {
                Some(gid) => (gid, Vec::new()),
                None => return Ok(None),
            },
            None => (main, self.groups_of(uid, user)?),
        };
        Ok(Some(ExecUser { uid, gid, groups, home: self.home(uid)? }))
    }

    /// The groups that list a user.
    fn groups_of(&self, uid: u32, name: &str) -> Result<Vec<u32>> {
        let users = self.small_file(b"etc/passwd")?;
        // A number is listed by the name of its line.
        let name = match number_of(name) {
            None => Some(name.as_bytes()),
            Some(_) => {
                lines(users).find(|line| id(line.split(|byte| *byte == b':').nth(2)) == Some(uid)).map(first_field)
            }
        };
        let Some(name) = name else { return Ok(Vec::new()) };
        let groups = lines(self.small_file(b"etc/group")?).filter(|line| line[0] != b'#').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':').skip(2);
            let (gid, members) = (id(fields.next())?, fields.next().unwrap_or_default());
            members.split(|byte| *byte == b',').any(|member| member == name).then_some(gid)
        });
        Ok(groups.collect())
    }

    fn home(&self, uid: u32) -> Result<String> {
        let line = lines(self.small_file(b"etc/passwd")?)
            .find(|line| id(line.split(|byte| *byte == b':').nth(2)) == Some(uid));
        let home = line.and_then(|line| line.split(|byte| *byte == b':').nth(5)).filter(|home| !home.is_empty());
        Ok(home.map_or_else(|| "/".to_owned(), |home| String::from_utf8_lossy(home).into_owned()))
    }

    /// The user and main group of a name, by `/etc/passwd`. `None` if there is no such name.
    ///
    /// A number is always a user's number: its group is that of the first line with it, else 0. (For `--chown`, where a
    /// number is its own group too, numbers are not to be looked up.) Fails with `ImageInvalid` if the file is there and was
    /// not kept, or if its path is a circle of links; a number above 2³¹ − 1 is nobody's.
    pub fn user(&self, name: &str) -> Result<Option<(u32, u32)>> {
        let text = self.small_file(b"etc/passwd")?;
        let number = number_of(name);
        let mut users = lines(text).filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, uid, gid) = (fields.next()?, fields.nth(1), fields.next());
            Some((name, id(uid)?, id(gid)?))
        });
        match number {
            Some(number) if number > u64::from(MAX_ID) => Ok(None),
            Some(number) => {
                let line = users.find(|(_, uid, _)| u64::from(*uid) == number);
                Ok(u32::try_from(number).ok().map(|number| (number, line.map_or(0, |(.., gid)| gid))))
            }
            None => Ok(users.find(|(other, ..)| *other == name.as_bytes()).map(|(_, uid, gid)| (uid, gid))),
        }
    }

    /// The number of a group, by `/etc/group`. `None` if there is no such name. A number is always a group's number.
    ///
    /// Fails with `ImageInvalid` as [`View::user`] does.
    pub fn group(&self, name: &str) -> Result<Option<u32>> {
        if let Some(number) = number_of(name) {
            return Ok(u32::try_from(number).ok().filter(|number| *number <= MAX_ID));
        }
        let text = self.small_file(b"etc/group")?;
        let mut groups = lines(text).filter(|line| line[0] != b'#').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            Some((fields.next()?, id(fields.nth(1))?))
        });
        Ok(groups.find(|(other, _)| *other == name.as_bytes()).map(|(_, gid)| gid))
    }

    /// What is in a file whose content indexes keep. Where there is none, it is empty.
    fn small_file(&self, path: &[u8]) -> Result<&[u8]> {
        let resolved = self.resolve(path)?;
        let Some(found) = self.find(&resolved).filter(|found| !found.node.is_dir()) else { return Ok(&[]) };
        self.layers[found.layer].small_file(&found.content_path).ok_or_else(|| Error::ImageInvalid {
            what: format!("`{}`", String::from_utf8_lossy(&resolved)),
            reason: format!("it is no text file of at most {} bytes", super::super::index::MAX_KEPT_SIZE),
        })
    }
}

/// A name that is a number. What is too big is one too.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix('+').unwrap_or(name);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// A number in a line: 0 where there is none, as misbehaving files have it; `None` if nobody can have it.
fn id(field: Option<&[u8]>) -> Option<u32> {
    let Ok(text) = std::str::from_utf8(field.unwrap_or_default()) else { return Some(0) };
    text.parse::<i64>().map_or(Some(0), |number| u32::try_from(number).ok())
}

fn first_field(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b':').next().unwrap_or_default()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}
