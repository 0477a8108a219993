//! Names of the files that belong to a namespace.

/// What a file's name ends with behind that of the namespace's first file: the set and the shard.
pub const SHARD: &str = "shard-";

/// True for what the name of a shard's file has behind its namespace and a dot.
pub fn is_shard(rest: &str) -> bool {
    let Some(parts) = rest
        .split_once('.')
        .and_then(|(_, last)| last.strip_prefix(SHARD)?.split_once('-'))
    else {
        return false;
    };
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    parts.0.len() == 16 && is_hex(parts.0) && parts.1.len() == 2 && is_number(parts.1)
}
