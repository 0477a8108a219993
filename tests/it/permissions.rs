//! Data directories, backups and files that the user who runs the program may not use: which one, and what to do, in one
//! line, and nothing is changed.
//!
//! Run by root, the program is started as another user; otherwise the tests take the rights from their own.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::folder::files_in;
use crate::harness::process::{Server, program};

/// Whom root starts the program as: nobody, on most machines.
const OTHER: u32 = 65_534;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder that everybody may look into, and how the program is started there by somebody who owns nothing of it.
struct Stage {
    folder: TempDir,
    is_root: bool,
}

impl Stage {
    /// `None`, with a word on standard output, where the other user cannot run the program at all.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
        let stage = Self { folder, is_root };
        if is_root {
            // Where it was built may be closed to others.
            let built = program(&[]).get_program().to_owned();
            fs::copy(built, stage.at("program")).unwrap();
        }
        let mut version = stage.command(&["--version"]);
        if version.output().is_ok_and(|output| output.status.success()) {
            return Some(stage);
        }
        println!("NOT TESTED: another user may not run programs in temporary folders here");
        None
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        if self.is_root {
            command = Command::new(self.at("program"));
            command.args(arguments).env_clear().uid(OTHER).gid(OTHER);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Takes from the one who runs the program the right to change a file or a folder and all in it.
    fn deny(&self, path: &Path) {
        each(path, &|path| {
            let (mode, closed) = if path.is_dir() {
                (0o755, 0o555)
            } else {
                (0o644, 0o444)
            };
            let mode = if self.is_root { mode } else { closed };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        });
    }

    /// Gives a folder and all in it to the one who runs the program.
    fn give(&self, path: &Path) {
        each(path, &|path| {
            // A key that others may read is a fault.
            let mode = if path.is_dir() { 0o755 } else { 0o600 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            if self.is_root {
                chown(path, Some(OTHER), Some(OTHER)).unwrap();
            }
        });
    }

    /// The one line that a command which must fail tells.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = finished(self.command(arguments), arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        let lines = told.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(lines.count(), 1, "{arguments:?}: {told}");
        assert!(told.contains("Permission denied"), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
        told
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // So that what is denied to ourselves can be removed.
        self.give(self.folder.path());
    }
}

/// Runs a command that ends by itself; a server that should not have started is killed.
fn finished(mut command: Command, arguments: &[&str]) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    for _ in 0..600 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("{arguments:?} goes on: {:?}", child.wait_with_output());
}

fn each(path: &Path, change: &dyn Fn(&Path)) {
    if path.is_dir() {
        // Open while it is walked through.
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            each(&entry.unwrap().path(), change);
        }
    }
    change(path);
}

/// All files below a folder with their bytes, whatever the folders' modes are.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    each(folder, &|_| {});
    files_in(folder)
}

fn used(dir: &Path) {
    let server = Server::start(dir);
    server.put("match/1", b"state");
    server.terminate();
}

#[test]
fn a_directory_of_another_user() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let (data, empty, backups) = (stage.at("data"), stage.at("empty"), stage.at("backups"));
    used(&data);
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&backups).unwrap();
    let before = files(&data);
    for path in [&data, &empty, &backups] {
        stage.deny(path);
    }
    let (data, below) = (text(&data), empty.join("new"));
    for arguments in [
        &["serve", "--data", data, "--listen", "127.0.0.1:0"][..],
        &["verify", "--data", data],
        &["verify", "--data", data, "--repair"],
        &["shards", "--data", data, "--count", "2"],
        &["backup", "--data", data, "--to", text(&backups)],
    ] {
        let told = stage.refused(arguments);
        assert!(told.contains(&format!("cannot use {data}")), "{told}");
        assert!(
            told.contains("run samestate as the user who owns the data directory"),
            "{told}"
        );
    }
    for dir in [&empty, &below] {
        let told = stage.refused(&["serve", "--data", text(dir), "--listen", "127.0.0.1:0"]);
        assert!(
            told.contains(&format!("cannot use {}", dir.display())),
            "{told}"
        );
    }
    assert!(files(Path::new(data)) == before);
    assert_eq!(files(&empty), BTreeMap::new());
    stage.give(Path::new(data));
    let output = finished(stage.command(&["verify", "--data", data]), &["verify"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn single_files_of_another_user() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let data = stage.at("data");
    used(&data);
    stage.give(&data);
    let serve = ["serve", "--data", text(&data), "--listen", "127.0.0.1:0"];
    for (path, bytes) in &files(&data) {
        // A directory whose place does not say that it is where it was would count as a copy.
        if path.ends_with("place") || bytes.is_empty() && !path.ends_with("lock") {
            continue;
        }
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        let told = stage.refused(&serve);
        assert!(
            told.contains(&format!("cannot use {}", path.display())),
            "{told}"
        );
        stage.give(&data);
    }
    let output = finished(
        stage.command(&["verify", "--data", text(&data)]),
        &["verify"],
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn backups_and_restores_where_nobody_may_write() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let (data, backups, closed) = (stage.at("data"), stage.at("backups"), stage.at("closed"));
    used(&data);
    stage.give(&data);
    fs::create_dir(&backups).unwrap();
    stage.give(&backups);
    fs::create_dir(&closed).unwrap();
    stage.deny(&closed);
    let backup = |to: &Path| ["backup", "--data", text(&data), "--to", text(to)].map(str::to_owned);
    let to_closed = backup(&closed);
    let told = stage.refused(&to_closed.each_ref().map(String::as_str));
    assert!(told.contains(text(&closed)), "{told}");
    let made = backup(&backups);
    let output = finished(
        stage.command(&made.each_ref().map(String::as_str)),
        &["backup"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let new = closed.join("new");
    let told = stage.refused(&["restore", "--from", text(&backups), "--data", text(&new)]);
    assert!(told.contains(text(&closed)), "{told}");
    // Reading takes no right to write.
    stage.deny(&backups);
    let check = ["restore", "--from", text(&backups), "--check"];
    let output = finished(stage.command(&check), &check);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
