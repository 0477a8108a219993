//! The table of settings: names, defaults, what each takes and where its value goes.
//!
//! From it come the flags of `serve`, the variables, the keys of the file, and what `samestate
//! config` shows.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::settings::{LogFormat, Settings};
use crate::config::values::{address, bytes, duration, number, peer, unless_off};
use crate::http::hosts::is_name;
use crate::sketch::key::Secret;
use crate::types::ttl::TTL_MAX;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Key in the file, and in capitals behind `SAMESTATE_` the name of the variable.
    pub key: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// What stands for the value in help texts.
    pub value_name: &'static str,
    /// What it is for, in one line.
    pub help: &'static str,
    /// What it takes, as the end of a sentence.
    pub allowed: &'static str,
    /// As a user would write it; `None` when there is no value unless it is set.
    pub default: Option<&'static str>,
    /// True when it may be given several times.
    pub repeats: bool,
    /// Takes a value over; `None` when the setting does not take it.
    pub take: fn(&mut Settings, &str) -> Option<()>,
}

impl Setting {
    /// Name of the variable.
    pub fn variable(&self) -> String {
        format!("SAMESTATE_{}", self.key.to_uppercase())
    }
}

const STATE_BYTES_MAX: u64 = 1 << 30;
const MEMORY_MAX: u64 = 1 << 40;
/// The setting that is never shown.
pub const CLUSTER_SECRET: &str = "cluster_secret";
/// Allowed ages of history, in seconds.
const AGES: RangeInclusive<u64> = 60..=TTL_MAX / 1000;

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data",
        flag: "data",
        value_name: "DIR",
        help: "Data directory; it is made when it does not exist",
        allowed: "the path of a directory",
        default: None,
        repeats: false,
        take: |settings, text| {
            settings.data = Some(PathBuf::from(text));
            (!text.is_empty()).then_some(())
        },
    },
    Setting {
        key: "listen",
        flag: "listen",
        value_name: "HOST:PORT",
        help: "Address to listen on; port 0 takes any free one",
        allowed: "HOST:PORT, such as 127.0.0.1:7400 or [::]:7400",
        default: Some("127.0.0.1:7400"),
        repeats: false,
        take: |settings, text| address(text).map(|listen| settings.listen = listen),
    },
    Setting {
        key: "peers",
        flag: "peer",
        value_name: "NAME=URL",
        help: "A replica to keep in step with; may be given several times",
        allowed: "NAME=URL, such as eu-2=http://10.0.0.2:7400: a name of a-z, 0-9 and '-', and an \
                  http:// URL without credentials and query",
        default: None,
        repeats: true,
        take: |settings, text| peer(text).map(|peer| settings.peers.push(peer)),
    },
    Setting {
        key: CLUSTER_SECRET,
        flag: "cluster-secret",
        value_name: "TEXT",
        help: "What the replicas of a cluster share to compare their states; the same on all of them",
        allowed: "any text, best 16 or more random characters",
        default: None,
        repeats: false,
        take: |settings, text| {
            settings.replica.secret = Secret::of(text);
            (!text.is_empty()).then_some(())
        },
    },
    Setting {
        key: "cache_mib",
        flag: "cache-mib",
        value_name: "MIB",
        help: "Memory for cached pages of each namespace, in MiB",
        allowed: "a whole number of MiB from 1 to 1048576",
        default: Some("96"),
        repeats: false,
        take: |settings, text| {
            let mib = number(text, 1..=1 << 20)?;
            settings.replica.store.cache_bytes = usize::try_from(mib << 20).ok()?;
            Some(())
        },
    },
    Setting {
        key: "max_state_bytes",
        flag: "max-state-bytes",
        value_name: "BYTES",
        help: "Largest state; set the same on all replicas",
        allowed: "a size from 1 byte to 1GiB, such as 67108864 or 64MiB",
        default: Some("64MiB"),
        repeats: false,
        take: |settings, text| {
            let limit = bytes(text, 1..=STATE_BYTES_MAX)?;
            settings.replica.limits.state_bytes = limit;
            Some(())
        },
    },
    Setting {
        key: "history_versions",
        flag: "history-versions",
        value_name: "N",
        help: "Older versions kept of each state",
        allowed: "a whole number from 0 to 1000",
        default: Some("8"),
        repeats: false,
        take: |settings, text| {
            let versions = number(text, 0..=1000)?;
            settings.replica.store.history_versions = usize::try_from(versions).ok()?;
            Some(())
        },
    },
    Setting {
        key: "history_age",
        flag: "history-age",
        value_name: "TIME",
        help: "How long older versions are kept",
        allowed: "a time from 1m to 3650d, such as 36h or 30d, or off to keep them however old",
        default: Some("off"),
        repeats: false,
        take: |settings, text| {
            let age = unless_off(text, |text| duration(text, AGES))?;
            let age = age.map(|age| u64::try_from(age.as_millis()));
            settings.replica.store.history_age = age.transpose().ok()?;
            Some(())
        },
    },
    Setting {
        key: "history_bytes",
        flag: "history-bytes",
        value_name: "BYTES",
        help: "State bytes of older versions kept of each state",
        allowed: "a size from 0 to 1024GiB, or off for any number",
        default: Some("off"),
        repeats: false,
        take: |settings, text| {
            let bytes = unless_off(text, |text| bytes(text, 0..=MEMORY_MAX))?;
            settings.replica.store.history_bytes = bytes;
            Some(())
        },
    },
    Setting {
        key: "inline_bytes",
        flag: "inline-bytes",
        value_name: "BYTES",
        help: "Compressed states up to this size are stored in their record's own row",
        allowed: "a size from 0 to 8KiB",
        default: Some("2KiB"),
        repeats: false,
        take: |settings, text| {
            let inline = bytes(text, 0..=8 << 10)?;
            settings.replica.store.inline_bytes = usize::try_from(inline).ok()?;
            Some(())
        },
    },
    Setting {
        key: "max_namespaces",
        flag: "max-namespaces",
        value_name: "N",
        help: "Namespaces that may exist",
        allowed: "a whole number from 1 to 10000",
        default: Some("64"),
        repeats: false,
        take: |settings, text| {
            let count = number(text, 1..=10_000)?;
            settings.replica.namespaces_max = usize::try_from(count).ok()?;
            Some(())
        },
    },
    Setting {
        key: "disk_reserve",
        flag: "disk-reserve",
        value_name: "BYTES",
        help: "Free space on the disk below which only deletions are taken",
        allowed: "a size from 0 to 1048576GiB",
        default: Some("128MiB"),
        repeats: false,
        take: |settings, text| {
            settings.replica.store.reserve_bytes = bytes(text, 0..=1 << 50)?;
            Some(())
        },
    },
    Setting {
        key: "compact_when_idle",
        flag: "compact-when-idle",
        value_name: "BOOL",
        help: "Compact files by itself after much was written and nothing is for a while",
        allowed: "true or false",
        default: Some("true"),
        repeats: false,
        take: |settings, text| {
            settings.replica.store.compact_when_idle = text.trim().parse().ok()?;
            Some(())
        },
    },
    Setting {
        key: "max_concurrent_sessions",
        flag: "max-concurrent-sessions",
        value_name: "N",
        help: "Sync sessions of other replicas served at once in each namespace",
        allowed: "a whole number from 1 to 1000",
        default: Some("16"),
        repeats: false,
        take: |settings, text| {
            let count = number(text, 1..=1000)?;
            settings.replica.sessions_max = usize::try_from(count).ok()?;
            Some(())
        },
    },
    Setting {
        key: "bloom_filter_items",
        flag: "bloom-filter-items",
        value_name: "N",
        help: "States that a Bloom filter is sized for at least",
        allowed: "a whole number from 1 to 1000000000",
        default: Some("10000"),
        repeats: false,
        take: |settings, text| {
            settings.links.tuning.bloom.items = number(text, 1..=1_000_000_000)?;
            Some(())
        },
    },
    Setting {
        key: "bloom_filter_fpr",
        flag: "bloom-filter-fpr",
        value_name: "SHARE",
        help: "Share of the differences that a Bloom filter may hide at first",
        allowed: "a number from 0.000001 to 0.5",
        default: Some("0.001"),
        repeats: false,
        take: |settings, text| {
            let share: f64 = text.trim().parse().ok()?;
            settings.links.tuning.bloom.fpr = share;
            (1e-6..=0.5).contains(&share).then_some(())
        },
    },
    Setting {
        key: "link_mbit_per_second",
        flag: "link-mbit-per-second",
        value_name: "MBIT",
        help: "How fast the network to peers is, for choosing how to compare",
        allowed: "a whole number of Mbit a second from 1 to 1000000",
        default: Some("100"),
        repeats: false,
        take: |settings, text| {
            let mbit = number(text, 1..=1_000_000)?;
            settings.links.tuning.link.bytes_per_second = mbit * 125_000;
            Some(())
        },
    },
    Setting {
        key: "link_round_trip_ms",
        flag: "link-round-trip-ms",
        value_name: "MS",
        help: "How long an answer of a peer takes on its way, for choosing how to compare",
        allowed: "a whole number of milliseconds from 0 to 10000",
        default: Some("20"),
        repeats: false,
        take: |settings, text| {
            let millis = number(text, 0..=10_000)?;
            settings.links.tuning.link.round_trip_micros = millis * 1000;
            Some(())
        },
    },
    Setting {
        key: "allowed_hosts",
        flag: "allowed-host",
        value_name: "NAME",
        help: "A name that requests may call the replica by; may be given several times",
        allowed: "the name of a host without its port, or * for any",
        default: None,
        repeats: true,
        take: |settings, text| {
            settings.allowed_hosts.push(text.to_owned());
            is_name(text).then_some(())
        },
    },
    Setting {
        key: "in_flight_bytes",
        flag: "in-flight-bytes",
        value_name: "BYTES",
        help: "Memory for bodies of requests, and again for bodies of answers",
        allowed: "a size from 1MiB to 1024GiB",
        default: Some("256MiB"),
        repeats: false,
        take: |settings, text| {
            settings.http.in_flight_bytes = bytes(text, 1 << 20..=MEMORY_MAX)?;
            Some(())
        },
    },
    Setting {
        key: "backup_dirs",
        flag: "backup-dir",
        value_name: "DIR",
        help: "A folder that clients may have backups made in, or below; may be given several times",
        allowed: "the path of a folder from the root on, such as /var/backups/samestate",
        default: None,
        repeats: true,
        take: |settings, text| {
            let folder = PathBuf::from(text);
            let usable = folder.is_absolute();
            settings.backup_dirs.push(folder);
            usable.then_some(())
        },
    },
    Setting {
        key: "scrub_mib_per_second",
        flag: "scrub-mib-per-second",
        value_name: "MIB",
        help: "How fast stored states are read to find damage, in each namespace; 0 for never",
        allowed: "a whole number of MiB a second from 0 to 100000",
        default: Some("8"),
        repeats: false,
        take: |settings, text| {
            settings.scrub.bytes_per_second = number(text, 0..=100_000)? << 20;
            Some(())
        },
    },
    Setting {
        key: "scrub_interval",
        flag: "scrub-interval",
        value_name: "TIME",
        help: "Time from one look at all stored states to the next one",
        allowed: "a time from 1s to 365d, such as 12h or 7d",
        default: Some("24h"),
        repeats: false,
        take: |settings, text| {
            settings.scrub.interval = duration(text, 1..=365 * 86_400)?;
            Some(())
        },
    },
    Setting {
        key: "root_log_interval",
        flag: "root-log-interval",
        value_name: "TIME",
        help: "Least time between two entries of the log of roots; off for no more entries",
        allowed: "a time from 1s to 1d, or off",
        default: Some("1s"),
        repeats: false,
        take: |settings, text| {
            let interval = unless_off(text, |text| duration(text, 1..=86_400))?;
            settings.replica.store.root_log_interval = interval;
            Some(())
        },
    },
    Setting {
        key: "shutdown_grace_seconds",
        flag: "shutdown-grace-seconds",
        value_name: "SECONDS",
        help: "How long requests in flight may take once the server is told to stop",
        allowed: "a whole number of seconds from 0 to 3600",
        default: Some("10"),
        repeats: false,
        take: |settings, text| {
            settings.shutdown_grace = Duration::from_secs(number(text, 0..=3600)?);
            Some(())
        },
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        value_name: "FORMAT",
        help: "How log lines on standard error look",
        allowed: "text or json",
        default: Some("text"),
        repeats: false,
        take: |settings, text| {
            settings.log.format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return None,
            };
            Some(())
        },
    },
    Setting {
        key: "log_level",
        flag: "log-level",
        value_name: "LEVEL",
        help: "What is logged",
        allowed: "off, error, warn, info, debug or trace, or directives such as \
                  info,samestate::http=debug",
        default: Some("info"),
        repeats: false,
        take: |settings, text| {
            EnvFilter::try_new(text).ok()?;
            settings.log.level = text.to_owned();
            (!text.is_empty()).then_some(())
        },
    },
];
