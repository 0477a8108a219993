//! What frames look like, pinned by `tests/fixtures/frames.tsv`, and frames of version 4 that no build writes.

use std::fmt::Debug;

use samestate::delta::codec::CodecId;
use samestate::reconcile::strategy::StrategyName;
use samestate::types::cursor::Epoch;
use samestate::types::hash::{ContentHash, NodeHash, hex};
use samestate::types::id::ReplicaId;
use samestate::types::lineage::{Lineage, Opening, Provenance};
use samestate::types::seen::Seen;
use samestate::wire::error::BadFrame;
use samestate::wire::frame::{open, plain_length, seal_for};
use samestate::wire::head::Head;
use samestate::wire::messages::{
    BaseHint, BodiesRequest, BodyHead, BodyHeads, CloseRequest, CompareRequest, DictionaryReply,
    Endpoint, OfferReply, OpenRequest, ProbeReply, ProbeRequest, RecordsRequest, StoreReply,
    StoreRequest, Testimony, Want,
};
use samestate::wire::version::Protocol;

const LIMIT: usize = 1 << 20;

/// A message in both versions.
struct Example {
    name: &'static str,
    endpoint: Endpoint,
    v3: Vec<u8>,
    v4: Vec<u8>,
    /// Opens a frame and says what is in it.
    read: fn(u8, &[u8]) -> Result<String, BadFrame>,
    said: String,
}

fn example<H: Head + Debug>(
    name: &'static str,
    endpoint: Endpoint,
    head: &H,
    blob: &[u8],
) -> Example {
    let made = |version| seal_for(version, endpoint.kind(), head, blob);
    Example {
        name,
        endpoint,
        v3: made(Protocol::V3),
        v4: made(Protocol::V4),
        read: |kind, frame| {
            let (head, blob): (H, Vec<u8>) = open(kind, frame, LIMIT)?;
            Ok(format!("{head:?} {blob:?}"))
        },
        said: format!("{head:?} {blob:?}"),
    }
}

fn lineage() -> Lineage {
    let mut lineage = Provenance::new(Epoch(9)).lineage;
    lineage.begin(Opening {
        id: 4711,
        epoch: Epoch(9),
        first: 3,
    });
    lineage
}

fn hint(state: Option<u64>, content: u64) -> BaseHint {
    BaseHint { state, content }
}

fn want(state: u64, version: u8, bases: Vec<BaseHint>) -> Want {
    Want {
        state,
        version,
        bases,
    }
}

fn body(codec: u8, base: Option<u8>, length: u32) -> BodyHead {
    BodyHead {
        codec,
        base,
        length,
    }
}

fn heads_of(heads: Vec<BodyHead>) -> BodyHeads {
    BodyHeads { heads }
}

/// Bytes without order.
fn uneven<const N: usize>(seed: u8) -> [u8; N] {
    let mut next = u32::from(seed) + 1;
    [0; N].map(|_: u8| {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (next >> 24) as u8
    })
}

fn examples() -> Vec<Example> {
    [finding(), bringing(), ending()]
        .into_iter()
        .flatten()
        .collect()
}

/// As uneven as a hash, so that it is not compressed.
fn root() -> NodeHash {
    NodeHash(uneven(3))
}

fn finding() -> Vec<Example> {
    let open = OpenRequest {
        replica: ReplicaId(7),
        root: root(),
        follows: false,
        lineage: lineage(),
        seq: 17,
        seen: None,
        testimony: Testimony::new(&root(), Seen::default()),
    };
    let compare = CompareRequest {
        session: 300,
        strategy: StrategyName::Sketch,
    };
    let records = RecordsRequest {
        session: 1,
        depth: 29,
    };
    let long: Vec<u8> = (0..2000u32).map(|n| (n / 100) as u8).collect();
    vec![
        example("open", Endpoint::Open, &open, b""),
        example("question", Endpoint::Compare, &compare, b"question"),
        example("answer", Endpoint::Compare, &(), b"answer"),
        example("compressed", Endpoint::Compare, &(), &long),
        example("records", Endpoint::Records, &records, &[1, 3, 9]),
    ]
}

fn wants() -> Vec<Want> {
    let bases = vec![
        hint(Some(0x7a10_f255_9b3c_4de1), 0x6b21_0346_ac4d_5ef2),
        hint(None, 0x8c32_1457_bd5e_6f03),
        hint(Some(BaseHint::DICTIONARY), 0x1143_2568_ce6f_7014),
    ];
    vec![
        want(0x0102_0304_0506_0708, 0, Vec::new()),
        want(
            0xf1c2_a394_5566_7089,
            2,
            vec![hint(None, 0x51a2_7e03_11d9_e8c4)],
        ),
        want(0x0999_31fa_04cd_e6b8, 0, bases),
    ]
}

/// One after the other in every form that a body head has.
fn mixed() -> BodyHeads {
    let together = CodecId::TOGETHER.0;
    heads_of(vec![
        body(together, Some(2), 3),
        body(together, None, 0),
        body(together, None, 0),
        body(CodecId::COPY.0, Some(0), 2),
        body(BodyHead::MISSING, None, 0),
        body(9, Some(8), 300),
        body(CodecId::RAW.0, None, 1),
    ])
}

fn bringing() -> Vec<Example> {
    let bodies = |wants: &[Want]| BodiesRequest {
        session: 0x8000_0001,
        wants: wants.to_vec(),
    };
    let (at, wants) = (Endpoint::Bodies, wants());
    let single = heads_of(vec![body(CodecId::RAW.0, None, 5)]);
    let noise: Vec<u8> = (0..10).flat_map(uneven::<32>).take(306).collect();
    let store = |wants: Vec<Want>, heads: Vec<BodyHead>| StoreRequest {
        session: 1,
        records: Vec::new(),
        wants,
        heads,
    };
    let staged = store(
        vec![want(0x9a54_3679_df70_8125, 1, Vec::new())],
        vec![BodyHead::staged()],
    );
    let nothing = store(Vec::new(), Vec::new());
    let offered = OfferReply {
        wanted: vec![0, 2],
        wants: wants.clone(),
    };
    vec![
        example("want", at, &bodies(&wants[..1]), b""),
        example("wants", at, &bodies(&wants), b""),
        example("body", at, &single, b"bytes"),
        example("bodies", at, &mixed(), &noise),
        example("offered", Endpoint::Offer, &offered, b""),
        example("store", Endpoint::Store, &staged, b""),
        example("store nothing", Endpoint::Store, &nothing, b""),
        example("stored", Endpoint::Store, &StoreReply { stored: 1 }, b""),
    ]
}

fn ending() -> Vec<Example> {
    let close = CloseRequest {
        session: 0xffff_ffff,
        root: Some(root()),
        complete: true,
    };
    let probe = ProbeRequest {
        root: root(),
        said: 5,
    };
    let probed = ProbeReply { said: Some(5) };
    let dictionary = DictionaryReply {
        hash: Some(ContentHash(uneven(5))),
    };
    vec![
        example("close", Endpoint::Close, &close, b""),
        example("probe", Endpoint::Probe, &probe, b""),
        example("probed", Endpoint::Probe, &probed, b""),
        example("dictionary", Endpoint::Dictionary, &dictionary, b"zdict"),
    ]
}

#[test]
fn frames_of_both_versions_are_those_of_the_fixture() {
    let mut text = String::new();
    for one in &examples() {
        for (version, frame) in [(3, &one.v3), (4, &one.v4)] {
            let (name, kind) = (one.name, one.endpoint.kind());
            text += &format!("{version}\t{kind}\t{name}\t{}\n", hex(frame));
        }
    }
    let fixture = include_str!("../../fixtures/frames.tsv");
    for (made, kept) in text.lines().zip(fixture.lines()) {
        // What zstd makes of a message may change with zstd.
        assert!(
            made == kept || kept.contains("compressed"),
            "{made}\n{kept}\n\n{text}"
        );
    }
    assert_eq!(text.lines().count(), fixture.lines().count(), "{text}");
}

#[test]
fn frames_of_the_fixture_are_read() {
    let bytes = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    };
    let examples = examples();
    let fixture = include_str!("../../fixtures/frames.tsv").lines();
    for (line, number) in fixture.zip(0..) {
        let one: &Example = &examples[number / 2];
        let frame = bytes(line.rsplit('\t').next().unwrap());
        let read = (one.read)(one.endpoint.kind(), &frame);
        assert_eq!(read.unwrap(), one.said, "{line}");
    }
}

#[test]
fn short_frames_with_faults_are_refused_by_name() {
    for one in &examples() {
        let (kind, frame) = (one.endpoint.kind(), &one.v4);
        let fault = |frame: &[u8]| (one.read)(kind, frame).unwrap_err();
        for cut in 0..frame.len() {
            let name = fault(&frame[..cut]).to_string();
            let is_named = ["cut off", "short frame", "damaged", "not a samestate frame"];
            assert!(
                is_named.iter().any(|part| name.contains(part)),
                "{}: {name}",
                one.name
            );
        }
        let longer = fault(&[frame, &b"x"[..]].concat());
        let is_compressed = frame[0] & 0x40 != 0;
        assert!(
            matches!(longer, BadFrame::Trailing(1)) || is_compressed,
            "{longer}"
        );
        assert!(plain_length(frame) <= LIMIT && plain_length(frame) > 0 || frame.len() < 3);
        let other = (one.read)(kind + 1, frame).unwrap_err();
        assert!(matches!(other, BadFrame::Kind { got, .. } if got == kind));
        // A length that is not in its shortest form, over the bound, and over 32 bits.
        let rest = &frame[1..];
        let with = |length: &[u8]| [&frame[..1], length, rest].concat();
        assert!(matches!(fault(&with(&[0x80, 0])), BadFrame::Number));
        assert!(matches!(
            fault(&with(&[0xff, 0xff, 0xff, 0xff, 0x0f])),
            BadFrame::TooLarge { .. }
        ));
        assert!(matches!(
            fault(&with(&[0xff, 0xff, 0xff, 0xff, 0x1f])),
            BadFrame::Number
        ));
    }
}

/// A frame of a body head that no build writes.
fn odd(head: &[u8]) -> BadFrame {
    let frame = [&[0x80 | Endpoint::Bodies.kind(), head.len() as u8], head].concat();
    open::<BodyHeads>(Endpoint::Bodies.kind(), &frame, LIMIT).unwrap_err()
}

#[test]
fn body_heads_that_no_build_writes_are_refused() {
    for (head, named) in [
        (&[][..], "cut off"),
        // A run behind which no last one comes.
        (&[0x00], "cut off"),
        (&[0x00, 0x08], "cut off"),
        // One that should have been part of the one before.
        (&[0x00, 0x80], "not needed"),
        // A count of one, of none, and of too many.
        (&[0xc0, 1], "not needed"),
        (&[0x40, 0, 0x80], "not needed"),
        (&[0xc0, 0x81, 0x20], "at most 4096"),
        // A codec and a base that have a shorter form.
        (&[0xa8, 4], "does not have"),
        (&[0xa8, 254], "does not have"),
        (&[0x87, 5], "does not have"),
        // A payload longer than what is there.
        (&[0x00, 0x88, 9, 1, 2, 3], "cut off"),
    ] {
        let fault = odd(head).to_string();
        assert!(fault.contains(named), "{head:?}: {fault}");
    }
    for (wants, named) in [
        (&[1, 0x20][..], "unknown form"),
        (&[1, 5], "unknown form"),
        (&[1, 0x08, 0], "not needed"),
        (&[0x81, 0x20], "at most 4096"),
        (&[1, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 1], "not named"),
        (&[1, 0x11, 3, 0, 0, 0, 0, 0, 0, 0, 1], "unknown kind"),
        (&[1, 0x01, 0, 0, 0, 0, 0, 0, 0, 1], "cut off"),
    ] {
        let head = [&[1], wants].concat();
        let frame = [
            &[0x80 | Endpoint::Bodies.kind(), head.len() as u8],
            &head[..],
        ]
        .concat();
        let opened = open::<BodiesRequest>(Endpoint::Bodies.kind(), &frame, LIMIT);
        let fault = opened.unwrap_err().to_string();
        assert!(fault.contains(named), "{wants:?}: {fault}");
    }
}
