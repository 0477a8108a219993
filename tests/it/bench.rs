//! `samestate bench` as a user runs it, briefly: its figures are there, and nothing is left behind.

use std::path::Path;

use serde_json::Value;

use crate::harness::process::{samestate, succeed, succeed_json};

fn figures(bench: &str, data: &Path, arguments: &[&str]) -> Value {
    let data = data.to_str().unwrap();
    let brief = ["--seconds", "1", "--rounds", "1", "--data", data];
    succeed_json(&[&["bench", bench], &brief[..], arguments].concat())
}

fn assert_positive(figures: &Value, names: &[&str]) {
    for name in names {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{name}: {figures}");
    }
}

#[test]
fn puts_and_gets_are_measured_beside_the_engine_alone() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--clients", "4", "--states", "100"];
    for bench in ["put", "get"] {
        let report = figures(bench, folder.path(), &few);
        assert_eq!(report["bench"], bench);
        assert_eq!(report["states"], 100);
        assert_positive(&report["disk"], &["sync_ms"]);
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["clients"], 4);
        let names = ["per_second", "p50_ms", "p99_ms", "redb_per_second", "ratio"];
        assert_positive(&rows[0], &names);
        assert!(rows[0]["p50_ms"].as_f64() <= rows[0]["p99_ms"].as_f64());
    }
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "files are left");
}

#[test]
fn a_killed_replica_loses_nothing_and_says_how_fast_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let report = figures("recover", folder.path(), &["--states", "300"]);
    assert_eq!(report["lost"], 0);
    // All states were loaded, and the writers wrote on.
    assert!(report["acknowledged"].as_u64().unwrap() > 300);
    assert_positive(&report, &["ready_ms", "first_read_ms", "redb_ms", "ratio"]);
    let kills = report["kills"].as_array().unwrap();
    assert_eq!(kills.len(), 1);
    assert_eq!(kills[0]["read_back"], 300);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn people_get_a_table_and_are_told_what_was_measured_where() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let brief = ["--seconds", "1", "--rounds", "1", "--states", "10"];
    let sizes = ["--clients", "1,2", "--value-bytes", "64", "--seed", "7"];
    let call = [&["bench", "put", "--data", data], &brief[..], &sizes[..]].concat();
    let text = String::from_utf8(succeed(&call)).unwrap();
    for part in [
        "bench put: 10 states of 64 B (seed 7); each side 1 x 1 s",
        "a 4 KiB write with fdatasync takes",
        "CLIENTS  PUTS/S  P50 MS  P99 MS  REDB PUTS/S  RATIO  GENERATOR",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let wrong = samestate(&["bench", "put", "--value-bytes", "63"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn deltas_are_measured_beside_zstd() {
    let report = succeed_json(&["bench", "delta", "--pairs", "1"]);
    let series = report["series"].as_array().unwrap();
    assert_eq!(
        series.len(),
        3,
        "two games, one of them with versions ten apart"
    );
    for one in series {
        let bytes = |method: &str| {
            let rows = one["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["method"] == method).unwrap();
            assert_positive(row, &["encode_ms"]);
            row["bytes"].as_u64().unwrap()
        };
        assert!(bytes("samestate fast") < bytes("patch 3 long"));
        assert!(bytes("samestate small") <= bytes("samestate fast"));
    }
    let small = report["small"].as_array().unwrap();
    let units = small.iter().find(|row| row["kind"] == "unit").unwrap();
    assert!(units["bytes"].as_f64().unwrap() * 4.0 < units["bytes_alone"].as_f64().unwrap());
}
