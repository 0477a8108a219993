//! Rules about the source tree itself: which layer may import which, which crate belongs where,
//! and what every file has to look like.
//!
//! A rule is a function from parsed sources to the list of faults, one line each, so that it can
//! be shown to catch a bad example as well as run over the real tree.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use samestate::store::migrate::SCHEMA_VERSION;
use samestate::wire::version::PROTOCOL;
use source::{Module, Source, production_sources, rust_sources, text_files};

/// Layers from the bottom up. Layers of one rank are siblings that do not know each other.
const RANKS: &[(u32, &[&str])] = &[
    (0, &["types"]),
    (1, &["clock", "merkle", "delta", "bloom", "sketch", "roots"]),
    (2, &["reconcile"]),
    (3, &["wire", "store"]),
    (4, &["replica"]),
    (5, &["sync", "backup"]),
    (6, &["runtime"]),
    (7, &["peer", "http"]),
    (8, &["config"]),
    (9, &["server"]),
    (10, &["cli"]),
];

/// The crate roots: they name the layers and start the program, and stand above all of them.
const ROOTS: &[&str] = &["lib", "main"];

/// What may be named only below the listed modules: a path, or a single word.
const CONFINED: &[(&str, &[&str])] = &[
    ("redb", &["store"]),
    ("ed25519_dalek", &["roots"]),
    ("fastcdc", &["delta"]),
    ("zstd", &["delta"]),
    ("bincode", &["types::binary"]),
    ("axum", &["http", "server"]),
    ("reqwest", &["peer", "cli"]),
    ("hyper", &["peer"]),
    ("hyper_util", &["peer"]),
    ("http_body_util", &["peer"]),
    ("indicatif", &["cli"]),
    ("httparse", &["cli"]),
    (
        "tokio",
        &["runtime", "peer", "http", "config", "server", "cli", "main"],
    ),
    ("std::time::SystemTime", &["clock"]),
    ("std::time::UNIX_EPOCH", &["clock"]),
    ("std::env", &["config", "main"]),
];

/// Macros that mark unfinished work.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Lines of code in a file, its unit tests not counted.
const CODE_LINES_MAX: usize = 500;

/// Where people keep their files. Cut in two, because this file is checked as well.
const HOMES: &[&str] = &[concat!("/ho", "me/"), concat!("/Us", "ers/")];

#[test]
fn every_module_belongs_to_a_layer() {
    assert_none(&modules_without_rank(&production_sources()));
}

#[test]
fn imports_go_down_the_layers() {
    assert_none(&imports_against_the_layers(&production_sources()));
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    assert_none(&import_cycles(&production_sources()));
}

#[test]
fn imports_name_the_defining_file() {
    assert_none(&indirect_imports(&production_sources()));
}

#[test]
fn crates_stay_in_their_layer() {
    assert_none(&crates_out_of_place(&production_sources()));
}

#[test]
fn files_are_introduced_short_and_finished() {
    assert_none(&untidy_files(&rust_sources()));
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let roots = machine_roots(Path::new(env!("CARGO_MANIFEST_DIR")), home);
    let faults: Vec<String> = text_files()
        .into_iter()
        .flat_map(|(path, text)| machine_paths(&roots, &path, &text))
        .collect();
    assert_none(&faults);
}

#[test]
fn formats_are_described_in_the_version_that_is_written() {
    let said = [
        (
            "docs/reference/file-format.md",
            format!("Schema version: {SCHEMA_VERSION}.\n"),
        ),
        ("docs/protocol.md", format!("\nVersion {PROTOCOL}. ")),
    ];
    let texts: BTreeMap<String, String> = text_files().into_iter().collect();
    let missing = said
        .iter()
        .filter(|(path, said)| !texts[*path].contains(said));
    let faults: Vec<String> = missing
        .map(|(path, said)| format!("{path} does not say {:?}", said.trim()))
        .collect();
    assert_none(&faults);
}

/// Beginnings of paths that exist on one developer's machine only: people's homes, and the folder
/// that this copy of the project stands in.
fn machine_roots(checkout: &Path, home: Option<PathBuf>) -> BTreeSet<String> {
    let here = checkout
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(home);
    let here = here.map(|root| format!("{}/", root.display()));
    // Every path begins with the root of the file system.
    let here = here.filter(|root| !root.trim_matches('/').is_empty());
    here.chain(HOMES.iter().map(|home| (*home).into()))
        .collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn rank_of(module: &Module) -> Option<u32> {
    let layer = module.layer();
    RANKS
        .iter()
        .find(|(_, layers)| layers.contains(&layer))
        .map(|(rank, _)| *rank)
}

fn modules_without_rank(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| !ROOTS.contains(&source.module.layer()))
        .filter(|source| rank_of(&source.module).is_none())
        .map(|source| {
            let layer = source.module.layer();
            format!("{}: give the layer `{layer}` a rank", source.path)
        })
        .collect()
}

fn imports_against_the_layers(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let here = source.module.layer();
        let Some(rank) = rank_of(&source.module) else {
            continue;
        };
        for import in source.crate_imports() {
            let there = import.layer();
            match rank_of(&import) {
                Some(other) if there != here && other >= rank => faults.push(format!(
                    "{}: `{here}` (rank {rank}) must not import `{there}` (rank {other})",
                    source.path
                )),
                _ => {}
            }
        }
    }
    faults
}

/// `crate::layer::Item` where `layer` has files of its own hides which file is meant, and with it
/// cycles inside the layer.
fn indirect_imports(sources: &[Source]) -> Vec<String> {
    let files: BTreeSet<&Module> = sources.iter().map(|source| &source.module).collect();
    let folders: BTreeSet<Module> = files.iter().filter_map(|file| file.parent()).collect();
    let mut faults = Vec::new();
    for source in sources.iter().filter(|s| s.module.depth() > 1) {
        for import in source.crate_imports() {
            let folder = import.parent();
            let through_folder = folder.is_some_and(|folder| folders.contains(&folder));
            if through_folder && !files.contains(&import) {
                faults.push(format!(
                    "{}: name the file that defines `{import}`",
                    source.path
                ));
            }
        }
    }
    faults
}

fn crates_out_of_place(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for (name, allowed) in CONFINED {
            let at_home = allowed.iter().any(|home| source.module.is_within(home));
            if !at_home && source.names(name) {
                let allowed = allowed.join(", ");
                faults.push(format!(
                    "{}: `{name}` belongs to {allowed} only",
                    source.path
                ));
            }
        }
    }
    faults
}

fn untidy_files(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let mut fault = |what: String| faults.push(format!("{}: {what}", source.path));
        if !source.text.starts_with("//! ") {
            fault("open the file with a `//!` line that says what it is for".into());
        }
        let lines = source.code.lines().count();
        if lines >= CODE_LINES_MAX {
            fault(format!("{lines} lines of code: split it by meaning"));
        }
        if source.code.contains("super::") {
            fault("write paths from `crate::`".into());
        }
        if source.whole.contains("#[allow(") || source.whole.contains("#![allow(") {
            fault("mend what the lint found instead of allowing it".into());
        }
        for name in UNFINISHED {
            if source.calls(name) {
                fault(format!("`{name}` marks unfinished work"));
            }
        }
    }
    faults
}

fn machine_paths(roots: &BTreeSet<String>, path: &str, text: &str) -> Vec<String> {
    // Inside a longer path or a URL the same letters mean something else.
    let starts_a_path = |before: Option<char>| {
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | '/'))
    };
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for root in roots {
            let found = line
                .match_indices(root)
                .any(|(at, _)| starts_a_path(line[..at].chars().next_back()));
            if found {
                faults.push(format!(
                    "{path}:{}: `{root}` exists on one machine only",
                    number + 1
                ));
            }
        }
    }
    faults
}

/// Follows imports from file to file and reports each circle once, by its first file.
fn import_cycles(sources: &[Source]) -> Vec<String> {
    let files: BTreeSet<&Module> = sources.iter().map(|source| &source.module).collect();
    let graph: BTreeMap<&Module, BTreeSet<&Module>> = sources
        .iter()
        .map(|source| {
            let targets = source
                .crate_imports()
                .iter()
                .filter_map(|import| {
                    import
                        .self_and_parents()
                        .find_map(|m| files.get(&m).copied())
                })
                .filter(|target| *target != &source.module)
                .collect();
            (&source.module, targets)
        })
        .collect();
    let mut done = BTreeSet::new();
    graph
        .keys()
        .filter_map(|start| cycle_from(start, &graph, &mut Vec::new(), &mut done))
        .map(|cycle| format!("import cycle: {}", cycle.join(" -> ")))
        .collect()
}

fn cycle_from<'a>(
    file: &'a Module,
    graph: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
    trail: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
) -> Option<Vec<String>> {
    if let Some(start) = trail.iter().position(|seen| *seen == file) {
        let circle = trail[start..].iter().chain([&file]);
        return Some(circle.map(ToString::to_string).collect());
    }
    if !done.insert(file) {
        return None;
    }
    trail.push(file);
    let cycle = graph
        .get(file)
        .into_iter()
        .flatten()
        .find_map(|next| cycle_from(next, graph, trail, done));
    trail.pop();
    cycle
}

/// A tree of one line files: `(path below src, code)`.
fn example(files: &[(&str, &str)]) -> Vec<Source> {
    files
        .iter()
        .map(|(path, code)| Source::parse(path, &format!("//! Example.\n{code}\n")))
        .collect()
}

#[test]
fn the_rules_find_imports_against_the_layers() {
    let upward = example(&[("types/id.rs", "use crate::store::open::Store;")]);
    let sibling = example(&[("peer/client.rs", "use crate::{http::problem, types::id};")]);
    let downward = example(&[("store/open.rs", "fn f() -> crate::types::id::GameId {}")]);
    let only_in_tests = example(&[(
        "types/id.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::store::open::Store;\n}",
    )]);
    assert_eq!(imports_against_the_layers(&upward).len(), 1);
    assert_eq!(imports_against_the_layers(&sibling).len(), 1);
    assert_eq!(imports_against_the_layers(&downward).len(), 0);
    assert_eq!(imports_against_the_layers(&only_in_tests).len(), 0);
    assert_eq!(modules_without_rank(&example(&[("util.rs", "")])).len(), 1);
}

#[test]
fn the_rules_find_cycles_and_imports_through_a_folder() {
    let circle = example(&[
        ("store/a.rs", "use crate::store::b::B;"),
        ("store/b.rs", "use crate::store::c::{C, D as E};"),
        ("store/c.rs", "use crate::store::a::A;"),
        ("wire/d.rs", "use crate::store::a::A;"),
    ]);
    assert_eq!(
        import_cycles(&circle),
        ["import cycle: store::a -> store::b -> store::c -> store::a"]
    );
    let through = example(&[
        ("store/mod.rs", "pub struct Shared;"),
        ("store/a.rs", "use crate::store::Shared;"),
    ]);
    assert_eq!(indirect_imports(&through).len(), 1);
}

#[test]
fn the_rules_find_crates_out_of_place() {
    for (path, code, faults) in [
        ("merkle/node.rs", "use redb::Database;", 1),
        ("store/open.rs", "use redb::Database;", 0),
        ("types/id.rs", "fn f() { let _ = bincode::config(); }", 1),
        ("types/binary.rs", "use bincode::serde;", 0),
        ("store/open.rs", "use std::{env, fs};", 1),
        ("store/open.rs", "use std::time::{Duration, SystemTime};", 1),
        (
            "store/open.rs",
            "// redb::x\nconst T: &str = \"tokio::x\";",
            0,
        ),
        ("replica/apply.rs", "#[tokio::main]\nasync fn f() {}", 1),
    ] {
        let found = crates_out_of_place(&example(&[(path, code)]));
        assert_eq!(found.len(), faults, "{path}: {code}: {found:?}");
    }
}

#[test]
fn the_rules_find_untidy_files() {
    let long = "const X: u8 = 0;\n".repeat(CODE_LINES_MAX);
    for (code, faults) in [
        ("fn f() { todo!() }", 1),
        ("const T: &str = \"todo!\"; // dbg!", 0),
        ("use super::x;", 1),
        ("#[cfg(test)]\nmod tests {\n    use super::*;\n}", 0),
        ("#[allow(dead_code)]\nfn f() {}", 1),
        (&long, 1),
    ] {
        let found = untidy_files(&example(&[("types/id.rs", code)]));
        assert_eq!(found.len(), faults, "{found:?}");
    }
    assert_eq!(
        untidy_files(&[Source::parse("main.rs", "fn main() {}")]).len(),
        1
    );
}

#[test]
fn the_rules_find_paths_of_one_machine() {
    let roots = machine_roots(Path::new("/a/b/project"), Some("/c".into()));
    assert!(["/a/b/", "/c/"].iter().all(|root| roots.contains(*root)));
    let at_the_top = machine_roots(Path::new("/project"), Some("/".into()));
    assert_eq!(at_the_top.len(), HOMES.len());
    let (home, roots) = (HOMES[0], machine_roots(Path::new("/"), None));
    let faults = |text: String| machine_paths(&roots, "docs/x.md", &text).len();
    assert_eq!(faults(format!("cd {home}main")), 1);
    assert_eq!(faults(format!("\"{home}main\"")), 1);
    assert_eq!(faults(format!("http://host{home}main")), 0);
    assert_eq!(faults("net".to_owned() + home), 0);
}
