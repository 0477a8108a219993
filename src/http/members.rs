//! Reads the named members of a query or of a JSON object into a struct, and tells of a mistake which member it is
//! in, what is wrong with it, and which members there may be.

use std::fmt::{self, Display};

use percent_encoding::percent_decode_str;
use serde::de::value::Error as TextError;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

use crate::types::near::{listed, nearest};

/// Longest piece of what was given that a message repeats, in characters.
const REPEATED: usize = 80;
/// Longest JSON of which each member is looked at by itself: as values it takes many times its length.
pub const LOOKED_AT: usize = 64 << 10;

/// What is wrong, and which members there may be.
#[derive(Debug)]
pub struct Mistake {
    what: What,
    taken: &'static [&'static str],
}

#[derive(Debug)]
enum What {
    Unknown(String),
    Missing(&'static str),
    Twice(String),
    /// What is wrong with the value of a member, or with all of it.
    Value(Option<String>, String),
}

impl Mistake {
    /// The mistake as a sentence. `member` is what a member is called there, and `within` what takes them.
    pub fn told(&self, member: &str, within: &str) -> String {
        let what = match &self.what {
            What::Unknown(name) => match nearest(name, self.taken) {
                Some(meant) => format!("the {member} {name:?} is unknown, did you mean {meant}?"),
                None => format!("the {member} {name:?} is unknown"),
            },
            What::Missing(name) => format!("the {member} {name} is missing"),
            What::Twice(name) => format!("the {member} {name} is there twice; give it once"),
            What::Value(Some(name), why) => format!("the {member} {name}: {why}"),
            What::Value(None, why) => why.clone(),
        };
        format!("{what} ({})", takes(self.taken, member, within))
    }
}

fn takes(taken: &[&str], member: &str, within: &str) -> String {
    match taken {
        [] => format!("{within} takes no {member}"),
        [only] => format!("{within} takes the {member} {only}"),
        several => format!("{within} takes the {member}s {}", listed(several)),
    }
}

impl From<What> for Mistake {
    fn from(what: What) -> Self {
        Self { what, taken: &[] }
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told("member", "it"))
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    fn custom<T: Display>(why: T) -> Self {
        What::Value(None, why.to_string()).into()
    }

    fn unknown_field(name: &str, taken: &'static [&'static str]) -> Self {
        let name = name.chars().take(REPEATED).collect();
        let what = What::Unknown(name);
        Self { what, taken }
    }

    fn missing_field(name: &'static str) -> Self {
        What::Missing(name).into()
    }

    fn duplicate_field(name: &'static str) -> Self {
        What::Twice(name.to_owned()).into()
    }
}

/// Reads the query of a URL, where `+` is a space.
///
/// # Errors
/// [`Mistake`] when a parameter is unknown, missing, given twice or of the wrong form.
pub fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, Mistake> {
    let mut pairs = Vec::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let name = decoded(name).unwrap_or_else(|| name.to_owned());
        let Some(value) = decoded(value) else {
            let why = "its value is not UTF-8 once percent-decoded".to_owned();
            return Err(What::Value(Some(name), why).into());
        };
        pairs.push((name, Text(value)));
    }
    T::deserialize(Members(pairs))
}

fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Reads a JSON object.
///
/// # Errors
/// [`Mistake`] when it is none, or as [`from_query`]. In a long one a value of the wrong form is told by its place.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Mistake> {
    let read = if json.len() > LOOKED_AT {
        serde_json::from_slice(json)
    } else {
        match serde_json::from_slice::<Object>(json) {
            Ok(object) => return from_object(object),
            Err(error) => Err(error),
        }
    };
    read.map_err(|error| Mistake {
        what: What::Value(None, error.to_string()),
        taken: taken_by::<T>(),
    })
}

/// Reads the members of a JSON object.
///
/// # Errors
/// [`Mistake`] as [`from_query`].
pub fn from_object<T: DeserializeOwned>(object: Object) -> Result<T, Mistake> {
    T::deserialize(Members(object.0))
}

/// The members that a struct which denies others may have.
fn taken_by<T: DeserializeOwned>() -> &'static [&'static str] {
    // No member is called so.
    let refused = from_object::<T>(Object(vec![(String::new(), Value::Null)]));
    refused.err().map_or(&[], |mistake| mistake.taken)
}

/// The members of a JSON object as they were written, also those that are there twice.
#[derive(Debug)]
pub struct Object(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A value of a member.
trait Given {
    fn give<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, String>;
}

impl Given for Value {
    fn give<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, String> {
        seed.deserialize(self).map_err(|error| error.to_string())
    }
}

impl Given for Text {
    fn give<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, String> {
        seed.deserialize(self).map_err(|error| error.to_string())
    }
}

struct Members<V>(Vec<(String, V)>);

impl<'de, V: Given> Deserializer<'de> for Members<V> {
    type Error = Mistake;

    fn deserialize_any<W: Visitor<'de>>(self, visitor: W) -> Result<W::Value, Mistake> {
        visitor.visit_map(Access {
            pairs: self.0.into_iter(),
            value: None,
        })
    }

    fn deserialize_struct<W: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: W,
    ) -> Result<W::Value, Mistake> {
        let read = self.deserialize_any(visitor);
        read.map_err(|mistake| Mistake {
            taken: fields,
            ..mistake
        })
    }

    forward_to_deserialize_any! {
        <W: Visitor<'de>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Access<V> {
    pairs: std::vec::IntoIter<(String, V)>,
    value: Option<(String, V)>,
}

impl<'de, V: Given> MapAccess<'de> for Access<V> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let Some((name, value)) = self.pairs.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(IntoDeserializer::<Mistake>::into_deserializer(
            name.as_str(),
        ))?;
        self.value = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let pair = self.value.take();
        let (name, value) = pair.ok_or_else(|| Mistake::custom("a value without a name"))?;
        let given = value.give(seed);
        given.map_err(|why| What::Value(Some(name), why).into())
    }
}

/// A value of a query.
struct Text(String);

impl Text {
    fn not(&self, expected: &str) -> TextError {
        let given: String = self.0.chars().take(REPEATED).collect();
        Error::custom(format_args!("it takes {expected}, not {given:?}"))
    }
}

impl<'de> Deserializer<'de> for Text {
    type Error = TextError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        match self.0.parse() {
            Ok(value) => visitor.visit_bool(value),
            Err(_) => Err(self.not("true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        match self.0.parse() {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => Err(self.not("a whole number below 2^64")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        from: u64,
        limit: Option<usize>,
        #[serde(default)]
        proof: bool,
        prefix: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    fn asked(query: &str) -> String {
        let read = from_query::<Page>(query);
        read.unwrap_err().told("parameter", "this request")
    }

    #[test]
    fn queries_are_read_as_forms_write_them() {
        let read: Page = from_query("from=7&limit=3&&prefix=a%20b+c%2B%C3%A9&proof=true").unwrap();
        assert_eq!((read.from, read.limit, read.proof), (7, Some(3), true));
        assert_eq!(read.prefix.as_deref(), Some("a b c+\u{e9}"));
        let least: Page = from_query("from=0").unwrap();
        assert_eq!(
            (least.limit, least.prefix, least.proof),
            (None, None, false)
        );
        from_query::<Nothing>("").unwrap();
    }

    #[test]
    fn mistakes_name_the_parameter_and_those_there_are() {
        let all = " (this request takes the parameters from, limit, proof and prefix)";
        for (query, told) in [
            (
                "from=1&limt=3",
                "the parameter \"limt\" is unknown, did you mean limit?",
            ),
            ("from=1&foo", "the parameter \"foo\" is unknown"),
            ("limit=3", "the parameter from is missing"),
            (
                "from=1&from=2",
                "the parameter from is there twice; give it once",
            ),
            (
                "from=1&limit=a",
                "the parameter limit: it takes a whole number below 2^64, not \"a\"",
            ),
            (
                "from=-1",
                "the parameter from: it takes a whole number below 2^64, not \"-1\"",
            ),
            (
                "from=",
                "the parameter from: it takes a whole number below 2^64, not \"\"",
            ),
            (
                "from=1&proof",
                "the parameter proof: it takes true or false, not \"\"",
            ),
        ] {
            assert_eq!(asked(query), format!("{told}{all}"));
        }
        let told = asked("prefix=%ff");
        assert!(
            told.starts_with("the parameter prefix: its value is not UTF-8"),
            "{told}"
        );
        let told = asked(&format!("{}=1", "x".repeat(10_000)));
        assert!(told.len() < 300, "{told}");
        let told = from_query::<Nothing>("a=1")
            .unwrap_err()
            .told("parameter", "this");
        assert_eq!(
            told,
            "the parameter \"a\" is unknown (this takes no parameter)"
        );
    }

    #[test]
    fn mistakes_in_json_name_the_member() {
        let all = " (it takes the members from, limit, proof and prefix)";
        for (json, told) in [
            (
                r#"{"from":1,"lmit":3}"#,
                "the member \"lmit\" is unknown, did you mean limit?",
            ),
            (r#"{"limit":3}"#, "the member from is missing"),
            (
                r#"{"from":1,"from":2}"#,
                "the member from is there twice; give it once",
            ),
            (
                r#"{"from":1,"prefix":12}"#,
                "the member prefix: invalid type: integer `12`, expected a string",
            ),
            (
                "[1]",
                "invalid type: sequence, expected an object at line 1 column 0",
            ),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{", "EOF while parsing an object at line 1 column 1"),
        ] {
            let told_now = from_json::<Page>(json.as_bytes()).unwrap_err().to_string();
            assert_eq!(told_now, format!("{told}{all}"), "{json}");
        }
        let long = format!(r#"{{"prefix":"{}","from":"x"}}"#, "x".repeat(LOOKED_AT));
        let told = from_json::<Page>(long.as_bytes()).unwrap_err().to_string();
        assert!(
            told.contains("expected u64 at line 1 column") && told.ends_with(all),
            "{told}"
        );
        let read: Page = from_json(br#"{"from":1,"proof":true}"#).unwrap();
        assert!(read.proof);
    }
}
