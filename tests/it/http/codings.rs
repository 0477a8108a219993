//! States as zstd and as deltas: what readers get, what `PATCH` takes, and that the command line tool
//! understands both.

use std::fs;
use std::path::Path;
use std::process::Command;

use axum::body::Body;
use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use samestate::delta::compress::{compress, decompress};
use samestate::delta::dcz;
use samestate::types::hash::ContentHash;

use crate::http::{Face, Reply, STATE_BYTES};

const A: &str = "/v1/ns/default/states/a";

fn save(turn: u32) -> String {
    let line = |n: u32| format!("unit={n},{},{}\n", n * 7919 % 1000, (n + turn) % 50 / 49);
    (0..2000).map(line).collect()
}

fn dictionary(bytes: &str) -> String {
    let hash = ContentHash::of(bytes.as_bytes());
    format!("Available-Dictionary: :{}:", STANDARD.encode(hash.0))
}

fn delta(old: &str, new: &str) -> Vec<u8> {
    let hash = ContentHash::of(old.as_bytes());
    dcz::encode(old.as_bytes(), &hash.0, new.as_bytes()).unwrap()
}

async fn read(face: &Face, headers: &[&str]) -> Reply {
    face.send(Method::GET, A, headers, Body::empty()).await
}

async fn patch(face: &Face, etag: &str, body: Vec<u8>) -> Reply {
    let condition = format!("If-Match: {etag}");
    let headers = [condition.as_str(), "Content-Encoding: dcz"];
    face.send(Method::PATCH, A, &headers, body).await
}

#[tokio::test]
async fn readers_get_the_coding_that_they_take() {
    let face = Face::new();
    face.put("a", &save(1)).await.ok(201);
    face.put("a", &save(2)).await.ok(200);
    let plain = read(&face, &[]).await;
    assert_eq!(
        (plain.header("content-encoding"), plain.text()),
        ("", save(2).as_str())
    );
    assert_eq!(
        plain.header("vary"),
        "accept-encoding, available-dictionary"
    );
    let zstd = read(&face, &["Accept-Encoding: gzip, zstd"]).await;
    assert_eq!(zstd.header("content-encoding"), "zstd");
    assert_eq!(zstd.header("content-length"), zstd.body.len().to_string());
    assert_eq!(zstd.header("etag"), plain.header("etag"));
    assert_eq!(decompress(&zstd.body, 1 << 20).unwrap(), save(2).as_bytes());
    let held = dictionary(&save(1));
    let dcz = read(&face, &["Accept-Encoding: zstd, dcz", &held]).await;
    assert_eq!(dcz.header("content-encoding"), "dcz");
    assert!(dcz.body.len() * 4 < zstd.body.len(), "{}", dcz.body.len());
    let (hash, frame) = dcz::split(&dcz.body).unwrap();
    assert_eq!(hash, &ContentHash::of(save(1).as_bytes()).0);
    assert_eq!(
        dcz::decode(save(1).as_bytes(), frame, 1 << 20).unwrap(),
        save(2).as_bytes()
    );
}

#[tokio::test]
async fn what_cannot_be_coded_comes_as_it_can() {
    let face = Face::new();
    face.put("a", &save(1)).await.ok(201);
    let unknown = dictionary("never stored");
    let zstd = read(&face, &["Accept-Encoding: dcz, zstd", &unknown]).await;
    assert_eq!(zstd.header("content-encoding"), "zstd");
    let part = read(&face, &["Accept-Encoding: zstd", "Range: bytes=0-3"]).await;
    assert_eq!(
        (part.status, part.header("content-encoding"), part.text()),
        (206, "", "unit")
    );
    face.put("a", "short").await.ok(200);
    let short = read(&face, &["Accept-Encoding: zstd"]).await;
    assert_eq!(
        (short.header("content-encoding"), short.text()),
        ("", "short")
    );
}

#[tokio::test]
async fn a_delta_replaces_the_version_it_was_made_from() {
    let face = Face::new();
    let typed = ["Content-Type: text/save"];
    face.send(Method::PUT, A, &typed, save(1)).await.ok(201);
    let etag = read(&face, &[]).await.header("etag").to_owned();
    let receipt = patch(&face, &etag, delta(&save(1), &save(2))).await.ok(200);
    assert_eq!(receipt["size"], save(2).len());
    let now = read(&face, &[]).await;
    assert_eq!(
        (now.text(), now.header("content-type")),
        (save(2).as_str(), "text/save")
    );
    assert_eq!(now.header("etag"), receipt["etag"].as_str().unwrap());
    // The tag is that of before; then the tag is right, and the delta is for other bytes.
    let again = patch(&face, &etag, delta(&save(1), &save(3))).await;
    assert_eq!(
        again.problem(412, "precondition_failed")["etag"],
        now.header("etag")
    );
    let foreign = patch(&face, now.header("etag"), delta(&save(1), &save(3))).await;
    let problem = foreign.problem(409, "dictionary_mismatch");
    assert_eq!(problem["content_hash"], now.header("samestate-version"));
    assert_eq!(read(&face, &[]).await.text(), save(2));
}

#[tokio::test]
async fn deltas_that_cannot_be_applied_change_nothing() {
    let face = Face::new();
    face.put("a", &save(1)).await.ok(201);
    let etag = read(&face, &[]).await.header("etag").to_owned();
    let good = delta(&save(1), &save(2));
    let coded = ["Content-Encoding: dcz"];
    let blind = face.send(Method::PATCH, A, &coded, good.clone()).await;
    blind.problem(428, "if_match_required");
    let condition = format!("If-Match: {etag}");
    let whole = face.send(Method::PATCH, A, &[&condition], save(2)).await;
    whole.problem(415, "unsupported_content_encoding");
    let put = face.send(Method::PUT, A, &coded, good.clone()).await;
    put.problem(415, "unsupported_content_encoding");
    for cut in [0, 7, 39, 40, good.len() - 1] {
        let reply = patch(&face, &etag, good[..cut].to_vec()).await;
        reply.problem(400, "bad_content_encoding");
    }
    let zeros = compress(&vec![0; STATE_BYTES as usize + 1], 3).unwrap();
    let bomb = [&good[..dcz::HEADER_BYTES], &zeros].concat();
    patch(&face, &etag, bomb)
        .await
        .problem(413, "state_too_large");
    let elsewhere = "/v1/ns/default/states/b";
    let nothing = face
        .send(Method::PATCH, elsewhere, &[&condition, coded[0]], good)
        .await;
    nothing.problem(404, "not_found");
    assert_eq!(read(&face, &[]).await.text(), save(1));
}

fn zstd(folder: &Path, arguments: &[&str]) -> bool {
    let run = Command::new("zstd")
        .current_dir(folder)
        .args(arguments)
        .output();
    run.is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn the_command_line_tool_reads_and_writes_the_same_deltas() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    if !zstd(folder.path(), &["-V"]) {
        println!("skipped: zstd is not installed");
        return;
    }
    let face = Face::new();
    face.put("a", &save(1)).await.ok(201);
    face.put("a", &save(2)).await.ok(200);
    let held = dictionary(&save(1));
    let reply = read(&face, &["Accept-Encoding: dcz", &held]).await;
    fs::write(path("old"), save(1)).unwrap();
    fs::write(path("delta.zst"), &reply.body).unwrap();
    let arguments = ["-q", "-d", "--patch-from=old", "delta.zst", "-o", "new"];
    assert!(zstd(folder.path(), &arguments));
    assert_eq!(fs::read_to_string(path("new")).unwrap(), save(2));
    fs::write(path("next"), save(3)).unwrap();
    assert!(zstd(
        folder.path(),
        &["-q", "--patch-from=new", "next", "-o", "frame"]
    ));
    let header = delta(&save(2), "")[..dcz::HEADER_BYTES].to_vec();
    let body = [header, fs::read(path("frame")).unwrap()].concat();
    let etag = reply.header("etag").to_owned();
    patch(&face, &etag, body).await.ok(200);
    assert_eq!(read(&face, &[]).await.text(), save(3));
}

#[tokio::test]
async fn browsers_may_keep_a_version_by_its_hash_as_a_dictionary() {
    let face = Face::new();
    face.put("a", &save(1)).await.ok(201);
    let by_hash = |text: &str| format!("{A}?version={}", ContentHash::of(text.as_bytes()));
    let get = async |path: &str, headers: &[&str]| {
        face.send(Method::GET, path, headers, Body::empty()).await
    };
    let first = get(&by_hash(&save(1)), &[]).await;
    assert_eq!((first.status, first.text()), (200, save(1).as_str()));
    let pattern = r#"match="/v1/ns/default/states/a\\?version=*""#;
    assert_eq!(first.header("use-as-dictionary"), pattern);
    assert_eq!(first.header("cache-control"), "private, max-age=3600");
    // What the shown state is may change at any moment.
    let shown = get(A, &[]).await;
    assert_eq!(shown.header("use-as-dictionary"), "");
    assert_eq!(shown.header("cache-control"), "no-cache");
    // The browser then asks for the next version like this.
    face.put("a", &save(2)).await.ok(200);
    let held = dictionary(&save(1));
    let next = get(
        &by_hash(&save(2)),
        &["Accept-Encoding: gzip, br, zstd, dcb, dcz", &held],
    )
    .await;
    assert_eq!(next.header("content-encoding"), "dcz");
    assert_eq!(next.header("use-as-dictionary"), pattern);
    let (_, frame) = dcz::split(&next.body).unwrap();
    let decoded = dcz::decode(save(1).as_bytes(), frame, 1 << 20).unwrap();
    assert_eq!(decoded, save(2).as_bytes());
    // What expires, and what is not there, is not to be kept.
    let absent = get(&by_hash("absent"), &[]).await;
    assert_eq!(
        (absent.status, absent.header("use-as-dictionary")),
        (404, "")
    );
    let short_lived = format!("{A}?ttl=10s");
    face.send(Method::PUT, &short_lived, &[], Body::from(save(3)))
        .await
        .ok(200);
    let expiring = get(&by_hash(&save(3)), &[]).await;
    assert_eq!(
        (expiring.status, expiring.header("use-as-dictionary")),
        (200, "")
    );
    assert_eq!(expiring.header("cache-control"), "no-cache");
}
