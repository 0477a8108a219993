//! Copies that nothing on the machine tells from the original, as after a snapshot of the whole
//! machine: their peers notice.

use std::path::Path;

use samestate::store::place::{Found, Place};

use crate::copies::{Ground, forge, held, identity, settle};
use crate::harness::http::wait_until;
use crate::harness::process::{Server, succeed_json};

/// Writes `count` states, the first ones again and again.
fn write(server: &Server, what: &str, count: usize) {
    for n in 0..count {
        server.put("both", format!("{n} {what}").as_bytes());
        server.put(&format!("{what}/{n}"), what.as_bytes());
    }
}

/// A snapshot goes back behind what a peer has seen, writes, and meets the peer. It counts fewer
/// writes than were lost, or more, or was started again in between.
fn goes_back(lost: usize, written: &[usize], peer_calls: bool) {
    let ground = Ground::new();
    let peer = ground.start("peer");
    let a = ground.start("a");
    a.add_peer("peer", &peer.url);
    a.put("both", b"before the snapshot");
    a.put("kept", b"before the snapshot");
    settle(&[&a, &peer]);
    a.terminate();
    ground.copy("a", "snapshot");
    let a = ground.start("a");
    a.add_peer("peer", &peer.url);
    write(&a, "lost", lost);
    settle(&[&a, &peer]);
    let before = identity(&a);
    a.terminate();
    ground.replace("a", "snapshot");
    forge(&ground.at("a"));
    let mut a = ground.start("a");
    for (start, count) in written.iter().enumerate() {
        if start > 0 {
            a.kill();
            a = ground.start("a");
        }
        assert_eq!(identity(&a), before, "nothing to notice yet");
        write(&a, &format!("written{start}"), *count);
    }
    if peer_calls {
        peer.add_peer("a", &a.url);
    } else {
        a.add_peer("peer", &peer.url);
    }
    let contents = settle(&[&a, &peer]);
    for n in 0..lost {
        assert_eq!(held(&contents, &format!("lost/{n}")), ["lost"]);
    }
    for (start, count) in written.iter().enumerate() {
        for n in 0..*count {
            let what = format!("written{start}");
            assert_eq!(held(&contents, &format!("{what}/{n}")), [what]);
        }
    }
    let mut both = vec![format!("{} lost", lost - 1)];
    let last = written.iter().rposition(|count| *count > 0);
    both.extend(last.map(|start| format!("{} written{start}", written[start] - 1)));
    both.sort();
    assert_eq!(held(&contents, "both"), both);
    assert_eq!(held(&contents, "kept"), ["before the snapshot"]);
    wait_until("it has another name", || identity(&a).0 != before.0);
    assert_ne!(identity(&a).1, before.1);
    let now = identity(&a);
    wait_until_noted(&ground.at("a"), &now.0);
    a.kill();
    let a = ground.start("a");
    assert_eq!(identity(&a), now);
    a.put("both", b"resolved");
    a.add_peer("peer", &peer.url);
    assert_eq!(held(&settle(&[&a, &peer]), "both"), ["resolved"]);
    a.terminate();
    let verified = succeed_json(&["verify", "--data", ground.at("a").to_str().unwrap()]);
    assert_eq!(verified["ok"], true, "{verified}");
}

/// Waits until a directory has noted the newest id of its replica. A kill in front of that is made
/// up for at the next start, by one more name.
fn wait_until_noted(dir: &Path, replica: &str) {
    wait_until("its directory knows the name", || {
        let Found::Same(place) = Place::find(dir).unwrap() else {
            return false;
        };
        let newest = place.names.last().map(ToString::to_string);
        newest.as_deref() == Some(replica)
    });
}

#[test]
fn a_snapshot_that_has_written_less_than_was_lost() {
    goes_back(9, &[2], false);
}

#[test]
fn a_snapshot_that_has_written_more_than_was_lost() {
    goes_back(2, &[9], true);
}

#[test]
fn a_snapshot_that_was_started_again_before_it_met_anybody() {
    goes_back(3, &[2, 5], false);
    goes_back(3, &[2, 0, 1], true);
}

#[test]
fn a_snapshot_that_has_written_nothing_yet() {
    goes_back(3, &[0], true);
}

#[test]
fn two_of_one_snapshot_that_run_at_once() {
    let ground = Ground::new();
    let a = ground.start("a");
    a.put("both", b"before the snapshot");
    a.terminate();
    ground.copy("a", "b");
    forge(&ground.at("b"));
    let (a, b) = (ground.start("a"), ground.start("b"));
    assert_eq!(identity(&a), identity(&b));
    write(&a, "at-a", 4);
    write(&b, "at-b", 7);
    let third = ground.start("third");
    a.add_peer("third", &third.url);
    b.add_peer("third", &third.url);
    let contents = settle(&[&a, &b, &third]);
    assert_eq!(held(&contents, "both"), ["3 at-a", "6 at-b"]);
    assert_eq!(contents.len(), 1 + 4 + 7);
    wait_until("they have two names", || identity(&a).0 != identity(&b).0);
    assert_ne!(identity(&a).1, identity(&b).1);
    // Also when they know each other.
    a.add_peer("b", &b.url);
    write(&a, "more-at-a", 2);
    write(&b, "more-at-b", 2);
    assert_eq!(settle(&[&a, &b, &third]).len(), 1 + 4 + 7 + 4);
}

#[test]
fn two_of_one_snapshot_that_are_each_others_peers() {
    let ground = Ground::new();
    let a = ground.start("a");
    a.put("both", b"before the snapshot");
    a.terminate();
    ground.copy("a", "b");
    forge(&ground.at("b"));
    let (a, b) = (ground.start("a"), ground.start("b"));
    write(&a, "at-a", 3);
    write(&b, "at-b", 3);
    a.add_peer("b", &b.url);
    let contents = settle(&[&a, &b]);
    assert_eq!(held(&contents, "both"), ["2 at-a", "2 at-b"]);
    assert_eq!(contents.len(), 1 + 3 + 3);
}
