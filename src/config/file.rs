//! The settings file: TOML with the keys of [`SETTINGS`] at its top level.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::{Table, Value};

use crate::config::error::ConfigError;
use crate::config::table::{SETTINGS, Setting};
use crate::types::near::nearest;

/// No honest settings file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The texts of the settings that a file gives, by key.
///
/// # Errors
/// [`ConfigError`] when the file cannot be read, is not TOML or holds what is no setting.
pub fn read(path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .and_then(|length| {
            if length as u64 > FILE_BYTES_MAX {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            Ok(())
        });
    read.map_err(|source| ConfigError::Unreadable {
        path: path.to_path_buf(),
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            reason: error.message().to_owned(),
        }
    })?;
    let mut found = BTreeMap::new();
    for (key, value) in &table {
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        let setting = setting.ok_or_else(|| unknown(path, key))?;
        let texts = texts(setting, value).ok_or_else(|| ConfigError::WrongKind {
            path: path.to_path_buf(),
            key: setting.key,
            allowed: setting.allowed,
        })?;
        found.insert(setting.key, texts);
    }
    Ok(found)
}

fn unknown(path: &Path, key: &str) -> ConfigError {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    // A flag has dashes where the file has underscores.
    let meant = nearest(&key.replace('-', "_"), &known);
    ConfigError::UnknownKey {
        path: path.to_path_buf(),
        key: key.to_owned(),
        meant: meant.map_or_else(String::new, |meant| format!(" (did you mean {meant}?)")),
        known: known.join(", "),
    }
}

/// A setting that repeats takes a list, or a table of `NAME = URL`.
fn texts(setting: &Setting, value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) if setting.repeats => items.iter().map(scalar).collect(),
        Value::Table(items) if setting.repeats => items
            .iter()
            .map(|(name, value)| Some(format!("{name}={}", scalar(value)?)))
            .collect(),
        other => scalar(other).map(|text| vec![text]),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(is_so) => Some(is_so.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<BTreeMap<&'static str, Vec<String>>, String> {
        parse(Path::new("s.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn values_come_as_text() {
        let found = parsed(
            "data = \"/d\"\ncache_mib = 12\nbloom_filter_fpr = 0.25\ncompact_when_idle = false\n\
             [peers]\na = \"http://a\"\n",
        );
        let found = found.unwrap();
        assert_eq!(found["data"], ["/d"]);
        assert_eq!(found["cache_mib"], ["12"]);
        assert_eq!(found["bloom_filter_fpr"], ["0.25"]);
        assert_eq!(found["compact_when_idle"], ["false"]);
        assert_eq!(found["peers"], ["a=http://a"]);
        let list = parsed("peers = [\"a=http://a\", \"b=http://b\"]").unwrap();
        assert_eq!(list["peers"], ["a=http://a", "b=http://b"]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, told) in [
            ("listen = \"a:1\"\nlisten = \"b:1\"", "s.toml, line 2"),
            ("\n\ndata = ", "s.toml, line 3"),
            (
                "liste = 1",
                "\"liste\", which does not exist (did you mean listen?)",
            ),
            ("cache-mib = 1", "(did you mean cache_mib?)"),
            (
                "colour = 1",
                "\"colour\", which does not exist; the settings are data,",
            ),
            ("liste = 1", "max_state_bytes"),
            ("cache_mib = [1]", "cache_mib takes a whole number of MiB"),
            ("cache_mib = {}", "cache_mib takes"),
            ("data = 1979-05-27", "data takes the path"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
