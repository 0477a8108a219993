//! What travels between replicas: frames with their messages, questions of strategies to a responder,
//! and answers to an initiator.

use std::sync::OnceLock;

use samestate::reconcile::budget::Budget;
use samestate::reconcile::memory::{Pair, Random, Set, Shape};
use samestate::reconcile::registry::{answer, strategy};
use samestate::reconcile::strategy::{
    AgreementMark, BloomSettings, Context, Rest, SessionLimits, Step, StrategyName,
};
use samestate::reconcile::view::SetView;
use samestate::types::binary::encode;
use samestate::wire::chunk_messages::{ChunksReply, ChunksRequest, StageReply, StageRequest};
use samestate::wire::frame::{open, plain_length, seal_for};
use samestate::wire::head::Head;
use samestate::wire::healing_messages::{ContentsRequest, PiecesRequest};
use samestate::wire::messages::{
    BodiesRequest, BodyHeads, CloseReply, CloseRequest, CompareRequest, DictionaryReply,
    DictionaryRequest, Endpoint, ForgetReply, ForgetRequest, OfferReply, OfferRequest, OpenReply,
    OpenRequest, ProbeReply, ProbeRequest, RangeReply, RangeRequest, RecordsReply, RecordsRequest,
    StoreReply, StoreRequest, SubtreesReply, SubtreesRequest,
};
use samestate::wire::short_frame::is_short;
use samestate::wire::version::Protocol;

/// Bytes of a message that are accepted here.
const LIMIT: usize = 1 << 20;

/// The two sets of all targets, and what their session knows.
pub fn pair() -> &'static (Pair, Context) {
    static PAIR: OnceLock<(Pair, Context)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let shape = Shape {
            common: 200,
            only_ours: 20,
            only_theirs: 20,
            updated: 20,
        };
        let pair = Pair::new(shape, &mut Random(1));
        let context = Context {
            key: [7; 16],
            theirs: pair.theirs.root().ok(),
            their_seq: pair.theirs.seq(),
            mark: Some(AgreementMark {
                their_seq: pair.their_mark,
                our_seq: pair.our_mark,
            }),
            limits: SessionLimits {
                differing: 1000,
                rounds: 12,
                message_bytes: 64 << 10,
            },
            bloom: BloomSettings::default(),
            rest: Some(Rest {
                differing: 60,
                bytes_each: 17,
            }),
        };
        (pair, context)
    })
}

/// A frame of any kind.
pub fn frames(input: &[u8]) {
    let announced = plain_length(input);
    let all = [
        take::<OpenRequest>(Endpoint::Open, input),
        take::<OpenReply>(Endpoint::Open, input),
        take::<CompareRequest>(Endpoint::Compare, input),
        take::<()>(Endpoint::Compare, input),
        take::<RecordsRequest>(Endpoint::Records, input),
        take::<RecordsReply>(Endpoint::Records, input),
        take::<SubtreesRequest>(Endpoint::Subtrees, input),
        take::<SubtreesReply>(Endpoint::Subtrees, input),
        take::<RangeRequest>(Endpoint::Range, input),
        take::<RangeReply>(Endpoint::Range, input),
        take::<BodiesRequest>(Endpoint::Bodies, input),
        take::<BodyHeads>(Endpoint::Bodies, input),
        take::<OfferRequest>(Endpoint::Offer, input),
        take::<OfferReply>(Endpoint::Offer, input),
        take::<StoreRequest>(Endpoint::Store, input),
        take::<StoreReply>(Endpoint::Store, input),
        take::<CloseRequest>(Endpoint::Close, input),
        take::<CloseReply>(Endpoint::Close, input),
        take::<ContentsRequest>(Endpoint::Contents, input),
        take::<ForgetRequest>(Endpoint::Forget, input),
        take::<ForgetReply>(Endpoint::Forget, input),
        take::<ProbeRequest>(Endpoint::Probe, input),
        take::<ProbeReply>(Endpoint::Probe, input),
        take::<DictionaryRequest>(Endpoint::Dictionary, input),
        take::<DictionaryReply>(Endpoint::Dictionary, input),
        take::<ChunksRequest>(Endpoint::Chunks, input),
        take::<ChunksReply>(Endpoint::Chunks, input),
        take::<StageRequest>(Endpoint::Stage, input),
        take::<StageReply>(Endpoint::Stage, input),
        take::<PiecesRequest>(Endpoint::Pieces, input),
    ];
    for taken in all.into_iter().flatten() {
        assert!(taken <= announced && announced <= LIMIT);
    }
}

/// Opens a frame as this message: the bytes that head and blob have then, at least.
fn take<T: Head>(endpoint: Endpoint, input: &[u8]) -> Option<usize> {
    let (head, blob): (T, Vec<u8>) = open(endpoint.kind(), input, LIMIT).ok()?;
    // What was read can be written again, and is the same then.
    let written = encode(&head);
    if is_short(input) {
        let again = seal_for(Protocol::V4, endpoint.kind(), &head, &blob);
        let (head, read): (T, Vec<u8>) = open(endpoint.kind(), &again, 2 * LIMIT).unwrap();
        assert!(encode(&head) == written && read == blob);
    }
    assert!(!written.is_empty());
    Some(blob.len())
}

/// Questions of every strategy to a responder: the first byte chooses the strategy.
pub fn questions(input: &[u8]) {
    let Some((first, question)) = input.split_first() else {
        return;
    };
    let budget = Budget {
        nodes: 1024,
        leaves: 5000,
        message_bytes: 64 << 10,
    };
    let theirs: &Set = &pair().0.theirs;
    let name = StrategyName::ALL[usize::from(*first) % StrategyName::ALL.len()];
    if let Ok(answered) = answer(name, theirs, question, &budget) {
        assert!(answered.len() <= budget.message_bytes);
    }
}

/// Answers of a peer to every strategy: the first byte chooses the strategy, and answers follow, each
/// behind its length in two bytes.
pub fn replies(input: &[u8]) {
    let Some((first, mut rest)) = input.split_first() else {
        return;
    };
    let (pair, context) = pair();
    let name = StrategyName::ALL[usize::from(*first) % StrategyName::ALL.len()];
    let Some(mut machine) = strategy(name, context) else {
        return;
    };
    let mut step = machine.advance(&pair.ours, None);
    let mut questions = 0;
    while let Ok(Step::Ask(question)) = step {
        questions += 1;
        assert!(questions <= context.limits.rounds);
        assert!(question.len() <= context.limits.message_bytes);
        let Some((length, behind)) = rest.split_first_chunk::<2>() else {
            return;
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (reply, behind) = behind.split_at(length);
        rest = behind;
        step = machine.advance(&pair.ours, Some(reply));
    }
    if let Ok(Step::Found(found)) = step {
        assert!(found.differing.is_sorted_by(|a, b| a < b));
        assert!(!found.absent.iter().any(|key| found.names(key)));
    }
}
