//! Versions that never change, as dictionaries for browsers (RFC 9842): one that was fetched by its hash may
//! be kept, and makes the answer with the next version of the state small.

use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;

const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");
const SAMESTATE_EXPIRES: HeaderName = HeaderName::from_static("samestate-expires");
/// How long a browser may keep a version without asking, which is as long as it may use it as a dictionary.
/// Not longer, since a state may be deleted.
const FRESH: HeaderValue = HeaderValue::from_static("private, max-age=3600");
/// Longest path that is told again.
const PATH_MAX: usize = 1024;

/// Tells browsers that the version of a state that they got is a dictionary for others; `pattern` says for
/// which.
pub fn offer_dictionary(response: &mut Response, pattern: HeaderValue) {
    if response.status() == StatusCode::OK && !expires(response.headers()) {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, FRESH);
        headers.insert(USE_AS_DICTIONARY, pattern);
    }
}

fn expires(headers: &HeaderMap) -> bool {
    headers.contains_key(SAMESTATE_EXPIRES)
}

/// What the version of a state that a read asks for is a dictionary for: every version of that state which is
/// asked for by its hash under the same path. `None` for a request of anything else.
pub fn pattern(uri: &Uri) -> Option<HeaderValue> {
    let mut fields = uri.query()?.split('&');
    let by_hash = fields.next()?.starts_with("version=") && fields.next().is_none();
    let path = Some(uri.path()).filter(|path| by_hash && path.len() <= PATH_MAX)?;
    let mut text = String::with_capacity(path.len() + 32);
    text.push_str("match=\"");
    for character in path.chars() {
        // What means something to a URL pattern is escaped there, and its backslash here once more; a
        // quotation mark does not stand in a path.
        if "+*?:{}()".contains(character) {
            text.push_str("\\\\");
        }
        text.push(character);
    }
    text.push_str("\\\\?version=*\"");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_by_hash_are_dictionaries_and_their_paths_are_meant_literally() {
        let pattern = |text: &'static str| {
            let told = pattern(&Uri::from_static(text));
            told.map(|value| value.to_str().unwrap().to_owned())
        };
        let of_version = pattern("/v1/ns/default/states/a/b%20c?version=00ff");
        let expected = r#"match="/v1/ns/default/states/a/b%20c\\?version=*""#;
        assert_eq!(of_version.as_deref(), Some(expected));
        let strange = pattern("/v1/ns/default/states/a:(b)*?version=00");
        let expected = r#"match="/v1/ns/default/states/a\\:\\(b\\)\\*\\?version=*""#;
        assert_eq!(strange.as_deref(), Some(expected));
        assert_eq!(pattern("/v1/ns/default/states/a"), None);
        assert_eq!(pattern("/v1/ns/default/states/a?at=-10m"), None);
        assert_eq!(pattern("/v1/ns/default/states/a?version=00&at=-10m"), None);
    }
}
