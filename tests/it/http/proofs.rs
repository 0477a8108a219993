//! Proofs of one state and of several, as JSON and as bytes, up to their check by the program.

use axum::http::Method;
use samestate::merkle::proof::Proven;
use samestate::merkle::proof_bytes::verify_bytes;
use samestate::merkle::proof_text::verify_text;
use samestate::types::hash::NodeHash;
use serde_json::json;

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
