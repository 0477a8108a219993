//! `tests/fixtures/root-log.json`, made by an implementation of RFC 9162 and RFC 8032 that shares no
//! line with this one.

use std::collections::BTreeMap;
use std::convert::Infallible;

use samestate::roots::entry::{RootEntry, log_name};
use samestate::roots::head::{LogHead, SecretKey};
use samestate::roots::mountains::{Nodes, consistency, inclusion, nodes_above, root};
use samestate::roots::verify::{is_consistent, is_included};
use samestate::types::hash::{FileHash, LogHash, hex};
use samestate::types::id::Namespace;
use samestate::wire::roots::EntryBody;
use serde_json::Value;

use crate::harness::fixture;

#[derive(Default)]
struct Kept(BTreeMap<(u8, u64), LogHash>);

impl Nodes for Kept {
    type Error = Infallible;

    fn node(&self, height: u8, place: u64) -> Result<LogHash, Infallible> {
        Ok(self.0[&(height, place)])
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

fn hash(value: &Value, name: &str) -> LogHash {
    text(value, name).parse().unwrap()
}

fn proof(value: &Value) -> Vec<LogHash> {
    let hashes = value["proof"].as_array().unwrap().iter();
    hashes
        .map(|hash| hash.as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn logs_of_roots_are_those_of_the_vectors() {
    let vectors = std::fs::read(fixture("root-log.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&vectors).unwrap();
    let list = |name: &str| vectors[name].as_array().unwrap().clone();
    let entry = |value: &Value| {
        let body: EntryBody = serde_json::from_value(value.clone()).unwrap();
        RootEntry::try_from(&body).unwrap()
    };
    let entries: Vec<RootEntry> = list("entries").iter().map(entry).collect();
    let namespace = Namespace::new(text(&vectors, "namespace")).unwrap();
    let seed: FileHash = text(&vectors, "seed").parse().unwrap();
    let key = SecretKey::from_seed(&seed.0);
    assert_eq!(hex(&key.public().0), text(&vectors, "key"));
    let log = log_name(entries[0].epoch, &entries[0].leaf());
    assert_eq!(log, hash(&vectors, "log"));

    let (mut kept, mut roots) = (Kept::default(), vec![LogHash([0; 32])]);
    for (place, entry) in entries.iter().enumerate() {
        let (leaf, told) = (entry.leaf(), &list("leaves")[place]);
        assert_eq!(leaf.to_hex(), told.as_str().unwrap());
        let Ok(above) = nodes_above(&kept, place as u64, leaf);
        kept.0.insert((0, place as u64), leaf);
        kept.0
            .extend(above.iter().map(|n| ((n.height, n.place), n.hash)));
        let size = place as u64 + 1;
        let Ok(Some(top)) = root(&kept, size) else {
            panic!("no root");
        };
        let told = &list("heads")[place];
        assert_eq!(top, hash(told, "hash"));
        let signed = key.sign(
            &namespace,
            LogHead {
                replica: text(&vectors, "replica").parse().unwrap(),
                log,
                size,
                hash: top,
                newest: *entry,
            },
        );
        assert_eq!(hex(&signed.signature), text(told, "signature"));
        assert!(signed.is_signed(&namespace));
        roots.push(top);
    }
    for told in list("inclusion") {
        let (place, size) = (
            told["place"].as_u64().unwrap(),
            told["size"].as_u64().unwrap(),
        );
        let told = proof(&told);
        assert_eq!(inclusion(&kept, place, size), Ok(Some(told.clone())));
        let (entry, top) = (&entries[place as usize], &roots[size as usize]);
        assert!(is_included(entry, place, size, &told, top));
    }
    for told in list("consistency") {
        let (from, to) = (told["from"].as_u64().unwrap(), told["to"].as_u64().unwrap());
        let told = proof(&told);
        assert_eq!(consistency(&kept, from, to), Ok(Some(told.clone())));
        let (old, new) = (&roots[from as usize], &roots[to as usize]);
        assert!(is_consistent((from, old), (to, new), &told));
    }
}
