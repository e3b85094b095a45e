//! Instructions as text again.

use std::fmt;
use std::time::Duration;

use super::{Command, Healthcheck, Kind, Pairs, Run, Transfer};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::instruction::{Network, Security};

impl fmt::Display for Kind {
    /// In capitals, on one line but for here-documents. Read again, it is the same instruction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_source('\\'))
    }
}

impl Kind {
    /// The instruction for a Dockerfile with this escape character.
    pub fn to_source(&self, escape: char) -> String {
        let mut line = Line { text: self.keyword().to_owned(), escape };
        match self {
            Self::Add(transfer) | Self::Copy(transfer) => line.transfer(transfer),
            Self::Arg(arguments) => {
                for argument in arguments {
                    let default = argument.default.as_ref().map(|text| format!("={text}")).unwrap_or_default();
                    line.word(&format!("{}{default}", argument.name));
                }
            }
            Self::Cmd(command) | Self::Entrypoint(command) => line.command(command),
            Self::Env(pairs) | Self::Label(pairs) => line.pairs(pairs),
            Self::Expose(words) => words.iter().for_each(|word| line.word(word)),
            Self::From(from) => {
                line.flag("platform", from.platform.as_deref());
                line.word(&from.base);
                if let Some((keyword, name)) = &from.alias {
                    line.word(keyword);
                    line.word(name);
                }
            }
            Self::Healthcheck(check) => line.healthcheck(check),
            Self::Run(run) => line.run(run),
            Self::Shell(words) | Self::Volume(words) => line.json(words),
            Self::Maintainer(text)
            | Self::Onbuild(text)
            | Self::Stopsignal(text)
            | Self::User(text)
            | Self::Workdir(text) => line.rest(text),
        }
        line.text
    }
}

struct Line {
    text: String,
    escape: char,
}

impl Line {
    fn word(&mut self, word: &str) {
        self.text.push(' ');
        self.text.push_str(word);
    }

    /// A text that could be taken for a flag is kept from that by `--`.
    fn rest(&mut self, text: &str) {
        if text.starts_with("--") {
            self.word("--");
        }
        self.word(text);
    }

    fn json(&mut self, words: &[String]) {
        self.word(&serde_json::Value::from(words).to_string());
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.rest(text),
            Command::Exec(words) => self.json(words),
        }
    }

    fn flag(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.word(&format!("--{name}="));
        let quote = if value.contains(char::is_whitespace) { "\"" } else { "" };
        self.text.push_str(quote);
        for character in value.chars() {
            if character == self.escape || matches!(character, '\'' | '"') {
                self.text.push(self.escape);
            }
            self.text.push(character);
        }
        self.text.push_str(quote);
    }

    fn bool_flag(&mut self, name: &str, value: Option<bool>) {
        self.flag(name, value.map(|value| if value { "true" } else { "false" }));
    }

    fn transfer(&mut self, transfer: &Transfer) {
        self.flag("from", transfer.from.as_deref());
        self.flag("chown", transfer.chown.as_deref());
        self.flag("chmod", transfer.chmod.as_deref());
        self.bool_flag("link", transfer.link.then_some(true));
        self.bool_flag("parents", transfer.parents.then_some(true));
        self.bool_flag("keep-git-dir", transfer.keep_git_dir);
        self.flag("checksum", transfer.checksum.as_deref());
        self.bool_flag("unpack", transfer.unpack);
        transfer.exclude.iter().for_each(|pattern| self.flag("exclude", Some(pattern)));
        if transfer.inline.is_empty() {
            let words: Vec<String> = transfer.sources.iter().chain([&transfer.destination]).cloned().collect();
            return self.json(&words);
        }
        // Here-documents go with words only; words with white space do not go with them, and cannot have been there.
        transfer.sources.iter().for_each(|word| self.word(word));
        transfer.inline.iter().for_each(|heredoc| self.word(&mark(heredoc)));
        self.word(&transfer.destination);
        self.heredocs(&transfer.inline);
    }

    fn heredocs(&mut self, heredocs: &[Heredoc]) {
        for heredoc in heredocs {
            self.text.push('\n');
            self.text.push_str(&heredoc.content);
            self.text.push_str(&heredoc.name);
        }
    }

    fn pairs(&mut self, Pairs { pairs, legacy }: &Pairs) {
        let separator = if *legacy { ' ' } else { '=' };
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}{separator}{value}")).collect();
        self.rest(&pairs.join(" "));
    }

    fn healthcheck(&mut self, check: &Healthcheck) {
        let Some(command) = &check.command else { return self.word("NONE") };
        self.time("interval", check.interval);
        self.time("timeout", check.timeout);
        self.time("start-period", check.start_period);
        self.time("start-interval", check.start_interval);
        self.flag("retries", (check.retries > 0).then(|| check.retries.to_string()).as_deref());
        self.word("CMD");
        match command {
            // No flag is looked for here.
            Command::Shell(text) => self.word(text),
            Command::Exec(words) => self.json(words),
        }
    }

    fn time(&mut self, name: &str, time: Option<Duration>) {
        self.flag(name, time.map(|time| format!("{}ns", time.as_nanos())).as_deref());
    }

    fn run(&mut self, run: &Run) {
        run.mounts.iter().for_each(|mount| self.flag("mount", Some(&mount.text)));
        match run.network {
            Network::Default => {}
            Network::None => self.flag("network", Some("none")),
            Network::Host => self.flag("network", Some("host")),
        }
        if run.security == Security::Insecure {
            self.flag("security", Some("insecure"));
        }
        for device in &run.devices {
            // A name with a comma in it needs the quotes of a list of fields.
            let field = format!("\"name={}\",required={}", device.name.replace('"', "\"\""), device.required);
            self.flag("device", Some(&field));
        }
        self.command(&run.command);
        self.heredocs(&run.heredocs);
    }
}

/// The word that starts a here-document.
fn mark(heredoc: &Heredoc) -> String {
    let mut word = if heredoc.descriptor > 0 { heredoc.descriptor.to_string() } else { String::new() };
    word.push_str(if heredoc.strip_tabs { "<<-" } else { "<<" });
    let quote = if heredoc.expand { "" } else { "\"" };
    word.push_str(quote);
    for character in heredoc.name.chars() {
        if matches!(character, '"' | '\\' | '$') || (heredoc.expand && character == '\'') {
            word.push('\\');
        }
        word.push(character);
    }
    word.push_str(quote);
    word
}
