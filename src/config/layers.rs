//! Putting the layers together: which value counts, and where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;

use crate::config::error::ConfigError;
use crate::config::file;
use crate::config::origin::Origin;
use crate::config::settings::Settings;
use crate::config::table::{CLUSTER_SECRET, SETTINGS, Setting};
use crate::types::limits::WHOLE_STATE_MAX;

/// The variable that names the settings file.
pub const FILE_VARIABLE: &str = "SAMESTATE_CONFIG";

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Texts of settings, by key.
    pub values: BTreeMap<&'static str, Vec<String>>,
}

/// A setting's value as text, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting's key.
    pub key: &'static str,
    /// As it was written; empty when there is none.
    pub values: Vec<String>,
    /// Where.
    pub origin: Origin,
}

/// Settings and how they came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Validated.
    pub settings: Settings,
    /// One for each setting, in the order of the table.
    pub effective: Vec<Effective>,
}

/// The process's environment, for [`load`]. A variable that is empty counts as not set.
pub fn environment(name: &str) -> Option<String> {
    let value = env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// Puts flags, variables, the settings file and defaults together.
///
/// # Errors
/// [`ConfigError`] naming the setting and where it was given.
pub fn load(
    flags: &Flags,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigError> {
    let file = flags
        .file
        .clone()
        .or_else(|| environment(FILE_VARIABLE).map(PathBuf::from));
    let in_file = file
        .as_deref()
        .map(file::read)
        .transpose()?
        .unwrap_or_default();
    let mut settings = Settings::default();
    let mut effective = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let (values, origin) = if let Some(values) = flags.values.get(setting.key) {
            (values.clone(), Origin::Flag(setting.flag))
        } else if let Some(value) = environment(&setting.variable()) {
            (split(setting, &value), Origin::Variable(setting.variable()))
        } else if let (Some(values), Some(path)) = (in_file.get(setting.key), &file) {
            (values.clone(), Origin::File(path.clone()))
        } else {
            let default = setting.default.map(ToOwned::to_owned);
            (default.into_iter().collect(), Origin::Default)
        };
        for value in &values {
            let taken = (setting.take)(&mut settings, value);
            taken.ok_or_else(|| ConfigError::BadValue {
                key: setting.key,
                value: value.clone(),
                origin: origin.clone(),
                allowed: setting.allowed,
            })?;
        }
        if let Some(name) = named_twice(&settings.peers) {
            return Err(ConfigError::PeerTwice { name, origin });
        }
        effective.push(Effective {
            key: setting.key,
            values: shown(setting, values),
            origin,
        });
    }
    let in_flight = settings.http.in_flight_bytes;
    // Larger ones are never in memory as a whole.
    let state = settings.replica.limits.state_bytes.min(WHOLE_STATE_MAX);
    if in_flight < state {
        return Err(ConfigError::NoRoomForState { in_flight, state });
    }
    Ok(Loaded {
        settings,
        effective,
    })
}

fn named_twice(peers: &[(String, String)]) -> Option<String> {
    let mut names = BTreeSet::new();
    let mut peers = peers.iter().map(|(name, _)| name);
    peers.find(|name| !names.insert(*name)).cloned()
}

/// A secret is in no output.
fn shown(setting: &Setting, values: Vec<String>) -> Vec<String> {
    let hide = |value| match setting.key {
        CLUSTER_SECRET => "(set)".to_owned(),
        _ => value,
    };
    values.into_iter().map(hide).collect()
}

/// A variable gives several values with commas between them.
fn split(setting: &Setting, value: &str) -> Vec<String> {
    if !setting.repeats {
        return vec![value.to_owned()];
    }
    let parts = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::app::HttpOptions;
    use crate::runtime::replica::ReplicaOptions;
    use crate::sketch::key::Secret;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn flags(values: &[(&'static str, &str)]) -> Flags {
        let values = values
            .iter()
            .map(|(key, value)| (*key, vec![(*value).to_owned()]));
        Flags {
            file: None,
            values: values.collect(),
        }
    }

    fn origin(loaded: &Loaded, key: &str) -> Origin {
        let found = loaded
            .effective
            .iter()
            .find(|effective| effective.key == key);
        found.unwrap().origin.clone()
    }

    #[test]
    fn defaults_are_those_of_the_layers() {
        let settings = load(&Flags::default(), nothing).unwrap().settings;
        assert_eq!(settings.replica, ReplicaOptions::default());
        assert_eq!(settings.http, HttpOptions::default());
        assert_eq!(
            settings.links.tuning,
            crate::reconcile::strategy::Tuning::default()
        );
        assert_eq!(settings.listen, "127.0.0.1:7400");
        assert_eq!(settings.shutdown_grace, Duration::from_secs(10));
        assert_eq!(settings.data, None);
    }

    #[test]
    fn the_nearest_layer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let text = "listen = \"f:1\"\ncache_mib = 1\nhistory_versions = 1\n";
        std::fs::write(&path, text).unwrap();
        let variables = |name: &str| match name {
            FILE_VARIABLE => Some(path.display().to_string()),
            "SAMESTATE_LISTEN" => Some("v:1".to_owned()),
            "SAMESTATE_CACHE_MIB" => Some("2".to_owned()),
            "SAMESTATE_PEERS" => Some("a=http://a, b=http://b,".to_owned()),
            _ => None,
        };
        let loaded = load(&flags(&[("listen", "h:1")]), variables).unwrap();
        assert_eq!(loaded.settings.listen, "h:1");
        assert_eq!(origin(&loaded, "listen"), Origin::Flag("listen"));
        assert_eq!(loaded.settings.replica.store.cache_bytes, 2 << 20);
        assert_eq!(
            origin(&loaded, "cache_mib"),
            Origin::Variable("SAMESTATE_CACHE_MIB".into())
        );
        assert_eq!(loaded.settings.replica.store.history_versions, 1);
        assert_eq!(
            origin(&loaded, "history_versions"),
            Origin::File(path.clone())
        );
        assert_eq!(origin(&loaded, "inline_bytes"), Origin::Default);
        let peers =
            [("a", "http://a"), ("b", "http://b")].map(|(n, u)| (n.to_owned(), u.to_owned()));
        assert_eq!(loaded.settings.peers, peers);
    }

    #[test]
    fn bad_values_name_setting_origin_and_what_is_allowed() {
        for (key, value) in [
            ("data", ""),
            ("listen", "7400"),
            ("peers", "eu-2"),
            ("peers", "eu-2=http://user@host"),
            ("cluster_secret", ""),
            ("cache_mib", "0"),
            ("max_state_bytes", "2GiB"),
            ("history_versions", "-1"),
            ("inline_bytes", "9KiB"),
            ("max_namespaces", "0"),
            ("max_concurrent_sessions", "many"),
            ("bloom_filter_items", "0"),
            ("bloom_filter_fpr", "NaN"),
            ("link_mbit_per_second", "0"),
            ("link_round_trip_ms", "1h"),
            ("in_flight_bytes", "1"),
            ("allowed_hosts", "eu-1:7400"),
            ("backup_dirs", "not/from/the/root"),
            ("shutdown_grace_seconds", "10s"),
            ("log_format", "xml"),
            ("log_level", "a=b=c"),
        ] {
            let error = load(&flags(&[(key, value)]), nothing)
                .unwrap_err()
                .to_string();
            let setting = SETTINGS.iter().find(|setting| setting.key == key).unwrap();
            for part in [key, &format!("--{}", setting.flag), setting.allowed] {
                assert!(error.contains(part), "{error} should name {part}");
            }
        }
    }

    #[test]
    fn two_peers_of_one_name_are_refused() {
        let twice = ["a=http://x", "b=http://x", "a=http://y"].map(ToOwned::to_owned);
        let flags = Flags {
            file: None,
            values: [("peers", twice.to_vec())].into(),
        };
        let error = load(&flags, nothing).unwrap_err().to_string();
        assert!(
            error.contains("\"a\"") && error.contains("--peer"),
            "{error}"
        );
    }

    #[test]
    fn the_secret_counts_and_is_not_shown() {
        let loaded = load(&flags(&[("cluster_secret", "hush, hush")]), nothing).unwrap();
        assert_eq!(loaded.settings.replica.secret, Secret::of("hush, hush"));
        assert!(!format!("{loaded:?}").contains("hush"));
    }

    #[test]
    fn a_state_must_fit_into_what_may_be_in_flight() {
        let both = flags(&[("in_flight_bytes", "1MiB"), ("max_state_bytes", "2MiB")]);
        let error = load(&both, nothing).unwrap_err();
        assert!(matches!(error, ConfigError::NoRoomForState { .. }));
        let large = flags(&[("in_flight_bytes", "64MiB"), ("max_state_bytes", "1GiB")]);
        assert!(load(&large, nothing).is_ok());
    }

    #[test]
    fn no_two_settings_share_a_name() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            let others = &SETTINGS[at + 1..];
            assert!(
                others
                    .iter()
                    .all(|other| other.key != setting.key && other.flag != setting.flag)
            );
        }
    }
}
