//! Copies that are noticed when they are started, before any write.

use std::fs;

use reqwest::Method;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::types::lineage::OPENINGS_KEPT;

use crate::copies::{Ground, contents, copy_over, held, identity, settle};
use crate::harness::http::send;
use crate::harness::process::{Server, samestate, succeed_json};

/// A replica `a` with a backup, that went on and was met by a peer since, and is stopped again.
fn backed_up() -> (Ground, Server, (String, String)) {
    let ground = Ground::new();
    let peer = ground.start("peer");
    let a = ground.start("a");
    a.add_peer("peer", &peer.url);
    for id in ["kept", "lost", "both"] {
        a.put(id, b"before the backup");
    }
    settle(&[&a, &peer]);
    a.terminate();
    ground.copy("a", "backup");
    let a = ground.start("a");
    a.add_peer("peer", &peer.url);
    for n in 0..5 {
        a.put("lost", format!("{n} behind the backup").as_bytes());
    }
    a.put("both", b"behind the backup");
    a.put("new", b"behind the backup");
    settle(&[&a, &peer]);
    let before = identity(&a);
    a.terminate();
    (ground, peer, before)
}

/// Writes after the restore, meets the peer, and sees that nothing is lost.
fn goes_on(ground: &Ground, peer: &Server, before: &(String, String)) {
    let a = ground.start("a");
    let now = identity(&a);
    assert!(now.0 != before.0 && now.1 != before.1, "{now:?}");
    assert_eq!(contents(&a).len(), 3, "as it was backed up");
    for n in 0..9 {
        a.put("both", format!("{n} after the restore").as_bytes());
    }
    a.put("mine", b"after the restore");
    a.add_peer("peer", &peer.url);
    let contents = settle(&[&a, peer]);
    assert_eq!(held(&contents, "kept"), ["before the backup"]);
    assert_eq!(held(&contents, "lost"), ["4 behind the backup"]);
    assert_eq!(held(&contents, "new"), ["behind the backup"]);
    assert_eq!(held(&contents, "mine"), ["after the restore"]);
    let both = ["8 after the restore", "behind the backup"];
    assert_eq!(held(&contents, "both"), both);
    let told = a.terminate().1;
    let lines = told
        .lines()
        .filter(|line| line.contains("older one put back"));
    assert_eq!(lines.count(), 1, "{told}");
    let again = ground.start("a");
    assert_eq!(identity(&again), now, "noticed once");
    again.terminate();
    let verified = succeed_json(&["verify", "--data", ground.at("a").to_str().unwrap()]);
    assert_eq!(verified["ok"], true, "{verified}");
}

#[test]
fn a_backup_that_is_put_back_goes_on_as_another_replica() {
    let (ground, peer, before) = backed_up();
    ground.replace("a", "backup");
    goes_on(&ground, &peer, &before);
}

#[test]
fn a_backup_that_is_written_over_the_directory_is_noticed_too() {
    let (ground, peer, before) = backed_up();
    // As `rsync --inplace --delete` does: the same inodes, and no files beside.
    for folder in ["", "namespaces"] {
        let (here, there) = (
            ground.at("a").join(folder),
            ground.at("backup").join(folder),
        );
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if !there.join(path.file_name().unwrap()).exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }
    copy_over(&ground.at("backup"), &ground.at("a"));
    goes_on(&ground, &peer, &before);
}

#[test]
fn a_backup_copied_over_newer_files_works_or_is_refused() {
    let (ground, peer, before) = backed_up();
    copy_over(&ground.at("backup"), &ground.at("a"));
    let a = ground.at("a");
    let arguments = ["verify", "--data", a.to_str().unwrap()];
    if samestate(&arguments).status.success() {
        goes_on(&ground, &peer, &before);
    }
}

#[test]
fn older_namespaces_put_back_alone_begin_a_new_feed() {
    let (ground, peer, before) = backed_up();
    let namespaces = |name: &str| ground.at(name).join("namespaces");
    fs::remove_dir_all(namespaces("a")).unwrap();
    fs::create_dir(namespaces("a")).unwrap();
    copy_over(&namespaces("backup"), &namespaces("a"));
    let a = ground.start("a");
    let now = identity(&a);
    assert!(now.0 == before.0 && now.1 != before.1, "{now:?}");
    a.put("both", b"after the restore");
    a.add_peer("peer", &peer.url);
    let contents = settle(&[&a, &peer]);
    assert_eq!(
        held(&contents, "both"),
        ["after the restore", "behind the backup"]
    );
    assert_eq!(held(&contents, "lost"), ["4 behind the backup"]);
}

#[test]
fn a_copy_beside_the_original_is_a_replica_of_its_own() {
    let ground = Ground::new();
    let a = ground.start("a");
    for id in ["one", "two", "three"] {
        a.put(id, b"before the copy");
    }
    let cursor = send(Method::GET, &a.at("changes"), &[], Vec::new()).json()["next"].clone();
    a.terminate();
    ground.copy("a", "b");
    let (a, b) = (ground.start("a"), ground.start("b"));
    assert_ne!(identity(&a), identity(&b));
    assert_ne!(a.replica, b.replica);
    let since = format!("changes?since={}", cursor.as_str().unwrap());
    assert_eq!(
        send(Method::GET, &a.at(&since), &[], Vec::new()).status,
        200
    );
    let expired = send(Method::GET, &b.at(&since), &[], Vec::new());
    assert_eq!(
        (expired.status, expired.code().as_str()),
        (410, "cursor_expired")
    );
    for (server, name) in [(&a, "a"), (&b, "b")] {
        server.put("one", format!("{name} wrote this").as_bytes());
        server.put(name, b"written by one only");
    }
    a.put("two", b"by a");
    for _ in 0..5 {
        b.put("three", b"by b");
    }
    let third = ground.start("third");
    for server in [&a, &b] {
        server.add_peer("third", &third.url);
    }
    third.put("third", b"by the third");
    let contents = settle(&[&a, &b, &third]);
    assert_eq!(held(&contents, "one"), ["a wrote this", "b wrote this"]);
    assert_eq!(held(&contents, "two"), ["by a"]);
    assert_eq!(held(&contents, "three"), ["by b"]);
    assert_eq!(contents.len(), 6, "{contents:?}");
}

#[test]
fn restarts_crashes_and_a_new_path_change_nothing() {
    let ground = Ground::new();
    let a = ground.start("a");
    send(Method::PUT, &format!("{}/v1/ns/eu", a.url), &[], Vec::new());
    a.put("match/1", b"one");
    let before = identity(&a);
    a.terminate();
    let mut a = ground.start("a");
    assert_eq!(identity(&a), before);
    a.put("match/1", b"two");
    a.kill();
    fs::rename(ground.at("a"), ground.at("moved")).unwrap();
    for _ in 0..2 {
        let mut moved = ground.start("moved");
        assert_eq!(identity(&moved), before);
        assert_eq!(moved.get("match/1").body, b"two");
        moved.kill();
    }
}

#[test]
fn starts_that_fail_for_one_namespace_do_not_make_a_stranger_of_another() {
    let ground = Ground::new();
    let server = ground.start("a");
    server.put("kept", b"in the first namespace");
    let other = format!("{}/v1/ns/zone-2", server.url);
    let made = send(Method::PUT, &other, &[], Vec::new());
    assert_eq!(made.status, 201);
    let before = identity(&server);
    server.terminate();
    let file = ground.at("a").join("namespaces/zone-2.redb");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    // More often than a file remembers how it was opened.
    for _ in 0..OPENINGS_KEPT + 2 {
        assert!(Replica::open(&ground.at("a"), ReplicaOptions::default()).is_err());
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(identity(&ground.start("a")), before);
}
