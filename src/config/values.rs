//! How the texts of settings become values.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::peer::address::{PeerAddress, check_name};

/// A whole number within bounds.
pub fn number(text: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
    let number = text.trim().parse().ok()?;
    allowed.contains(&number).then_some(number)
}

/// A number of bytes within bounds: `65536`, `64KiB`, `64 MiB`, `1GiB`.
pub fn bytes(text: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
    let text = text.trim();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (count, shift) = unit.unwrap_or((text, &0));
    let count: u64 = count.trim_end().parse().ok()?;
    let bytes = count.checked_mul(1 << shift)?;
    allowed.contains(&bytes).then_some(bytes)
}

/// A time within bounds: `45` or `45s`, `10m`, `24h`, `7d`.
pub fn duration(text: &str, allowed: RangeInclusive<u64>) -> Option<Duration> {
    let text = text.trim();
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let unit = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (count, unit) = unit.unwrap_or((text, 1));
    let count: u64 = count.trim_end().parse().ok()?;
    let seconds = count.checked_mul(unit)?;
    allowed
        .contains(&seconds)
        .then_some(Duration::from_secs(seconds))
}

/// A value, or `off` for none.
pub fn unless_off<T>(text: &str, value: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.trim() == "off" {
        return Some(None);
    }
    value(text).map(Some)
}

/// `HOST:PORT`, whose host may be a name.
pub fn address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    (!host.is_empty() && !is_bare_ipv6).then(|| text.to_owned())
}

/// `NAME=URL`, by the rules that the links to peers have.
pub fn peer(text: &str) -> Option<(String, String)> {
    let (name, url) = text.split_once('=')?;
    check_name(name).ok()?;
    PeerAddress::parse(url).ok()?;
    Some((name.to_owned(), url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, value) in [
            ("0", 0),
            (" 17 ", 17),
            ("64KiB", 65_536),
            ("2 MiB", 2 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(bytes(text, 0..=u64::MAX), Some(value), "{text}");
        }
        for bad in ["", "KiB", "1kb", "1.5MiB", "-1", "99999999999GiB"] {
            assert_eq!(bytes(bad, 0..=u64::MAX), None, "{bad}");
        }
        assert_eq!(bytes("2KiB", 0..=2047), None);
    }

    #[test]
    fn times_have_units() {
        let day = 86_400;
        for (text, seconds) in [
            ("45", 45),
            ("45s", 45),
            (" 10 m", 600),
            ("24h", day),
            ("7d", 7 * day),
        ] {
            let parsed = duration(text, 0..=u64::MAX);
            assert_eq!(parsed, Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "1w", "1.5h", "-1s", "99999999999999999d"] {
            assert_eq!(duration(bad, 0..=u64::MAX), None, "{bad}");
        }
        assert_eq!(duration("1h", 0..=60), None);
    }

    #[test]
    fn bounds_may_be_off() {
        let age = |text| unless_off(text, |text| duration(text, 60..=120));
        assert_eq!(age(" off "), Some(None));
        assert_eq!(age("90s"), Some(Some(Duration::from_secs(90))));
        for bad in ["", "Off", "0", "59s", "3m"] {
            assert_eq!(age(bad), None, "{bad}");
        }
    }

    #[test]
    fn peers_have_a_name_and_a_url_that_links_take() {
        let good = peer("eu-2=http://10.0.0.2:7400");
        assert_eq!(
            good.unwrap(),
            ("eu-2".into(), "http://10.0.0.2:7400".into())
        );
        for bad in [
            "eu-2",
            "=http://h",
            "EU=http://h",
            "eu=https://h",
            "eu=http://",
            "eu=http://user:secret@h",
            "eu=http://h?q",
        ] {
            assert!(peer(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "[::1]:7400", "localhost:80"] {
            assert!(address(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "7400",
            ":7400",
            "localhost",
            "localhost:http",
            "::1:7400",
            "h:65536",
        ] {
            assert!(address(bad).is_none(), "{bad}");
        }
    }
}
