//! Valid inputs of every target, to begin with: small, and made from the crate's own writers.

use samestate::backup::block::{FORMAT, Kind, seal as seal_block};
use samestate::backup::manifest::{Manifest, NamespacePart, Written};
use samestate::bloom::BloomFilter;
use samestate::delta::codec::{CodecId, Effort};
use samestate::delta::registry::codec;
use samestate::delta::{compress, dcz};
use samestate::merkle::asked::Asked;
use samestate::merkle::multiproof::MultiProof;
use samestate::merkle::proof_bytes;
use samestate::merkle::proof_text::MultiProofText;
use samestate::merkle::trie::root_of;
use samestate::reconcile::budget::Budget;
use samestate::reconcile::encoding::Writer;
use samestate::reconcile::registry::{answer, strategy};
use samestate::reconcile::sketch_messages::{Question, write_question};
use samestate::reconcile::strategy::{Step, StrategyName};
use samestate::reconcile::view::{SetView, SketchView};
use samestate::roots::entry::RootEntry;
use samestate::roots::head::{LogHead, SecretKey};
use samestate::sketch::cell::{Told, to_bytes, told_all};
use samestate::sketch::key::{Secret, SketchKey};
use samestate::sketch::table::{Change, Sketch};
use samestate::store::log::group::{Entry, EntryKind, seal as seal_group};
use samestate::store::rows::{Placed, Placement, RecordRow, history_to_bytes};
use samestate::types::binary::encode;
use samestate::types::cursor::{Cursor, Epoch};
use samestate::types::hash::{ContentHash, LogHash, NodeHash};
use samestate::types::id::{GameId, Namespace, ReplicaId, WriterId};
use samestate::types::lineage::{Lineage, Opening, Provenance};
use samestate::types::record::StateRecord;
use samestate::types::seen::Seen;
use samestate::types::version::{Stamp, Version, VersionVector};
use samestate::wire::frame::{seal, seal_for};
use samestate::wire::messages::{
    BodyHead, BodyHeads, CloseRequest, CompareRequest, Endpoint, OpenRequest, ProbeReply,
    ProbeRequest, RecordsRequest, Testimony,
};
use samestate::wire::roots::{ConsistencyBody, HeadBody, HeadsBody};
use samestate::wire::version::Protocol;

use super::messages::pair;
use super::proofs::leaves;
use super::stored::SEGMENT;

/// A seed's file name and bytes.
pub type Seed = (String, Vec<u8>);

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "frames" => frames(),
        "questions" => dialogues().0,
        "replies" => dialogues().1,
        "cells" => cells(),
        "encodings" => encodings(),
        "deltas" => deltas(),
        "archives" => archives(),
        "proofs" | "proof_texts" => proofs(target == "proofs"),
        "root_logs" => root_logs(),
        "log_segments" => log_segments(),
        "rows" => rows(),
        "backups" => backups(),
        "configs" => texts(&[
            ("empty", ""),
            (
                "some",
                "listen = \"127.0.0.1:7878\"\npeers = [\"a=http://127.0.0.1:1\"]\n",
            ),
            ("unknown", "nothing = 1\n"),
        ]),
        _ => texts(&[
            ("id", "match/eu-west/4711"),
            ("namespace", "default"),
            (
                "hash",
                "00000000000000000000000000000000000000000000000000000000000000ff",
            ),
            ("cursor", "0000000000000009-17"),
        ]),
    }
}

fn texts(of: &[(&str, &str)]) -> Vec<Seed> {
    let seed = |(name, text): &(&str, &str)| ((*name).to_owned(), text.as_bytes().to_vec());
    of.iter().map(seed).collect()
}

fn named(of: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Vec<Seed> {
    let seed = |(name, bytes): (&str, Vec<u8>)| (name.to_owned(), bytes);
    of.into_iter().map(seed).collect()
}

/// A file that was opened once.
fn lineage() -> Lineage {
    let epoch = Epoch(9);
    let mut lineage = Provenance::new(epoch).lineage;
    lineage.begin(Opening {
        id: 4711,
        epoch,
        first: 0,
    });
    lineage
}

fn frames() -> Vec<Seed> {
    let root = NodeHash([3; 32]);
    let open = OpenRequest {
        replica: ReplicaId(7),
        root,
        follows: false,
        lineage: lineage(),
        seq: 17,
        seen: None,
        testimony: Testimony::new(&root, Seen::default()),
    };
    let compare = CompareRequest {
        session: 1,
        strategy: StrategyName::Sketch,
    };
    let heads = BodyHeads {
        heads: vec![BodyHead::missing(); 3],
    };
    let close = CloseRequest {
        session: 1,
        root: Some(root),
        complete: true,
    };
    let records = RecordsRequest {
        session: 1,
        depth: 29,
    };
    named([
        ("open", seal(Endpoint::Open.kind(), &open, b"")),
        (
            "compare",
            seal(Endpoint::Compare.kind(), &compare, &[1; 300]),
        ),
        ("bodies", seal(Endpoint::Bodies.kind(), &heads, b"bytes")),
        ("close", seal(Endpoint::Close.kind(), &close, b"")),
        (
            "records",
            seal(Endpoint::Records.kind(), &records, &[1, 3, 9]),
        ),
        (
            "short_bodies",
            seal_for(Protocol::V4, Endpoint::Bodies.kind(), &heads, b""),
        ),
        (
            "short_compare",
            seal_for(Protocol::V4, Endpoint::Compare.kind(), &compare, &[1; 300]),
        ),
        (
            "short_open",
            seal_for(Protocol::V4, Endpoint::Open.kind(), &open, b""),
        ),
        (
            "probe",
            seal(Endpoint::Probe.kind(), &ProbeRequest { root, said: 5 }, b""),
        ),
        (
            "probed",
            seal(Endpoint::Probe.kind(), &ProbeReply { said: Some(5) }, b""),
        ),
    ])
}

/// Whole dialogues of every strategy: all questions, and all answers of each behind their lengths.
fn dialogues() -> (Vec<Seed>, Vec<Seed>) {
    let (pair, context) = pair();
    let (mut questions, mut replies) = (Vec::new(), Vec::new());
    for (number, name) in StrategyName::ALL.into_iter().enumerate() {
        let Some(mut machine) = strategy(name, context) else {
            continue;
        };
        let mut told = vec![number as u8];
        let mut step = machine.advance(&pair.ours, None);
        while let Ok(Step::Ask(question)) = step {
            let asked = [&[number as u8][..], &question].concat();
            questions.push((format!("{name}-{}", questions.len()), asked));
            let Ok(answered) = answer(name, &pair.theirs, &question, &Budget::default()) else {
                break;
            };
            told.extend_from_slice(&(answered.len() as u16).to_le_bytes());
            told.extend_from_slice(&answered);
            step = machine.advance(&pair.ours, Some(&answered));
        }
        replies.push((name.to_string(), told));
    }
    (questions, replies)
}

fn cells() -> Vec<Seed> {
    let key = SketchKey::new(&Secret::default());
    let of = |places: u32, cells: usize| {
        let mut sketch = Sketch::new(key, 0);
        for place in 0..places {
            sketch.apply(&Change {
                place: place * 1_000_003 % (1 << 29),
                amount: place + 1,
                steps: [1, 0],
            });
        }
        let range = 0..cells;
        let folded = sketch.fold(0, &[0], &range).unwrap_or_default();
        to_bytes(&told_all(&folded, &range), &range)
    };
    named([
        ("empty", to_bytes(&[Told::default(); 8], &(0..8))),
        ("one", of(1, 8)),
        ("ten", of(10, 24)),
        ("too-many", of(40, 24)),
        ("hundred", of(100, 160)),
    ])
}

fn encodings() -> Vec<Seed> {
    let (pair, _) = pair();
    let mut sorted = Writer::new();
    sorted.sorted(&[1, 5, 900, 70_000]);
    let more = Question::More {
        levels: 3,
        slots: vec![1, 5],
        range: 10..30,
    };
    let mut seeds = named([("sorted", sorted.finish()), ("more", write_question(&more))]);
    if let Ok(mut filter) = BloomFilter::with_rate(20, 0.01, [7; 16]) {
        filter.insert(b"item");
        seeds.push(("filter".to_owned(), filter.to_bytes()));
    }
    if let Some(estimator) = pair.ours.sketch().and_then(SketchView::estimator) {
        let counted = Question::Counted {
            fingerprint: [1; 4],
            levels: 0,
            room: 20,
            counters: Box::new(estimator.to_full()),
        };
        seeds.push(("counted".to_owned(), write_question(&counted)));
    }
    let (questions, replies) = dialogues();
    for (name, bytes) in questions
        .into_iter()
        .filter(|(name, _)| name.starts_with("sketch"))
    {
        seeds.push((name, bytes[1..].to_vec()));
    }
    for (_, bytes) in replies.into_iter().filter(|(name, _)| name == "sketch") {
        seeds.push((
            "answer".to_owned(),
            bytes.get(3..).unwrap_or_default().to_vec(),
        ));
    }
    seeds
}

/// Two versions of a small state.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let old: Vec<u8> = (0..400u32).flat_map(|n| (n * 7919).to_le_bytes()).collect();
    let mut new = old.clone();
    new.splice(200..220, *b"something else stands here");
    for at in (0..new.len()).step_by(64) {
        new[at] = new[at].wrapping_add(1);
    }
    (old, new)
}

fn deltas() -> Vec<Seed> {
    let (old, new) = versions();
    let framed = |id: u8, base: &[u8], payload: &[u8]| {
        let (base_length, length) = (base.len() as u16, new.len() as u32);
        let head = [
            &[id][..],
            &base_length.to_le_bytes(),
            &length.to_le_bytes()[..3],
        ];
        [&head.concat()[..], base, payload].concat()
    };
    let mut seeds = Vec::new();
    for id in 0..=u8::MAX {
        let Some(codec) = codec(CodecId(id)) else {
            continue;
        };
        for (name, base) in [("with", Some(&old[..])), ("without", None)] {
            if let Ok(Some(payload)) = codec.encode(base, &new, Effort::Fast) {
                let name = format!("{}-{name}-base", codec.name());
                seeds.push((name, framed(id, base.unwrap_or_default(), &payload)));
            }
        }
    }
    if let Ok(delta) = dcz::encode(&old, &[7; 32], &new) {
        seeds.push(("dcz".to_owned(), framed(255, &old, &delta)));
    }
    seeds
}

fn archives() -> Vec<Seed> {
    let index = "series\tfirst\t0\t5\nseries\tsecond\t5\t3\n";
    let mut archive = (index.len() as u16).to_le_bytes().to_vec();
    archive.extend_from_slice(index.as_bytes());
    archive.extend(compress::compress(b"states!!", 3).unwrap_or_default());
    named([("two", archive), ("none", vec![0, 0])])
}

fn proofs(in_bytes: bool) -> Vec<Seed> {
    let root = root_of(leaves()).hash;
    let mut seeds = Vec::new();
    for (name, numbers) in [
        ("held", &[3u64][..]),
        ("absent", &[77]),
        ("some", &[1, 5, 50, 51]),
    ] {
        let id = |number: &u64| GameId::new(&format!("match/{number}")).ok();
        let Ok(asked) = Asked::new(numbers.iter().filter_map(id).collect()) else {
            continue;
        };
        let proof = MultiProof::among(leaves(), asked.keys());
        let bytes = if in_bytes {
            proof_bytes::encode(&asked, &proof).ok()
        } else {
            let namespace = Namespace::default_namespace();
            let text = MultiProofText::new(namespace, root, &asked, &proof).ok();
            text.and_then(|text| serde_json::to_vec(&text).ok())
        };
        seeds.push((name.to_owned(), bytes.unwrap_or_default()));
    }
    seeds
}

fn root_logs() -> Vec<Seed> {
    let entry = RootEntry {
        root: NodeHash([4; 32]),
        seq: 9,
        epoch: Epoch(5),
        incarnation: 1,
        time: 1_700_000_000_000,
    };
    let hash = entry.leaf();
    let log = LogHead {
        replica: ReplicaId(7),
        log: hash,
        size: 1,
        hash,
        newest: entry,
    };
    let head = SecretKey::from_seed(&[1; 32]).sign(&Namespace::default_namespace(), log);
    let heads = HeadsBody {
        own: Some(HeadBody::from(&head)),
        seen: Vec::new(),
    };
    let consistency = ConsistencyBody {
        from: 1,
        to: 2,
        proof: vec![LogHash([6; 32]).to_string()],
        head: None,
    };
    named([
        ("entry", entry.to_bytes().to_vec()),
        ("head", encode(&head)),
        ("heads", serde_json::to_vec(&heads).unwrap_or_default()),
        (
            "consistency",
            serde_json::to_vec(&consistency).unwrap_or_default(),
        ),
    ])
}

fn log_segments() -> Vec<Seed> {
    let entries = [
        Entry {
            commit: 8,
            kind: EntryKind::Changes(bytes::Bytes::from_static(b"changes")),
        },
        Entry {
            commit: 9,
            kind: EntryKind::Void,
        },
    ];
    let mut group = seal_group(SEGMENT, &entries);
    group.truncate(128);
    named([("group", group), ("blank", vec![0; 40])])
}

fn rows() -> Vec<Seed> {
    let mut seen = Seen::default();
    seen.raise(WriterId(5), 9);
    let mut vector = VersionVector::default();
    vector.set(WriterId(5), 9);
    let version = Version {
        vector,
        stamp: Stamp {
            millis: 1_700_000_000_000,
            logical: 0,
            replica: ReplicaId(5),
        },
        content: ContentHash::of(b"state"),
        size: 5,
        content_type: Some("text/plain".to_owned()),
        expires_at: None,
        tombstone: false,
        lease_epoch: 0,
    };
    let mut seeds = named([("lineage", encode(&lineage())), ("seen", encode(&seen))]);
    let placement = Placement::Inline(b"state".to_vec());
    let placed = Placed::of((&version, &placement));
    seeds.push(("history".to_owned(), history_to_bytes(&[placed])));
    if let Ok(id) = GameId::new("match/1") {
        let record = StateRecord::new(id, version);
        seeds.push(("record".to_owned(), encode(&record)));
        let row = RecordRow {
            leaf: record.leaf(),
            seq: 9,
            record,
            placements: vec![placement],
        };
        seeds.push(("row".to_owned(), row.to_bytes()));
    }
    seeds
}

fn backups() -> Vec<Seed> {
    let manifest = Manifest {
        format: FORMAT,
        backup: 1,
        time: "2026-01-02T03:04:05.678Z".to_owned(),
        replica: ReplicaId(7),
        samestate: "0.1.0".to_owned(),
        namespaces: vec![NamespacePart {
            namespace: Namespace::default_namespace(),
            cursor: Cursor {
                epoch: Epoch(9),
                seq: 17,
            },
            root: NodeHash([5; 32]),
            records: 2,
            states: 1,
            size: 3,
            updated_at: 4,
            parent: None,
            files: Vec::new(),
            written: Written::default(),
        }],
    };
    let block = seal_block(Kind::Pieces, 0, &versions().0);
    named([("manifest", manifest.to_bytes()), ("block", block)])
}
