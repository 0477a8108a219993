//! Large states chunk by chunk: lists and chunks that are lies, in both directions, and what is left
//! of transfers that nobody goes on with.

use std::sync::Arc;

use samestate::replica::staging::staged;
use samestate::runtime::replica::ReplicaOptions;
use samestate::store::body::{Body, Form};
use samestate::sync::transport::Transport;
use samestate::types::hash::{ChunkHash, ContentHash};
use samestate::types::id::ReplicaId;
use samestate::wire::chunk_messages::{
    CHUNKS_MAX, ChunksReply, ListedChunk, StageReply, StageRequest,
};
use samestate::wire::frame::seal;
use samestate::wire::messages::Endpoint;

use crate::collection::{HOUR, MINUTE};
use crate::harness::Rng;
use crate::harness::replica::{Direct, Node, Plan, TestClock};
use crate::hostile_peers::{Liar, Lie, PUSH, case, forgiven, head, message, run};

const SIZE: usize = 5 << 20;

fn noise(rng: &mut Rng) -> Vec<u8> {
    let words = (0..SIZE / 8).flat_map(|_| rng.next().to_le_bytes());
    words.collect()
}

/// Changes the next part of the list in every answer.
fn list(mut change: impl FnMut(&mut Vec<ListedChunk>) + 'static) -> Lie {
    head(Endpoint::Chunks, move |reply: &mut ChunksReply| {
        if let Some(next) = &mut reply.next {
            change(next);
        }
    })
}

/// Answers honestly so many times, and then with a chunk that is another.
fn wrong_after(mut honest: usize) -> Lie {
    message(
        Endpoint::Chunks,
        move |_: &mut ChunksReply, blob| match honest.checked_sub(1) {
            Some(left) => honest = left,
            None => blob.iter_mut().take(1).for_each(|byte| *byte ^= 1),
        },
    )
}

/// Puts a chunk of zeros in the place of another one, in the list and in what is sent.
fn another_chunk() -> Lie {
    let (mut replaced, mut is_done) = (None, false);
    message(Endpoint::Chunks, move |reply: &mut ChunksReply, blob| {
        if let Some(length) = replaced.take() {
            blob[..length].fill(0);
        }
        let next = reply.next.iter_mut().flatten().next();
        if let Some((hash, length)) = next.filter(|_| !is_done) {
            let zeros = vec![0; *length as usize];
            *hash = ChunkHash::of(&zeros);
            (replaced, is_done) = (Some(zeros.len()), true);
        }
    })
}

#[test]
fn lists_and_chunks_that_are_lies_are_refused() {
    let (victim, peer) = (Node::new(1), Node::new(2));
    peer.put("world", &noise(&mut Rng::seeded(1)));
    let pull = Plan::PULL;
    let cases = vec![
        case(
            pull,
            wrong_after(1),
            "does not have the hash that its list says",
        ),
        case(pull, another_chunk(), "wrong bytes for"),
        case(pull, list(Vec::clear), "shorter than their state"),
        case(pull, list(|next| next[0].1 = 100), "a length that none has"),
        case(
            pull,
            list(|next| next[0].1 = 15_801),
            "a length that none has",
        ),
        case(
            pull,
            list(|next| next.resize(CHUNKS_MAX + 1, (ChunkHash([1; 32]), 8000))),
            "too many chunks",
        ),
        case(
            pull,
            list(|next| next.resize(CHUNKS_MAX, (ChunkHash([1; 32]), 15_000))),
            "longer than their state",
        ),
        case(
            pull,
            message(Endpoint::Chunks, |_: &mut ChunksReply, blob| blob.push(0)),
            "left behind the chunks",
        ),
        case(
            pull,
            message(Endpoint::Chunks, |_: &mut ChunksReply, blob| blob.clear()),
            "ends too early",
        ),
        forgiven(
            pull,
            head(Endpoint::Chunks, |reply: &mut ChunksReply| {
                reply.next = None;
            }),
            "cannot read its copy",
        ),
    ];
    run(&victim, &peer, cases);
    assert!(staged(&victim.view()).0 <= 1);
}

#[test]
fn receivers_that_lie_about_what_has_arrived_are_given_up_on() {
    let (victim, peer) = (Node::new(1), Node::new(2));
    victim.put("world", &noise(&mut Rng::seeded(2)));
    let stage = |change: fn(&mut StageReply)| head(Endpoint::Stage, change);
    let cases = vec![
        case(
            PUSH,
            stage(|reply| reply.held = u32::MAX),
            "more chunks have arrived",
        ),
        case(
            PUSH,
            stage(|reply| reply.held = 0),
            "does not keep what it is sent",
        ),
        case(
            PUSH,
            stage(|reply| reply.lacking.push(99_999)),
            "does not keep what it is sent",
        ),
    ];
    run(&victim, &peer, cases);
}

fn listed(body: &Body) -> Vec<ListedChunk> {
    match &body.form {
        Form::Chunks(chunks) => chunks.iter().map(|c| (c.hash, c.length)).collect(),
        _ => panic!("not in chunks"),
    }
}

/// A session that a replica has open at another one.
fn session_at(victim: &Node) -> u64 {
    let (namespace, peer) = (victim.namespace(), ReplicaId(2));
    let opened = namespace.pins().open(peer, victim.view(), Arc::default());
    opened.unwrap()
}

#[test]
fn senders_that_lie_store_nothing() {
    let victim = Node::new(1);
    let body = Body::new(&noise(&mut Rng::seeded(3)));
    let part = listed(&body)[..9].to_vec();
    let (mut opened, session) = (Direct::to(&victim), session_at(&victim));
    let honest = || StageRequest {
        session,
        content: body.hash,
        size: body.size,
        from: 0,
        chunks: Vec::new(),
        sent: Vec::new(),
        next: part.clone(),
    };
    let mut told = |request: &StageRequest, blob: &[u8]| {
        let sealed = seal(Endpoint::Stage.kind(), request, blob);
        let reply = opened.call(Endpoint::Stage, sealed, 1 << 20);
        reply.map_err(|error| error.to_string())
    };
    assert!(told(&honest(), &[]).is_ok());
    let plain = vec![0; part[0].1 as usize];
    let endless = vec![(ChunkHash([1; 32]), 8000); CHUNKS_MAX + 1];
    let tiny = [(ChunkHash([1; 32]), 7)];
    let sent = |chunks: &[ListedChunk], sent: &[u32]| StageRequest {
        chunks: chunks.to_vec(),
        sent: sent.to_vec(),
        next: Vec::new(),
        ..honest()
    };
    let lies: [(StageRequest, &[u8], &str); 7] = [
        (sent(&part[..1], &[0]), &plain, "does not have the hash"),
        (sent(&part[..1], &[0]), &plain[1..], "ends too early"),
        (sent(&part[..1], &[1]), &[], "outside of their part"),
        (sent(&endless, &[]), &[], "outside of their part"),
        (sent(&tiny, &[]), &[], "a length that none has"),
        (
            StageRequest {
                size: u64::MAX,
                ..honest()
            },
            &[],
            "of a size",
        ),
        (
            StageRequest {
                size: 15_000,
                ..honest()
            },
            &[],
            "of a size",
        ),
    ];
    for (request, blob, reason) in lies {
        let error = told(&request, blob).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    // Chunks that are said to be here, and are not, do not count.
    assert!(told(&sent(&part, &[]), &[]).is_ok());
    assert_eq!(staged(&victim.view()), (0, 0));
    victim.check();
}

#[test]
fn too_many_transfers_are_turned_away_until_there_is_room() {
    let (clock, options) = (TestClock::new(), ReplicaOptions::default());
    let room = options.limits.state_bytes * 8;
    let victim = Node::with_clock(1, options, clock.clone());
    let (mut opened, session) = (Direct::to(&victim), session_at(&victim));
    let chunk = vec![7; 9000];
    let mut begin = |number: u8| {
        let request = StageRequest {
            session,
            content: ContentHash([number; 32]),
            size: options.limits.state_bytes,
            from: 0,
            chunks: vec![(ChunkHash::of(&chunk), 9000)],
            sent: vec![0],
            next: Vec::new(),
        };
        let sealed = seal(Endpoint::Stage.kind(), &request, &chunk);
        opened.call(Endpoint::Stage, sealed, 1 << 20)
    };
    let fitting = (room / options.limits.state_bytes) as u8;
    for number in 0..fitting {
        begin(number).unwrap();
    }
    let full = begin(fitting).unwrap_err().to_string();
    assert!(full.contains("too many large states"), "{full}");
    clock.advance(2 * MINUTE);
    begin(fitting).unwrap();
    assert_eq!(staged(&victim.view()).0, usize::from(fitting));
    victim.check();
}

#[test]
fn what_nobody_goes_on_with_is_collected_and_another_peer_need_not_send_it_again() {
    let state = noise(&mut Rng::seeded(4));
    let (clock, options) = (TestClock::new(), ReplicaOptions::default());
    let receiver = Node::with_clock(1, options, clock.clone());
    let (one, two) = (Node::new(2), Node::new(3));
    one.put("world", &state);
    two.sync(&one, Plan::PULL);
    let mut broken = Liar::between(&one, wrong_after(30));
    let (_, result) = receiver.sync_over(&mut broken, &receiver.home(), Plan::PULL);
    result.unwrap_err();
    let (stages, bytes) = staged(&receiver.view());
    assert_eq!(stages, 1);
    assert!(bytes as usize > SIZE / 2, "{bytes} bytes");
    receiver.check();

    let report = receiver.sync(&two, Plan::PULL);
    assert!(report.equal);
    let lacked = SIZE as u64 - bytes;
    assert!(
        report.bytes_received < lacked + lacked / 10 + 60_000,
        "{report:?}"
    );
    assert_eq!(staged(&receiver.view()).0, 1, "that of the first peer");
    receiver.collect();
    assert_eq!(staged(&receiver.view()).0, 1, "it may be running still");
    clock.advance(2 * MINUTE);
    receiver.collect();
    assert_eq!(staged(&receiver.view()), (0, 0));
    receiver.check();

    // Of a content that never came to its end.
    one.put("other", &noise(&mut Rng::seeded(5)));
    let mut broken = Liar::between(&one, wrong_after(30));
    let (_, result) = receiver.sync_over(&mut broken, &receiver.home(), Plan::PULL);
    result.unwrap_err();
    clock.advance(23 * HOUR);
    receiver.collect();
    assert_eq!(staged(&receiver.view()).0, 1);
    clock.advance(2 * HOUR);
    let collected = receiver.collect();
    assert!(collected.steps > 0, "{collected:?}");
    assert_eq!(staged(&receiver.view()), (0, 0));
    receiver.check();
    let mut chunks = 0;
    let view = receiver.view();
    view.snapshot()
        .visit_chunks(&mut |_, _| chunks += 1)
        .unwrap();
    assert_eq!(chunks, listed(&Body::new(&state)).len());
    assert_eq!(receiver.contents(), two.contents());
}
