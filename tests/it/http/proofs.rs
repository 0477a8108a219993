//! Proofs of one state and of several, as JSON and as bytes, up to their check by the program.

use axum::http::Method;
use samestate::merkle::proof::Proven;
use samestate::merkle::proof_bytes::verify_bytes;
use samestate::merkle::proof_text::verify_text;
use samestate::merkle::range_text::RangeText;
use samestate::types::hash::{NodeHash, StateKey};
use samestate::types::id::GameId;
use serde_json::{Value, json};

use crate::harness::process::{Server, samestate, succeed, succeed_json};
use crate::http::Face;

const PROOFS: &str = "/v1/ns/default/proofs";
const BYTES: &str = "Accept: application/octet-stream";

async fn face() -> (Face, NodeHash) {
    let face = Face::new();
    for number in 0..50 {
        face.put(&format!("m/{number}"), "x").await.ok(201);
    }
    let told = face.get("/v1/ns/default/root").await.json();
    let root = told["root"].as_str().unwrap().parse().unwrap();
    (face, root)
}

#[tokio::test]
async fn one_and_several_states_are_proven_in_both_forms() {
    let (face, root) = face().await;
    let ids = ["m/3", "m/49", "m/50", "elsewhere"];
    let wanted = json!({ "ids": ids }).to_string();
    let text = face.post(PROOFS, wanted.clone()).await;
    let bytes = face.send(Method::POST, PROOFS, &[BYTES], wanted).await;
    assert_eq!(text.ok(200)["root"], root.to_hex());
    assert_eq!(bytes.header("content-type"), "application/octet-stream");
    assert_eq!(bytes.header("samestate-root"), root.to_hex());
    let shown = verify_bytes(&bytes.body, &root).unwrap();
    assert_eq!(verify_text(text.text(), &root).unwrap(), shown);
    assert_eq!((shown.whole.leaves, shown.whole.size), (50, 50));
    assert_eq!(shown.answers.len(), 4);
    for (id, proven) in shown.answers {
        let included = matches!(proven, Proven::Included(_));
        assert_eq!(
            included,
            id.as_str() == "m/3" || id.as_str() == "m/49",
            "{id}"
        );
    }
    for id in ids {
        let path = format!("{PROOFS}/{id}");
        let text = face.get(&path).await;
        let bytes = face.send(Method::GET, &path, &[BYTES], "").await;
        let shown = verify_bytes(&bytes.body, &root).unwrap();
        assert_eq!(verify_text(text.text(), &root).unwrap(), shown);
        assert!(bytes.body.len() * 3 < text.body.len());
    }
}

#[tokio::test]
async fn lists_of_ids_are_bounded_and_checked() {
    let (face, root) = face().await;
    let many = |count: usize| {
        let ids: Vec<String> = (0..count).map(|n| format!("m/{n}")).collect();
        json!({ "ids": ids }).to_string()
    };
    let most = face.send(Method::POST, PROOFS, &[BYTES], many(1000)).await;
    let shown = verify_bytes(&most.body, &root).unwrap();
    assert_eq!(shown.answers.len(), 1000);
    face.post(PROOFS, many(1001)).await.problem(400, "bad_ids");
    face.post(PROOFS, many(0)).await.problem(400, "bad_ids");
    let repeated = face.post(PROOFS, json!({"ids": ["m/1", "m/1"]}).to_string());
    assert_eq!(
        repeated.await.ok(200)["states"].as_array().unwrap().len(),
        1
    );
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"ids":[""]}"#,
        r#"{"ids":["a"],"more":1}"#,
    ] {
        face.post(PROOFS, bad).await.problem(400, "bad_json");
    }
    let long = "x".repeat(5 << 20);
    face.post(PROOFS, long).await.problem(413, "body_too_large");
    face.post("/v1/ns/none/proofs", many(1))
        .await
        .problem(404, "namespace_not_found");
}

#[test]
fn the_program_fetches_and_checks_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    for number in 0..20 {
        server.put(&format!("m/{number}"), b"x");
    }
    let root = server.root();
    let file = folder.path().join("proof");
    let file = file.to_str().unwrap();
    let verify = |root: &str| samestate(&["verify-proof", file, "--root", root]);
    for ids in [&["m/1"][..], &["m/1", "none", "m/2"]] {
        for form in [&[][..], &["--binary"]] {
            let rest = ["--server", &server.url, "-o", file];
            succeed(&[&["proof"], ids, form, &rest].concat());
            let output = verify(&root);
            let told = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{told}");
            assert!(
                told.contains("20 records") && told.contains("have m/1: 1 B"),
                "{told}"
            );
            assert_eq!(told.contains("have no none"), ids.len() > 1, "{told}");
            let other = verify(&"1".repeat(64));
            assert_eq!((other.status.code(), other.stdout.len()), (Some(1), 0));
            let sound = std::fs::read(file).unwrap();
            let mut damaged = sound.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            for bytes in [&damaged[..], &sound[..middle]] {
                std::fs::write(file, bytes).unwrap();
                assert_eq!(verify(&root).status.code(), Some(1));
            }
        }
    }
    let piped = succeed(&["proof", "m/1", "--binary", "--server", &server.url]);
    std::fs::write(file, piped).unwrap();
    let told = succeed_json(&["verify-proof", file, "--root", &root]);
    assert_eq!(
        (&told["kind"], &told["records"]),
        (&json!("inclusion"), &json!(20))
    );
}

/// Records and bytes of the states `m/0` to `m/49`, a byte each, with keys from one to another.
fn held(from: &Value, to: &Value) -> (u64, u64) {
    let keys = (0..50).map(|n| StateKey::of(&GameId::new(&format!("m/{n}")).unwrap()).to_hex());
    let (from, to) = (from.as_str().unwrap(), to.as_str().unwrap());
    let count = keys
        .filter(|key| from <= key.as_str() && key.as_str() <= to)
        .count();
    (count as u64, count as u64)
}

#[tokio::test]
async fn ranges_of_keys_are_added_up_and_proven() {
    let (face, root) = face().await;
    let tree = "/v1/ns/default/tree";
    for (query, from, to, depth) in [
        ("", "0", "f", Some(0)),
        ("prefix=a", "a0", "af", Some(4)),
        ("prefix=7e", "7e0", "7ef", Some(8)),
        (
            "prefix=0123456789abcdef",
            "0123456789abcdef0",
            "0123456789abcdeff",
            Some(64),
        ),
        ("from=4&to=7", "40", "7f", None),
        ("from=c", "c0", "ff", None),
        ("to=3a", "00", "3af", None),
    ] {
        let told = face.get(&format!("{tree}?{query}")).await.ok(200);
        let end = |digits: &str, rest: &str| format!("{digits}{}", rest.repeat(64 - digits.len()));
        assert_eq!(told["from"], end(from, "0"), "{query}");
        assert_eq!(told["to"], end(to, "f"), "{query}");
        let totals = held(&told["from"], &told["to"]);
        assert_eq!(told["records"], totals.0, "{query}");
        assert_eq!(told["total_size"], totals.1, "{query}");
        assert_eq!(
            told["updated_at"].as_u64() > Some(0),
            totals.0 > 0,
            "{query}"
        );
        assert_eq!(told["node"]["depth"].as_u64(), depth, "{query}");
        assert!(told.get("nodes").is_none(), "{query}");
        let proven = face.get(&format!("{tree}?{query}&proof=true")).await;
        let (range, shown) = RangeText::verify(proven.text(), &root).unwrap();
        assert_eq!(range.first.to_hex(), end(from, "0"));
        assert_eq!((shown.totals.leaves, shown.totals.size), totals);
        assert_eq!((shown.whole.leaves, shown.whole.size), (50, 50));
        assert!(
            RangeText::verify(&told.to_string(), &root).is_err(),
            "no proof"
        );
        for (member, other) in [("records", 49), ("total_size", 51), ("updated_at", 1)] {
            let mut forged = proven.json();
            forged[member] = json!(other);
            assert!(
                RangeText::verify(&forged.to_string(), &root).is_err(),
                "{member}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_range_is_refused() {
    let (face, root) = face().await;
    let tree = "/v1/ns/default/tree";
    let whole = face.get(tree).await.ok(200);
    assert_eq!(whole["node"]["hash"], root.to_hex());
    for query in [
        "prefix=g",
        "prefix=a&from=a",
        "prefix=0123456789abcdef0",
        "from=b&to=a",
    ] {
        face.get(&format!("{tree}?{query}"))
            .await
            .problem(400, "bad_range");
    }
    face.get(&format!("{tree}?depth=3"))
        .await
        .problem(400, "bad_query");
}

#[test]
fn the_program_adds_a_range_up_and_checks_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let empty = succeed_json(&["tree", "--server", &server.url]);
    assert_eq!(
        (&empty["records"], &empty["updated_at"]),
        (&json!(0), &json!(0))
    );
    for number in 0..50 {
        server.put(&format!("m/{number}"), b"x");
    }
    let root = server.root();
    let file = folder.path().join("proof");
    let file = file.to_str().unwrap();
    let at = ["--server", &server.url];
    let told = succeed_json(&[&["tree", "--prefix", "a"], &at[..]].concat());
    let (records, _) = held(&told["from"], &told["to"]);
    assert_eq!(told["records"], records);
    let words = samestate(&[&["tree", "--prefix", "a"], &at[..]].concat());
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains(&format!("{records} record")) && words.contains("at depth 4"),
        "{words}"
    );
    succeed(
        &[
            &["tree", "--from", "4", "--to", "7", "--proof", "-o", file],
            &at[..],
        ]
        .concat(),
    );
    let told = succeed_json(&["verify-proof", file, "--root", &root]);
    let (records, size) = held(&told["from"], &told["to"]);
    assert_eq!(
        (&told["records"], &told["total_size"]),
        (&json!(records), &json!(size))
    );
    assert_eq!(
        (&told["valid"], &told["all_records"]),
        (&json!(true), &json!(50))
    );
    let words = succeed(&["verify-proof", file, "--root", &root]);
    let words = String::from_utf8(words).unwrap();
    assert!(
        words.contains("50 records") && words.contains("with keys 4000"),
        "{words}"
    );
    let other = samestate(&["verify-proof", file, "--root", &"1".repeat(64)]);
    assert_eq!((other.status.code(), other.stdout.len()), (Some(1), 0));
    let sound = std::fs::read_to_string(file).unwrap();
    let changed = sound.replace("\"leaves\":", "\"leaves\":1");
    assert_ne!(changed, sound);
    std::fs::write(file, changed).unwrap();
    let forged = samestate(&["verify-proof", file, "--root", &root]);
    assert_eq!(forged.status.code(), Some(1));
}
