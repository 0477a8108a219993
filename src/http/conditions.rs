//! Conditional requests: entity tags and the headers that hold them (RFC 9110 section 13).

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use crate::http::problem::Problem;
use crate::replica::command::{Precondition, Refusal};
use crate::types::id::GameId;

/// What a condition header lists.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`
    Any,
    /// Entity tags with their quotes, and whether each is weak.
    List(Vec<(bool, String)>),
}

/// The condition of a write.
///
/// # Errors
/// [`Problem`] `bad_header` when a header is malformed or they cannot be combined.
pub fn of_write(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let is_matched = headers.contains_key(IF_MATCH);
    // Passing over it would lose the update that it is to keep.
    if !is_matched && headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(Problem::bad_header(
            "a write does not take If-Unmodified-Since: a second is too coarse to tell writes \
             apart; use If-Match with the tag that you read",
        ));
    }
    match (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::List(_))) => Err(Problem::bad_header(
            "If-None-Match on a write takes * only; use If-Match with the tag that you read",
        )),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::List(tags)), None) => Ok(Precondition::Matches(strong(tags))),
        (Some(_), Some(_)) => Err(Problem::bad_header(
            "If-Match and If-None-Match contradict each other; send one of them",
        )),
    }
}

/// True when the client's `If-None-Match` says that it holds this representation already.
///
/// # Errors
/// [`Problem`] `bad_header` when the header is malformed.
pub fn is_held(headers: &HeaderMap, etag: &str) -> Result<bool, Problem> {
    Ok(match tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::List(tags)) => tags.iter().any(|(_, tag)| tag == etag),
    })
}

/// The conditions of reading a state whose tag is `etag`; true when the client holds this
/// representation already.
///
/// # Errors
/// [`Problem`] `bad_header` when a header is malformed, `precondition_failed` when `If-Match` names
/// other tags.
pub fn of_read(headers: &HeaderMap, id: &GameId, etag: &str) -> Result<bool, Problem> {
    if let Some(Tags::List(tags)) = tags(headers, &IF_MATCH)?
        && !strong(tags).iter().any(|tag| tag == etag)
    {
        return Err(Problem::from(Refusal::PreconditionFailed {
            id: id.clone(),
            current: Some(etag.to_owned()),
        }));
    }
    is_held(headers, etag)
}

/// A precondition out of the text of one `If-Match` header.
///
/// # Errors
/// [`Problem`] `bad_header` when the text is malformed.
pub fn of_if_match(text: &str) -> Result<Precondition, Problem> {
    Ok(match parse(&IF_MATCH, text)? {
        Tags::Any => Precondition::Exists,
        Tags::List(tags) => Precondition::Matches(strong(tags)),
    })
}

/// `If-Match` compares strongly: weak tags never match.
fn strong(tags: Vec<(bool, String)>) -> Vec<String> {
    let strong = tags.into_iter().filter(|(weak, _)| !weak);
    strong.map(|(_, tag)| tag).collect()
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut lines = Vec::new();
    for value in headers.get_all(name) {
        lines.push(value.to_str().map_err(|_| malformed(name))?);
    }
    if lines.is_empty() {
        return Ok(None);
    }
    parse(name, &lines.join(",")).map(Some)
}

fn parse(name: &HeaderName, text: &str) -> Result<Tags, Problem> {
    if text.trim() == "*" {
        return Ok(Tags::Any);
    }
    let (mut list, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let opaque = quoted
            .strip_prefix('"')
            .and_then(|tail| tail.split_once('"'));
        let (opaque, tail) = opaque.ok_or_else(|| malformed(name))?;
        list.push((weak, format!("\"{opaque}\"")));
        rest = tail.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(malformed(name));
        }
    }
    if list.is_empty() {
        return Err(malformed(name));
    }
    Ok(Tags::List(list))
}

fn malformed(name: &HeaderName) -> Problem {
    Problem::bad_header(format!(
        "{name} takes * or entity tags in double quotes, which belong to them, as the ETag header gives them"
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn conditions_of_writes() {
        let cases = [
            (vec![], Precondition::None),
            (vec![(IF_MATCH, " * ")], Precondition::Exists),
            (vec![(IF_NONE_MATCH, "*")], Precondition::Absent),
            (
                vec![
                    (IF_MATCH, "\"a,b\" , W/\"w\",\t\"c\","),
                    (IF_MATCH, "\"d\""),
                ],
                Precondition::Matches(vec!["\"a,b\"".into(), "\"c\"".into(), "\"d\"".into()]),
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(of_write(&headers(&given)).unwrap(), expected, "{given:?}");
        }
        for bad in [
            vec![(IF_MATCH, "abc")],
            vec![(IF_MATCH, "\"abc")],
            vec![(IF_MATCH, "\"a\" \"b\"")],
            vec![(IF_MATCH, "\"a\", *")],
            vec![(IF_MATCH, "")],
            vec![(IF_NONE_MATCH, "\"a\"")],
            vec![(IF_MATCH, "*"), (IF_NONE_MATCH, "*")],
            vec![(IF_UNMODIFIED_SINCE, "Sat, 01 Feb 2025 00:00:00 GMT")],
        ] {
            assert!(of_write(&headers(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn readers_of_something_else_are_told() {
        let id = GameId::new("a").unwrap();
        for (given, is_read) in [
            ("\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
        ] {
            let given = headers(&[(IF_MATCH, given)]);
            assert_eq!(of_read(&given, &id, "\"a\"").is_ok(), is_read, "{given:?}");
        }
    }

    #[test]
    fn readers_compare_weakly() {
        for (given, held) in [
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
        ] {
            let given = headers(&[(IF_NONE_MATCH, given)]);
            assert_eq!(is_held(&given, "\"a\"").unwrap(), held, "{given:?}");
        }
        assert!(!is_held(&HeaderMap::new(), "\"a\"").unwrap());
    }
}
