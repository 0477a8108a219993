//! Versions of the protocol: replicas of this build talk in short frames, and those of older builds are met
//! in theirs.

mod frames;

use std::collections::BTreeMap;

use samestate::sync::report::Report;
use samestate::sync::session::{Last, PeerSeen, run};
use samestate::sync::transport::{Transport, TransportError};
use samestate::wire::messages::Endpoint;
use samestate::wire::short_frame::is_short;
use samestate::wire::version::Protocol;

use crate::harness::replica::{Direct, Node, Plan};

/// Where a long frame says which version its sender reads.
const READS: usize = 7;

/// Bytes of the messages by endpoint, requests and answers.
type Bytes = BTreeMap<&'static str, (usize, usize)>;

/// Counts messages, and looks at which frames they have.
struct Watched {
    peer: Direct,
    /// True when the peer is to be a build that knows no version but 3.
    is_older: bool,
    bytes: Bytes,
    /// For each message, whether the request and the answer were short.
    short: Vec<(bool, bool)>,
}

impl Watched {
    fn of(peer: &Node, is_older: bool) -> Self {
        Self {
            peer: Direct::to(peer),
            is_older,
            bytes: Bytes::new(),
            short: Vec::new(),
        }
    }
}

impl Transport for Watched {
    fn call(
        &mut self,
        endpoint: Endpoint,
        mut request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let (asked_short, asked) = (is_short(&request), request.len());
        if self.is_older && asked_short {
            self.short.push((true, false));
            return Err(TransportError::Refused {
                code: "bad_message".to_owned(),
                detail: "not a samestate frame; is the address that of a samestate server?"
                    .to_owned(),
            });
        }
        if self.is_older {
            // An older build does not look at it, and writes 0.
            request[READS] = 0;
        }
        let mut reply = self.peer.call(endpoint, request, limit)?;
        if self.is_older {
            assert!(
                !is_short(&reply),
                "{endpoint:?} was not asked for in version 4"
            );
            reply[READS] = 0;
        }
        self.short.push((asked_short, is_short(&reply)));
        let (to, from) = self.bytes.entry(endpoint.name()).or_default();
        *to += asked;
        *from += reply.len();
        Ok(reply)
    }
}

fn session(ours: &Node, transport: &mut Watched, last: Option<Last>) -> (PeerSeen, Report) {
    let mut options = Plan::BOTH.options();
    options.last = last;
    let mut report = Report::begin(1, "peer".into(), "default".into(), ours.root());
    let seen = run(transport, &ours.home(), &options, &mut report).unwrap();
    (seen, report)
}

/// Two replicas with 200 states in common, and one small state at the peer that is not here.
fn sites() -> (Node, Node) {
    let (ours, theirs) = (Node::new(1), Node::new(2));
    for state in 0..200 {
        theirs.put(
            &format!("unit/{state}"),
            format!("hp={state};x=7;y=9").as_bytes(),
        );
    }
    ours.sync(&theirs, Plan::BOTH);
    theirs.put("unit/200", b"hp=20;x=31;y=4;activity=Idle");
    (ours, theirs)
}

#[test]
fn replicas_of_this_build_talk_in_short_frames() {
    let (ours, theirs) = sites();
    let mut watched = Watched::of(&theirs, false);
    let (_, report) = session(&ours, &mut watched, None);
    assert!(report.equal && report.states_pulled == 1, "{report:?}");
    // The first request says which frames are read here; everything behind it is short.
    assert_eq!(watched.short[0], (false, true));
    assert!(
        watched.short[1..]
            .iter()
            .all(|short| *short == (true, true))
    );
    assert!(watched.short.len() > 2);
    // The next one is asked for in short frames from the beginning.
    let (seen, _) = session(&ours, &mut Watched::of(&theirs, false), None);
    let mut watched = Watched::of(&theirs, false);
    let (_, report) = session(&ours, &mut watched, seen.last);
    assert!(report.equal, "{report:?}");
    assert_eq!(watched.short, [(true, true)]);
}

#[test]
fn builds_that_know_version_3_only_are_met_in_it() {
    for _ in 0..2 {
        // The same changes to frames make the initiator or the responder an older build.
        let (ours, theirs) = sites();
        ours.put("unit/ours", b"hp=1;x=1;y=1");
        let mut watched = Watched::of(&theirs, true);
        let (_, report) = session(&ours, &mut watched, None);
        assert!(report.equal, "{report:?}");
        assert_eq!((report.states_pulled, report.states_pushed), (1, 1));
        assert!(watched.short.iter().all(|short| *short == (false, false)));
        assert_eq!(ours.contents(), theirs.contents());
    }
}

#[test]
fn a_peer_that_was_put_back_to_an_older_build_is_met_all_the_same() {
    let (ours, theirs) = sites();
    session(&ours, &mut Watched::of(&theirs, false), None);
    let (seen, _) = session(&ours, &mut Watched::of(&theirs, false), None);
    assert!(seen.last.is_some_and(|last| last.protocol == Protocol::V4));
    let mut older = Watched::of(&theirs, true);
    let (seen, report) = session(&ours, &mut older, seen.last);
    assert!(report.equal, "{report:?}");
    assert_eq!(older.short, [(true, false), (false, false)]);
    assert!(seen.last.is_some_and(|last| last.protocol == Protocol::V3));
    // And when it is upgraded again.
    let mut newer = Watched::of(&theirs, false);
    let (seen, _) = session(&ours, &mut newer, seen.last);
    assert_eq!(newer.short, [(false, true)]);
    let _ = seen;
}

#[test]
fn one_small_state_costs_few_bytes_beside_its_own() {
    let mut cost = Vec::new();
    for is_older in [true, false] {
        let (ours, theirs) = sites();
        let mut watched = Watched::of(&theirs, is_older);
        session(&ours, &mut watched, None);
        println!("{:?}", watched.bytes);
        let (to, from) = watched.bytes["bodies"];
        // A state of 28 bytes and its want.
        assert!(is_older || (to <= 20 && from <= 28 + 4), "{to} {from}");
        let sum: usize = watched.bytes.values().map(|(to, from)| to + from).sum();
        cost.push(sum);
    }
    assert!(cost[1] + 100 <= cost[0], "{cost:?}");
}
