//! The demonstration, run as a user runs it: it checks itself, and here is checked that it does.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_samestate"))
        .args(["demo", "--once"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn the_demonstration_holds_and_leaves_its_data_where_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    let output = demo(&["--data", data.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for line in [
        "1  Three replicas start",
        "equal roots on a, b and c",
        "times fewer bytes than zstd",
        "freeciv/player/0 is in conflict on all three",
        "a PUT with If-Match resolved it, a second one got 412",
        "acknowledged writes is lost",
        "samestate verify read",
        "All of it held",
    ] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours go to terminals only");
    for name in ["a", "b", "c"] {
        assert!(data.join(name).is_dir() && data.join(format!("{name}.log")).is_file());
    }

    let again = demo(&["--data", data.to_str().unwrap()]);
    let refusal = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1));
    assert!(refusal.contains("is not empty"), "{refusal}");
}

#[test]
fn programs_get_one_line_of_json_with_what_each_step_sent() {
    let output = demo(&["--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["held"], true);
    let steps = summary["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    let wire = |step: &Value| step["bytes_on_the_wire"].as_u64().unwrap();
    assert_eq!(steps.iter().map(wire).sum::<u64>(), wire(&summary["total"]));
    // An hour of saves costs a small part of what the saves themselves are.
    let saves = &steps[1];
    assert!(wire(saves) * 10 < saves["bytes_if_sent_whole"].as_u64().unwrap());
}
