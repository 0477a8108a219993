//! Slips in queries and in JSON: the answer names the parameter or member, says what is wrong with it, and what there
//! may be instead.

use axum::body::Body;
use axum::http::Method;

use crate::http::Face;

const NS: &str = "/v1/ns/default";

/// Every path that takes parameters, and those that it takes.
const WITH_QUERY: [(Method, &str, &str); 11] = [
    (Method::GET, "states", "parameters prefix, after and limit"),
    (Method::GET, "states/a", "parameters version and at"),
    (Method::PUT, "states/a", "parameters ttl,"),
    (Method::PATCH, "states/a", "parameters ttl,"),
    (Method::DELETE, "states/a", "parameters ttl,"),
    (Method::GET, "changes", "parameters since, limit and wait"),
    (Method::GET, "conflicts", "parameters after and limit"),
    (Method::GET, "tree", "parameters prefix, from, to and proof"),
    (
        Method::GET,
        "roots",
        "parameters from, limit, proofs and since",
    ),
    (Method::GET, "roots/inclusion", "parameters place and at"),
    (Method::GET, "roots/consistency", "parameters from and to"),
];

/// Every path that takes none, but for those of monitors and of the sync protocol.
const WITHOUT: [(Method, &str); 21] = [
    (Method::GET, "/v1/ns"),
    (Method::PUT, "/v1/ns/eu"),
    (Method::GET, "/v1/ns/default/root"),
    (Method::GET, "/v1/ns/default/agreement"),
    (Method::GET, "/v1/ns/default/roots/heads"),
    (Method::GET, "/v1/ns/default/history/a"),
    (Method::POST, "/v1/ns/default/restore/a"),
    (Method::GET, "/v1/ns/default/proofs/a"),
    (Method::POST, "/v1/ns/default/proofs"),
    (Method::POST, "/v1/ns/default/batch"),
    (Method::POST, "/v1/ns/default/sync/run"),
    (Method::POST, "/v1/ns/default/sync/diff"),
    (Method::GET, "/v1/peers"),
    (Method::PUT, "/v1/peers/eu"),
    (Method::DELETE, "/v1/peers/eu"),
    (Method::POST, "/v1/peers/eu/sync"),
    (Method::GET, "/v1/sessions"),
    (Method::GET, "/v1/stats"),
    (Method::POST, "/v1/admin/verify"),
    (Method::GET, "/v1/admin/jobs"),
    (Method::GET, "/v1/admin/jobs/1"),
];

async fn asked(face: &Face, method: Method, path: &str, code: &str) -> String {
    let reply = face.send(method, path, &[], Body::empty()).await;
    let problem = reply.problem(400, code);
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_parameter_that_is_none_is_named_with_those_there_are() {
    let face = Face::new();
    face.put("a", "x").await.ok(201);
    for (method, path, taken) in WITH_QUERY {
        let path = format!("{NS}/{path}?colour=red");
        let told = asked(&face, method, &path, "bad_query").await;
        let expected = "the parameter \"colour\" is unknown (this request takes the ";
        assert!(told.starts_with(expected), "{path}: {told}");
        assert!(told.contains(taken), "{path}: {told}");
    }
    let drop = "/v1/ns/default?confrm=default";
    let told = asked(&face, Method::DELETE, drop, "bad_query").await;
    let expected = "the parameter \"confrm\" is unknown, did you mean confirm? (this request takes the parameter confirm)";
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_path_without_parameters_refuses_each_and_does_nothing() {
    let face = Face::new();
    face.put("a", "x").await.ok(201);
    let root = face.get("/v1/ns/default/root").await.ok(200);
    for (method, path) in WITHOUT {
        let path = format!("{path}?ttl=5m");
        let told = asked(&face, method, &path, "bad_query").await;
        let expected = "the parameter \"ttl\" is unknown (this request takes no parameter)";
        assert_eq!(told, expected, "{path}");
    }
    face.get("/v1/ns/eu/root")
        .await
        .problem(404, "namespace_not_found");
    assert_eq!(face.get("/v1/ns/default/root").await.ok(200), root);
    // Whoever watches the process may add what they like.
    for path in ["/healthz?t=1", "/readyz?t=1", "/metrics?name=x"] {
        assert_eq!(face.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_form_is_repeated_with_what_is_expected() {
    let face = Face::new();
    for (path, expected) in [
        (
            "states?limit=abc",
            "limit: it takes a whole number below 2^64, not \"abc\"",
        ),
        (
            "states?limit=-1",
            "limit: it takes a whole number below 2^64, not \"-1\"",
        ),
        (
            "states?limit=",
            "limit: it takes a whole number below 2^64, not \"\"",
        ),
        (
            "states?limit=99999999999999999999",
            "not \"99999999999999999999\" (this request takes the parameters prefix,",
        ),
        (
            "states?limit=1&limit=2",
            "limit is there twice; give it once",
        ),
        (
            "states?prefix=%ff",
            "prefix: its value is not UTF-8 once percent-decoded",
        ),
        ("states?limt=1", "\"limt\" is unknown, did you mean limit?"),
        ("changes?wait=5", "such as 30s, 500ms or 1m; got \"5\""),
        (
            "tree?proof=yes",
            "proof: it takes true or false, not \"yes\"",
        ),
        ("roots?proofs", "proofs: it takes true or false, not \"\""),
        ("roots/inclusion", "give one of place and at"),
        ("roots/inclusion?place=1&at=1", "give one of place and at"),
        ("roots/consistency", "the parameter from is missing"),
        (
            "roots/consistency?from=0x10",
            "from: it takes a whole number",
        ),
    ] {
        let told = asked(&face, Method::GET, &format!("{NS}/{path}"), "bad_query").await;
        assert!(told.contains(expected), "{path}: {told}");
    }
}

/// Orders with a slip, and what is told of each.
const ORDERS: [(&str, &str, &str); 12] = [
    (
        "/v1/ns/default/restore/a",
        "",
        "the member version is missing (this request takes the member version)",
    ),
    (
        "/v1/ns/default/restore/a",
        r#"{"version":12}"#,
        "the member version: invalid type: integer `12`, expected a string",
    ),
    (
        "/v1/ns/default/restore/a",
        r#"["ab"]"#,
        "invalid type: sequence, expected an object at line 1",
    ),
    (
        "/v1/ns/default/restore/a",
        "{\"version\":\n12",
        "at line 2 column 2 (this request takes the member version)",
    ),
    (
        "/v1/admin/backup",
        r#"{"too":"/x"}"#,
        "\"too\" is unknown, did you mean to? (this request takes the members to and full)",
    ),
    (
        "/v1/admin/verify",
        r#"{"to":"/x"}"#,
        "the member \"to\" is unknown (this request takes no member)",
    ),
    (
        "/v1/ns/default/sync/run",
        r#"{"from":"eu","pull":"yes"}"#,
        "the member pull: invalid type: string \"yes\", expected a boolean",
    ),
    (
        "/v1/ns/default/sync/run",
        r#"{"from":"eu","from":"us"}"#,
        "the member from is there twice; give it once",
    ),
    (
        "/v1/ns/default/sync/diff",
        r#"{"from":"eu"}"#,
        "(this request takes the members peer and strategy)",
    ),
    (
        "/v1/peers/eu/sync",
        r#"{"ns":"eu"}"#,
        "the members namespace, pull, push and strategy",
    ),
    (
        "/v1/ns/default/proofs",
        r#"{"ids":["a",""]}"#,
        "the member ids: an id needs at least one byte",
    ),
    (
        "/v1/ns/default/proofs",
        r#"{"ids":"a"}"#,
        "the member ids: invalid type: string \"a\", expected a sequence",
    ),
];

#[tokio::test]
async fn a_member_of_an_order_is_named_with_those_there_are() {
    let face = Face::new();
    for (path, body, expected) in ORDERS {
        let reply = face.post(path, body).await;
        let problem = reply.problem(400, "bad_json");
        let told = problem["detail"].as_str().unwrap();
        assert!(
            told.starts_with("the body is not the expected JSON: "),
            "{told}"
        );
        assert!(told.contains(expected), "{path} {body}: {told}");
    }
    let none = face.post("/v1/ns/default/proofs", r#"{"ids":[]}"#).await;
    let told = none.problem(400, "bad_ids")["detail"].to_string();
    assert!(told.contains("ids is empty; name at least one"), "{told}");
}

#[tokio::test]
async fn a_line_of_a_batch_is_told_by_the_members_of_its_operation() {
    let face = Face::new();
    let good = r#"{"op":"put","id":"a","content":"eA=="}"#;
    for (bad, expected) in [
        (
            r#"{"op":"pt","id":"a"}"#,
            "the member op is to be \"put\" or \"delete\"",
        ),
        (
            r#"{"id":"a"}"#,
            "the member op is to be \"put\" or \"delete\"",
        ),
        (
            r#"{"op":"put","id":"a"}"#,
            "the member content is missing (beside op this operation takes the members id, content, content_type, ttl, if_match and if_none_match)",
        ),
        (
            r#"{"op":"put","id":"a","content":"eA==","ttl":5}"#,
            "the member ttl: invalid type: integer `5`, expected a string",
        ),
        (
            r#"{"op":"delete","id":"a","ifmatch":"*"}"#,
            "\"ifmatch\" is unknown, did you mean if_match? (beside op this operation takes the members id and if_match)",
        ),
        (
            r#"[{"op":"delete","id":"a"}]"#,
            "a batch is no JSON array: send one JSON object a line",
        ),
        (
            "hello",
            "the line is not the expected JSON: expected value at line 1 column 1",
        ),
        (
            r#"{"op":"put","id":"a","content":"%"}"#,
            "content is not base64",
        ),
    ] {
        let batch = format!("{good}\n\n{bad}\n{good}\n");
        let reply = face.post("/v1/ns/default/batch", batch).await;
        let problem = reply.problem(400, "bad_batch");
        assert_eq!(problem["line"], 3);
        let told = problem["detail"].as_str().unwrap();
        assert!(told.contains(expected), "{bad}: {told}");
    }
    face.get("/v1/ns/default/states/a")
        .await
        .problem(404, "not_found");
}
