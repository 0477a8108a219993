//! One state: storing, reading, deleting, conditions, ranges, versions, conflicts.

use axum::body::Body;
use axum::http::Method;
use samestate::replica::command::{Command, Incoming};
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::id::{GameId, ReplicaId, WriterId};
use samestate::types::record::StateRecord;
use samestate::types::version::{Stamp, Version, VersionVector};

use crate::http::Face;

const A: &str = "/v1/ns/default/states/a";

#[tokio::test]
async fn a_state_is_stored_replaced_read_and_deleted() {
    let face = Face::new();
    let typed = ["Content-Type: application/x-save"];
    let created = face.send(Method::PUT, A, &typed, "one").await;
    let receipt = created.ok(201);
    let hash = ContentHash::of(b"one").to_hex();
    assert_eq!(receipt["id"], "a");
    assert_eq!(receipt["size"], 3);
    assert_eq!(receipt["seq"], 1);
    assert_eq!(receipt["content_hash"], hash);
    assert_eq!(receipt["etag"], created.header("etag"));
    assert_eq!(
        receipt["root"],
        face.get("/v1/ns/default/root").await.json()["root"]
    );

    let read = face.get(A).await;
    assert_eq!((read.status, read.text()), (200, "one"));
    assert_eq!(read.header("etag"), created.header("etag"));
    assert_eq!(read.header("content-type"), "application/x-save");
    assert_eq!(read.header("content-length"), "3");
    assert_eq!(read.header("samestate-version"), hash);
    assert_eq!(read.header("samestate-conflicts"), "0");
    assert_eq!(read.header("accept-ranges"), "bytes");
    assert!(read.header("last-modified").ends_with(" GMT"));

    let head = face.send(Method::HEAD, A, &[], Body::empty()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for (name, value) in &head.headers {
        assert_eq!(read.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(head.headers.len(), read.headers.len());

    let replaced = face.put("a", "two").await;
    assert_ne!(replaced.ok(200)["etag"], receipt["etag"]);
    let read = face.get(A).await;
    assert_eq!(read.header("content-type"), "application/octet-stream");

    let deleted = face.delete(A).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    face.get(A).await.problem(404, "not_found");
    face.delete(A).await.problem(404, "not_found");
    let head = face.send(Method::HEAD, A, &[], Body::empty()).await;
    assert_eq!((head.status, head.body.len()), (404, 0));
    face.put("a", "").await.ok(201);
    assert_eq!(face.get(A).await.body, b"");
}

#[tokio::test]
async fn conditions_are_honoured() {
    let face = Face::new();
    let put = async |header: &str| face.send(Method::PUT, A, &[header], "x").await;
    let refused = put("If-Match: *").await.problem(412, "precondition_failed");
    assert!(refused["etag"].is_null());
    put("If-None-Match: *").await.ok(201);
    let refused = put("If-None-Match: *")
        .await
        .problem(412, "precondition_failed");
    let tag = refused["etag"].as_str().unwrap().to_owned();
    assert_eq!(tag, face.get(A).await.header("etag"));
    put(&format!("If-Match: W/{tag}"))
        .await
        .problem(412, "precondition_failed");
    put(&format!("If-Match: \"other\", {tag}")).await.ok(200);
    put(&format!("If-Match: {tag}"))
        .await
        .problem(412, "precondition_failed");
    put("If-Match: tag").await.problem(400, "bad_header");

    let stale = format!("If-Match: {tag}");
    let delete = async |header: &str| face.send(Method::DELETE, A, &[header], Body::empty()).await;
    delete(&stale).await.problem(412, "precondition_failed");
    assert_eq!(delete("If-Match: *").await.status, 204);
}

#[tokio::test]
async fn readers_are_not_sent_what_they_hold() {
    let face = Face::new();
    let tag = face.put("a", "x").await.header("etag").to_owned();
    for method in [Method::GET, Method::HEAD] {
        for (header, status) in [
            (format!("If-None-Match: {tag}"), 304),
            (format!("If-None-Match: \"other\", W/{tag}"), 304),
            ("If-None-Match: *".into(), 304),
            ("If-None-Match: \"other\"".into(), 200),
        ] {
            let reply = face
                .send(method.clone(), A, &[&header], Body::empty())
                .await;
            assert_eq!(
                (reply.status, reply.header("etag")),
                (status, tag.as_str()),
                "{header}"
            );
            assert_eq!(
                reply.body.is_empty(),
                status == 304 || method == Method::HEAD
            );
        }
    }
    let held = ["If-None-Match: nonsense"];
    face.send(Method::GET, A, &held, Body::empty())
        .await
        .problem(400, "bad_header");
}

#[tokio::test]
async fn parts_are_read() {
    let face = Face::new();
    let tag = face.put("a", "0123456789").await.header("etag").to_owned();
    let get = async |headers: &[&str]| face.send(Method::GET, A, headers, Body::empty()).await;
    for (range, part, shown) in [
        ("Range: bytes=0-0", "0", "bytes 0-0/10"),
        ("Range: bytes=7-", "789", "bytes 7-9/10"),
        ("Range: bytes=-2", "89", "bytes 8-9/10"),
        ("Range: bytes=3-99", "3456789", "bytes 3-9/10"),
    ] {
        let reply = get(&[range]).await;
        assert_eq!((reply.status, reply.text()), (206, part), "{range}");
        assert_eq!(reply.header("content-range"), shown);
        assert_eq!(reply.header("content-length"), part.len().to_string());
        assert_eq!(reply.header("etag"), tag);
    }
    let outside = get(&["Range: bytes=10-"]).await;
    outside.problem(416, "range_not_satisfiable");
    assert_eq!(outside.header("content-range"), "bytes */10");
    assert_eq!(get(&["Range: bytes=0-1,3-4"]).await.status, 200);
    let same = format!("If-Range: {tag}");
    assert_eq!(get(&["Range: bytes=0-1", &same]).await.status, 206);
    assert_eq!(
        get(&["Range: bytes=0-1", "If-Range: \"old\""]).await.status,
        200
    );
}

#[tokio::test]
async fn ids_are_taken_as_they_are_meant() {
    let face = Face::new();
    let long = "x".repeat(512);
    for (path, id) in [
        ("match/eu-1/42", "match/eu-1/42"),
        ("match%2Feu-1%2F43", "match/eu-1/43"),
        ("a%20b%3Fc%23%2541+", "a b?c#%41+"),
        ("%C3%A9", "é"),
        ("/a//b/", "/a//b/"),
        ("a%2F..%2Fb", "a/../b"),
        (&long, &long),
    ] {
        let receipt = face.put(path, id).await.ok(201);
        assert_eq!(receipt["id"], id);
        let read = face.get(&format!("/v1/ns/default/states/{path}")).await;
        assert_eq!(read.text(), id);
        for resource in ["history", "proofs"] {
            let told = face.get(&format!("/v1/ns/default/{resource}/{path}")).await;
            assert_eq!(told.ok(200)["id"], id);
        }
    }
    for path in ["%FF", "a%00", "%0A", &"x".repeat(513)] {
        face.put(path, "").await.problem(400, "bad_id");
    }
    face.put("", "").await.problem(404, "unknown_path");
}

#[tokio::test]
async fn older_versions_are_listed_read_and_restored() {
    let face = Face::new();
    let (first, second) = (ContentHash::of(b"one"), ContentHash::of(b"two"));
    face.send(Method::PUT, A, &["Content-Type: text/a"], "one")
        .await
        .ok(201);
    face.put("a", "two").await.ok(200);
    assert_eq!(face.delete(A).await.status, 204);

    let history = face.get("/v1/ns/default/history/a").await.ok(200);
    let versions = history["versions"].as_array().unwrap();
    let hashes: Vec<_> = versions
        .iter()
        .map(|version| version["content_hash"].as_str())
        .collect();
    assert_eq!(
        hashes,
        [None, Some(&*second.to_hex()), Some(&*first.to_hex())]
    );
    assert_eq!(versions[0]["deleted"], true);
    assert_eq!(versions[2]["content_type"], "text/a");
    assert_eq!(versions[2]["size"], 3);
    assert_eq!(versions[2]["replica"], face.app.replica.id().to_string());

    let old = face.get(&format!("{A}?version={first}")).await;
    assert_eq!((old.status, old.text()), (200, "one"));
    assert_eq!(old.header("etag"), format!("\"{first}\""));
    assert_eq!(old.header("content-type"), "text/a");
    let none = ContentHash::of(b"none");
    face.get(&format!("{A}?version={none}"))
        .await
        .problem(404, "not_found");
    face.get(&format!("{A}?version=12"))
        .await
        .problem(400, "bad_version");
    face.get(&format!("{A}?versoin=12"))
        .await
        .problem(400, "bad_query");

    let restore = async |body: String| face.post("/v1/ns/default/restore/a", body).await;
    let order = |hash| format!("{{\"version\":\"{hash}\"}}");
    restore(order(none.to_hex()))
        .await
        .problem(404, "not_found");
    restore(order("12".into()))
        .await
        .problem(400, "bad_version");
    restore("{}".into()).await.problem(400, "bad_json");
    assert_eq!(
        restore(order(first.to_hex())).await.ok(201)["content_hash"],
        first.to_hex()
    );
    let read = face.get(A).await;
    assert_eq!(
        (read.text(), read.header("content-type")),
        ("one", "text/a")
    );
    face.get("/v1/ns/default/history/b")
        .await
        .problem(404, "not_found");
}

/// What another replica wrote without having seen ours.
fn foreign(id: &str, text: &'static str, millis: u64) -> Command {
    let (hash, replica) = (ContentHash::of(text.as_bytes()), ReplicaId(7));
    let mut vector = VersionVector::default();
    vector.set(WriterId(7), 1);
    let version = Version {
        vector,
        stamp: Stamp {
            millis,
            logical: 0,
            replica,
        },
        content: hash,
        size: text.len() as u64,
        content_type: None,
        expires_at: None,
        tombstone: false,
        lease_epoch: 0,
    };
    Command::Merge(vec![Incoming {
        record: StateRecord::new(GameId::new(id).unwrap(), version),
        bodies: vec![samestate::store::body::Body::new(text.as_bytes())],
    }])
}

#[tokio::test]
async fn conflicts_are_shown_and_resolved() {
    let face = Face::new();
    for id in ["a", "b", "c"] {
        face.put(id, "ours").await.ok(201);
    }
    for id in ["a", "c", "d"] {
        face.namespace()
            .submit(foreign(id, "theirs", 1000))
            .await
            .unwrap();
    }
    let read = face.get(A).await;
    assert_eq!(
        (read.text(), read.header("samestate-conflicts")),
        ("ours", "1")
    );
    let conflicts = "/v1/ns/default/conflicts";
    let page = face.get(conflicts).await.ok(200);
    assert_eq!(page["conflicts"][0]["id"], "a");
    assert_eq!(page["conflicts"][1]["id"], "c");
    assert_eq!(page["conflicts"].as_array().unwrap().len(), 2);
    assert!(page["next"].is_null());
    let shown = &page["conflicts"][0];
    assert_eq!(shown["etag"], read.header("etag"));
    let hashes = [&b"ours"[..], b"theirs"].map(|text| ContentHash::of(text).to_hex());
    for (version, hash) in shown["versions"].as_array().unwrap().iter().zip(&hashes) {
        assert_eq!(version["content_hash"], *hash);
    }
    assert_eq!(
        face.get(&format!("{A}?version={}", hashes[1])).await.text(),
        "theirs"
    );

    let first = face.get(&format!("{conflicts}?limit=1")).await.ok(200);
    assert_eq!(first["conflicts"][0]["id"], "a");
    let next = first["next"].as_str().unwrap();
    let second = face
        .get(&format!("{conflicts}?limit=1&after={next}"))
        .await
        .ok(200);
    assert_eq!(second["conflicts"][0]["id"], "c");
    let other = format!("{conflicts}?after=00000000000000ab-1");
    face.get(&other).await.problem(410, "cursor_expired");

    let condition = format!("If-Match: {}", shown["etag"].as_str().unwrap());
    face.send(Method::PUT, A, &[&condition], "merged")
        .await
        .ok(200);
    assert_eq!(face.get(A).await.header("samestate-conflicts"), "0");
    let page = face.get(conflicts).await.ok(200);
    assert_eq!(page["conflicts"][0]["id"], "c");
}

#[tokio::test]
async fn proofs_lead_to_the_root() {
    use samestate::merkle::node::Summary;
    use samestate::merkle::proof::{Proof, Proven};
    use samestate::types::hash::{LeafDigest, NodeHash};
    use samestate::types::leaf::Leaf;

    let face = Face::new();
    for number in 0..20 {
        face.put(&format!("m/{number}"), "x").await.ok(201);
    }
    let root = face.get("/v1/ns/default/root").await.json()["root"].clone();
    for (id, kind) in [("m/7", "inclusion"), ("m/20", "absence")] {
        let told = face
            .get(&format!("/v1/ns/default/proofs/{id}"))
            .await
            .ok(200);
        assert_eq!(
            (&told["namespace"], &told["id"]),
            (&"default".into(), &id.into())
        );
        assert_eq!((&told["kind"], &told["root"]), (&kind.into(), &root));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let siblings = told["path"].as_array().unwrap().iter().map(|node| Summary {
            hash: text(&node["hash"]).parse().unwrap(),
            leaves: node["leaves"].as_u64().unwrap(),
            size: node["size"].as_u64().unwrap(),
            updated_at: node["updated_at"].as_u64().unwrap(),
        });
        let terminal = told.get("leaf").map(|leaf| Leaf {
            key: text(&leaf["key"]).parse().unwrap(),
            digest: text(&leaf["digest"]).parse::<LeafDigest>().unwrap(),
            size: leaf["size"].as_u64().unwrap(),
            updated_at: leaf["updated_at"].as_u64().unwrap(),
        });
        let proof = Proof {
            siblings: siblings.collect(),
            terminal,
        };
        let root: NodeHash = text(&root).parse().unwrap();
        let key = StateKey::of(&GameId::new(id).unwrap());
        let included = matches!(proof.verify(&root, &key).unwrap(), Proven::Included(_));
        assert_eq!(included, kind == "inclusion");
    }
}
