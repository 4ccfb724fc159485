//! The configuration file: TOML whose keys are the flags' names.
//!
//! Read once at the start, never watched. It only finds texts; what they mean is decided where every other
//! text is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{ConfigError, Origin, Place, SETTINGS, Setting};

/// Bytes that a configuration file may have; a device that never ends is none.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file that has been read; every key in it is known.
pub(super) struct File {
    path: PathBuf,
    texts: BTreeMap<&'static str, String>,
}

impl File {
    /// Reads it and checks the keys.
    pub(super) fn read(path: PathBuf) -> Result<File, ConfigError> {
        match read_bounded(&path) {
            Ok(text) => File::parse(path, &text),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says for a key.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.texts.get(key).cloned()
    }

    /// Reads its text and checks the keys.
    pub(super) fn parse(path: PathBuf, text: &str) -> Result<File, ConfigError> {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return Err(syntax(path, text, &error)),
        };
        let mut texts = BTreeMap::new();
        for (written, value) in table {
            let Some(setting) = setting(&written) else {
                let nearest = nearest(&written);
                return Err(ConfigError::UnknownKey { path, key: written, nearest });
            };
            let Some(text) = value_text(setting, &value) else {
                let origin = Origin { key: setting.key, place: Place::File(path) };
                let value = value.to_string();
                return Err(ConfigError::Value { origin, value, allowed: (setting.allowed)() });
            };
            if texts.insert(setting.key, text).is_some() {
                return Err(ConfigError::KeyTwice { path, key: setting.key });
            }
        }
        Ok(File { path, texts })
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

/// The setting with that key; `_` for `-` is taken too, as most TOML files have it.
fn setting(written: &str) -> Option<&'static Setting> {
    let key = written.replace('_', "-");
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn nearest(written: &str) -> &'static str {
    let likeness = |setting: &&Setting| strsim::damerau_levenshtein(&written.replace('_', "-"), setting.key);
    SETTINGS.iter().min_by_key(likeness).map_or("", |setting| setting.key)
}

/// The value as the text that a flag would have; none if no flag could say it.
fn value_text(setting: &Setting, value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(values) if (setting.is_list)() => {
            let texts: Option<Vec<_>> = values.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

fn syntax(path: PathBuf, text: &str, error: &toml::de::Error) -> ConfigError {
    let end = error.span().map_or(0, |span| span.start).min(text.len());
    let line = 1 + text.bytes().take(end).filter(|byte| *byte == b'\n').count();
    ConfigError::Syntax { path, line, message: error.message().replace('\n', " ") }
}
