//! Reads the tree and tells code from comments, strings and unit tests, as far as the rules need.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A path of names below the crate root. A crate root itself is `lib` or `main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module(Vec<String>);

impl Module {
    /// The first name: the layer.
    pub fn layer(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// How many names the path has.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// The path without its last name.
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        (!above.is_empty()).then(|| Self(above.to_vec()))
    }

    /// The path itself, then its parents from the nearest up.
    pub fn self_and_parents(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }

    /// True for the module named `home` and everything below it.
    pub fn is_within(&self, home: &str) -> bool {
        self.self_and_parents().any(|m| m.to_string() == home)
    }

    fn of_file(path: &str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let names = stem.strip_suffix("/mod").unwrap_or(stem).split('/');
        Self(names.map(str::to_owned).collect())
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("::"))
    }
}

/// One parsed file.
pub struct Source {
    /// Where it is, for messages.
    pub path: String,
    /// What it is called in the program.
    pub module: Module,
    /// As it is on disk.
    pub text: String,
    /// Without comments and the contents of strings.
    pub whole: String,
    /// As `whole`, without the unit tests at the end.
    pub code: String,
    paths: BTreeSet<Vec<String>>,
}

impl Source {
    /// Parses a file whose `path` is given relative to `src`.
    pub fn parse(path: &str, text: &str) -> Self {
        let whole = without_comments_and_strings(text);
        let end = whole.find("#[cfg(test)]\nmod ").unwrap_or(whole.len());
        let code = whole[..end].to_owned();
        Self {
            path: path.to_owned(),
            module: Module::of_file(path),
            text: text.to_owned(),
            paths: paths_in(&code),
            whole,
            code,
        }
    }

    /// What the file takes from its own crate, whether by `use` or in the middle of code.
    pub fn crate_imports(&self) -> Vec<Module> {
        self.paths
            .iter()
            .filter(|path| path[0] == "crate" && path.len() > 1)
            .map(|path| Module(path[1..].to_vec()))
            .collect()
    }

    /// True when a path in the file begins with `name`.
    pub fn names(&self, name: &str) -> bool {
        let wanted: Vec<&str> = name.split("::").collect();
        self.paths
            .iter()
            .any(|path| path.len() >= wanted.len() && path.iter().zip(&wanted).all(|(a, b)| a == b))
    }

    /// True when the file, tests included, calls the macro `name` (given with its `!`).
    pub fn calls(&self, name: &str) -> bool {
        let inside_a_word = |c: char| c.is_alphanumeric() || c == '_';
        self.whole
            .match_indices(name)
            .any(|(at, _)| !self.whole[..at].ends_with(inside_a_word))
    }
}

/// The files of the library and the program.
pub fn production_sources() -> Vec<Source> {
    let sources = sources_below("src");
    assert!(!sources.is_empty(), "no sources found");
    sources
}

/// Every Rust file that is built: library, program, tests, benchmarks, examples.
pub fn rust_sources() -> Vec<Source> {
    ["src", "tests", "benches", "examples"]
        .into_iter()
        .flat_map(sources_below)
        .collect()
}

/// Path and content of every text file that belongs to the project.
pub fn text_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built_or_private = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kept = [".ci", ".github", ".editorconfig", ".gitignore"];
        name == "target" || name.starts_with('.') && !kept.contains(&name.as_ref())
    };
    files_below(root, &built_or_private)
        .into_iter()
        .filter_map(|path| {
            // What is not UTF-8 is a binary fixture.
            let text = fs::read_to_string(&path).ok()?;
            Some((shown(root, &path), text))
        })
        .collect()
}

fn sources_below(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    files_below(&root, &|_| false)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let mut source = Source::parse(&shown(&root, &path), &text);
            source.path = format!("{folder}/{}", source.path);
            source
        })
        .collect()
}

fn files_below(root: &Path, skip: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut waiting = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            match path {
                path if skip(&path) => {}
                path if path.is_dir() => waiting.push(path),
                path => files.push(path),
            }
        }
    }
    files.sort();
    files
}

fn shown(root: &Path, path: &Path) -> String {
    let names = path.strip_prefix(root).unwrap().iter();
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    names.join("/")
}

/// Every path of two names or more, `{...}` groups written out.
fn paths_in(code: &str) -> BTreeSet<Vec<String>> {
    let tokens = tokens_of(code);
    let mut paths = BTreeSet::new();
    for at in 1..tokens.len() {
        let begins = tokens[at] == "::" && (at < 2 || tokens[at - 2] != "::");
        if begins && is_name(&tokens[at - 1]) {
            expand(&tokens, at - 1, &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Adds the path or group at `at` to `paths` and returns where it ends.
fn expand(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    paths: &mut BTreeSet<Vec<String>>,
) -> usize {
    let depth = prefix.len();
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                at = expand(tokens, at, prefix, paths);
                at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
            }
            prefix.truncate(depth);
            return at + 1;
        }
        prefix.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    if tokens.get(at).is_some_and(|token| token == "as") {
        at += 2;
    }
    paths.insert(prefix.clone());
    prefix.truncate(depth);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens_of(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = String::from(c);
            while let Some(next) = chars.next_if(|n| n.is_alphanumeric() || *n == '_') {
                word.push(next);
            }
            tokens.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            tokens.push("::".into());
        } else if !c.is_whitespace() {
            tokens.push(c.into());
        }
    }
    tokens
}

/// The same lines with comments gone and strings and characters empty.
fn without_comments_and_strings(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = comment_length(rest)
            .or_else(|| raw_string_length(rest, &kept))
            .or_else(|| quoted_length(rest));
        let (dropped, after) = rest.split_at(length.unwrap_or(c.len_utf8()));
        if length.is_none() {
            kept.push(c);
        } else {
            // Keeps line counts right; a literal leaves quotes, so that words do not run together.
            kept.push_str(if dropped.starts_with('/') {
                " "
            } else {
                "\"\""
            });
            kept.extend(dropped.chars().filter(|c| *c == '\n'));
        }
        rest = after;
    }
    kept
}

fn comment_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// `r"..."` and `r#"..."#`, but not the end of a word such as `for`.
fn raw_string_length(rest: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let after_r = rest.strip_prefix('r')?;
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let body = after_r[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).unwrap_or(body.len());
    Some((2 + hashes + end + close.len()).min(rest.len()))
}

/// A string, or a character (which a lifetime is not).
fn quoted_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' {
        let mut chars = rest.chars().skip(1);
        let first = chars.next()?;
        if first != '\\' && chars.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

#[test]
fn comments_and_strings_are_told_from_code() {
    for (text, code) in [
        ("a // b\nc", "a  \nc"),
        ("a /* b /* c */ d */ e", "a   e"),
        (r#"f("x // y", 'a', '\'', '"')"#, r#"f("", "", "", "")"#),
        (r##"r#"a "b" // c"# d"##, r#""" d"#),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("for\"x\"", "for\"\""),
    ] {
        assert_eq!(without_comments_and_strings(text), code, "{text}");
    }
}

#[test]
fn groups_of_imports_are_written_out() {
    let paths = paths_in("use crate::{a::{B, C as D}, e::F}; fn f() -> g::H {}");
    let shown: BTreeSet<String> = paths.iter().map(|path| path.join("::")).collect();
    for wanted in ["crate::a::B", "crate::a::C", "crate::e::F", "g::H"] {
        assert!(shown.contains(wanted), "{wanted} in {shown:?}");
    }
}
