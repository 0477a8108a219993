//! Copies of data directories: put back, put beside, written over, and snapshots that nothing on
//! the machine tells from the original. Whatever is written survives, and all replicas end equal.

mod forged;
mod lies;
mod put_back;
mod wanderings;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use samestate::store::place::{Found, Place};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::http::{send, wait_until};
use crate::harness::process::Server;

/// A place for data directories that are copied and replaced.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, name: &str) -> Server {
        Server::start(&self.at(name))
    }

    /// Copies a directory to where there is none.
    fn copy(&self, from: &str, to: &str) {
        fs::create_dir(self.at(to)).unwrap();
        copy_over(&self.at(from), &self.at(to));
    }

    /// Puts a copy in the place of a directory: all files are new.
    fn replace(&self, name: &str, by: &str) {
        fs::remove_dir_all(self.at(name)).unwrap();
        self.copy(by, name);
    }
}

/// Copies all files of a directory; those that are there are written over.
fn copy_over(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_over(&path, &target);
        } else {
            fs::write(&target, fs::read(&path).unwrap()).unwrap();
        }
    }
}

/// Makes a copy look like the original, as in a snapshot of the whole machine.
fn forge(dir: &Path) {
    match Place::find(dir).unwrap() {
        Found::Elsewhere(place) | Found::Same(place) => place.write(dir).unwrap(),
        Found::Nothing => panic!("{} was never opened", dir.display()),
    }
}

/// What a replica holds: the bytes of all current versions of each state.
fn contents(server: &Server) -> BTreeMap<String, Vec<String>> {
    let get = |path: &str| send(Method::GET, &server.at(path), &[], Vec::new()).json();
    let (states, conflicts) = (get("states?limit=1000"), get("conflicts?limit=1000"));
    let mut contents = BTreeMap::new();
    for state in states["states"].as_array().unwrap() {
        let id = state["id"].as_str().unwrap().to_owned();
        let shown = String::from_utf8(server.get(&id).body).unwrap();
        contents.insert(id, vec![shown]);
    }
    for conflict in conflicts["conflicts"].as_array().unwrap() {
        let id = conflict["id"].as_str().unwrap();
        let versions = conflict["versions"].as_array().unwrap().iter();
        let mut versions: Vec<String> = versions.map(|v| bytes_of(server, id, v)).collect();
        versions.sort();
        versions.dedup();
        contents.insert(id.to_owned(), versions);
    }
    contents
}

fn bytes_of(server: &Server, id: &str, version: &Value) -> String {
    let hash = version["content_hash"].as_str().unwrap();
    let url = server.at(&format!("states/{id}?version={hash}"));
    let reply = send(Method::GET, &url, &[], Vec::new());
    assert_eq!(reply.status, 200, "{reply:?}");
    String::from_utf8(reply.body).unwrap()
}

/// Waits until all have the same root, and returns what they hold.
fn settle(servers: &[&Server]) -> BTreeMap<String, Vec<String>> {
    wait_until("the roots are equal", || {
        let root = servers[0].root();
        servers[1..].iter().all(|server| server.root() == root)
    });
    let held = contents(servers[0]);
    for server in &servers[1..] {
        assert_eq!(contents(server), held);
    }
    held
}

/// Replica id and epoch, as they are now.
fn identity(server: &Server) -> (String, String) {
    let root = send(Method::GET, &server.at("root"), &[], Vec::new()).json();
    let text = |name: &str| root[name].as_str().unwrap().to_owned();
    (text("replica"), text("epoch"))
}

fn held(contents: &BTreeMap<String, Vec<String>>, id: &str) -> Vec<String> {
    contents.get(id).cloned().unwrap_or_default()
}
