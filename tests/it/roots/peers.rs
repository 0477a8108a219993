//! Three replicas of which the operator of one edits its log, or signs two heads for one position:
//! its peers name it, and only it.

use std::path::{Path, PathBuf};

use reqwest::Method;
use samestate::roots::head::SignedHead;
use samestate::types::id::Namespace;
use samestate::wire::roots::HeadBody;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, free_port, samestate};
use crate::roots::edits::{edit, edit_rows};

struct Site {
    server: Server,
    listen: String,
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let server = Server::start_with(dir.path(), &listen, &[]);
        Self {
            server,
            listen,
            dir,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("namespaces/default.redb")
    }

    /// Stops it, lets its operator at its file, and starts it again.
    fn tampered(self, tamper: impl FnOnce(&Path)) -> Self {
        let file = self.file();
        let (status, told, _) = self.server.terminate();
        assert!(status.success(), "{told}");
        tamper(&file);
        let server = Server::start_with(self.dir.path(), &self.listen, &[]);
        Self { server, ..self }
    }

    fn agreement(&self) -> Value {
        let reply = send(Method::GET, &self.server.at("agreement"), &[], Vec::new());
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    /// The newest root that it knows another one to hold.
    fn knows(&self, other: &Self) -> Option<String> {
        let agreement = self.agreement();
        let standings = agreement["replicas"].as_array().unwrap();
        let standing = standings
            .iter()
            .find(|standing| standing["replica"] == other.server.replica)?;
        Some(standing["root"].as_str().unwrap().to_owned())
    }

    fn accusations(&self) -> Vec<Value> {
        self.agreement()["accusations"].as_array().unwrap().clone()
    }

    fn accuses(&self, other: &Self, fault: &str) -> bool {
        self.accusations()
            .iter()
            .any(|held| held["replica"] == other.server.replica && held["fault"] == fault)
    }
}

fn head(value: &Value) -> SignedHead {
    let body: HeadBody = serde_json::from_value(value.clone()).unwrap();
    let head = SignedHead::try_from(&body).unwrap();
    assert!(head.is_signed(&Namespace::default_namespace()));
    head
}

/// Three replicas, of which all know that the third one holds the same.
fn three() -> (Site, Site, Site) {
    let (a, b, c) = (Site::new(), Site::new(), Site::new());
    for (one, others) in [(&a, [("b", &b), ("c", &c)]), (&b, [("a", &a), ("c", &c)])] {
        for (name, other) in others {
            one.server.add_peer(name, &other.server.url);
        }
    }
    for round in 0..3 {
        c.server.put(&format!("match/{round}"), b"bytes");
        let root = c.server.root();
        for site in [&a, &b] {
            let knows = || site.knows(&c).is_some_and(|known| known == root);
            wait_until("the head of c is seen", knows);
        }
    }
    (a, b, c)
}

#[test]
fn replicas_agree_by_their_signed_heads_and_see_who_lags() {
    let (a, b, c) = three();
    wait_until("all agree", || {
        [&a, &b].iter().all(|site| {
            let agreement = site.agreement();
            let count = agreement["replicas"].as_array().unwrap().len();
            agreement["agreed"] == true && count == 3
        })
    });
    for site in [&a, &b, &c] {
        assert_eq!(site.accusations(), Vec::<Value>::new());
    }
    let Site {
        server,
        dir,
        listen,
        ..
    } = c;
    let name = server.replica.clone();
    drop(server.terminate());
    a.server.put("match/9", b"while c is away");
    wait_until("c lags", || {
        let agreement = a.agreement();
        let standings = agreement["replicas"].as_array().unwrap().clone();
        let standing = standings.iter().find(|s| s["replica"] == name).unwrap();
        standing["agrees"] == false && standing["lag"]["changes"] == 1
    });
    // Being started again is nothing to be named for.
    let server = Server::start_with(dir.path(), &listen, &[]);
    let c = Site {
        server,
        listen,
        dir,
    };
    wait_until("c is back", || a.knows(&c) == Some(a.server.root()));
    assert_eq!(a.accusations(), Vec::<Value>::new());
}

#[test]
fn two_heads_for_one_position_are_kept_as_evidence() {
    let (a, b, c) = three();
    let c = c.tampered(|file| edit(file, |log| log.last_mut().unwrap().time += 1));
    for site in [&a, &b] {
        wait_until("c is named", || site.accuses(&c, "two_heads"));
    }
    wait_until("it is shown", || {
        a.server.peer("c")["accused"] == serde_json::json!(["two_heads"])
    });
    assert!(a.server.peer("c")["penalties"].as_f64().unwrap() > 0.0);
    // Whoever is shown the two needs nobody's word.
    let held = a.accusations();
    let (first, second) = (head(&held[0]["first"]), head(&held[0]["second"]));
    assert!(first.contradicts(&second));
    assert_eq!(first.head.size, second.head.size);
    let a = a.tampered(|_| ());
    assert_eq!(a.accusations(), held, "evidence outlives a start");
    for site in [&a, &b] {
        let mut held = site.accusations().into_iter();
        assert!(held.all(|held| held["replica"] == c.server.replica));
    }
}

#[test]
fn a_log_that_was_edited_in_its_past_is_noticed_when_it_goes_on() {
    let (a, b, c) = three();
    let c = c.tampered(|file| edit(file, |log| log[1].root.0[0] ^= 1));
    for site in [&a, &b] {
        // Of the same size it is another head.
        wait_until("c is named", || site.accuses(&c, "two_heads"));
    }
    c.server.put("match/later", b"bytes");
    for site in [&a, &b] {
        wait_until("c cannot show it", || site.accuses(&c, "rewritten"));
    }
}

#[test]
fn heads_that_were_shown_to_different_peers_are_brought_together() {
    let (a, b, c) = (Site::new(), Site::new(), Site::new());
    a.server.add_peer("c", &c.server.url);
    for id in ["match/1", "match/2"] {
        c.server.put(id, b"bytes");
        wait_until("a sees c", || a.knows(&c) == Some(c.server.root()));
    }
    let root = c.server.root();
    a.server.remove_peer("c");
    let c = c.tampered(|file| edit(file, |log| log.last_mut().unwrap().seq += 1));
    b.server.add_peer("c", &c.server.url);
    wait_until("b sees c", || {
        b.knows(&c).is_some_and(|known| known == root)
    });
    assert_eq!(b.accusations(), Vec::<Value>::new());
    a.server.add_peer("b", &b.server.url);
    wait_until("a names c", || a.accuses(&c, "two_heads"));
}

#[test]
fn a_log_that_begins_anew_and_a_key_that_is_new_are_told() {
    let (a, b, c) = three();
    let dir = c.dir.path().to_str().unwrap().to_owned();
    let c = c.tampered(|file| {
        // Its entries do not follow from each other any more, so a repair cannot keep them.
        edit_rows(file, |rows| drop(rows.remove(&(0, 1)).unwrap()));
        let repaired = samestate(&["verify", "--data", &dir, "--repair", "--json"]);
        let told: Value = serde_json::from_slice(&repaired.stdout).unwrap();
        let repair = &told["namespaces"][0]["repair"];
        assert_eq!(repair["new_root_log"], true, "{told}");
        assert_eq!(repair["new_epoch"], false, "{told}");
    });
    c.server.put("match/after", b"repaired");
    for site in [&a, &b] {
        wait_until("the new log is told", || site.accuses(&c, "begun_anew"));
    }
    let c = c.tampered(|_| std::fs::remove_file(Path::new(&dir).join("key")).unwrap());
    for site in [&a, &b] {
        wait_until("the new key is told", || site.accuses(&c, "new_key"));
        let faults = site
            .accusations()
            .into_iter()
            .map(|held| held["fault"].clone());
        assert!(
            faults
                .into_iter()
                .all(|fault| fault == "begun_anew" || fault == "new_key")
        );
    }
    // It is still one replica, by the head of its new key.
    wait_until("all agree again", || {
        let agreement = a.agreement();
        let count = agreement["replicas"].as_array().unwrap().len();
        agreement["agreed"] == true && count == 3
    });
    assert_eq!(
        a.server.peer("c")["accused"],
        serde_json::json!(["begun_anew", "new_key"])
    );
}

#[test]
fn a_restored_replica_signs_a_log_of_its_own() {
    let (a, b) = (Site::new(), Site::new());
    a.server.add_peer("b", &b.server.url);
    b.server.put("match/1", b"bytes");
    wait_until("b is seen", || {
        a.knows(&b).is_some_and(|root| root == b.server.root())
    });
    let folder = tempfile::tempdir().unwrap();
    let (to, new) = (folder.path().join("to"), folder.path().join("new"));
    let (to, new) = (to.to_str().unwrap(), new.to_str().unwrap());
    let file = b.dir.path().to_str().unwrap().to_owned();
    let b = b.tampered(|_| {
        let saved = samestate(&["backup", "--to", to, "--data", &file]);
        assert!(saved.status.success(), "{saved:?}");
    });
    let restored = samestate(&["restore", "--from", to, "--data", new]);
    assert!(restored.status.success(), "{restored:?}");
    let key = |dir: &str| std::fs::read_to_string(Path::new(dir).join("key")).unwrap();
    assert_ne!(key(new), key(&file));
    let server = Server::start(Path::new(new));
    let root = b.server.root();
    assert_eq!(server.root(), root);
    a.server.add_peer("restored", &server.url);
    // It says of itself only that it held the root from now on.
    wait_until("the restored one is seen", || {
        let agreement = a.agreement();
        let standings = agreement["replicas"].as_array().unwrap();
        let own = standings
            .iter()
            .find(|own| own["replica"] == server.replica);
        own.is_some_and(|own| own["root"] == root)
    });
    let roots = send(Method::GET, &server.at("roots"), &[], Vec::new()).json();
    assert_eq!(roots["head"]["size"], 1, "{roots}");
    assert_eq!(a.accusations(), Vec::<Value>::new());
}
