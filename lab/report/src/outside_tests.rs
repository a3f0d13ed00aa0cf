//! Rendering of untrusted outcomes.

use faultlab_base::limits;
use faultlab_model::made::outcome;
use faultlab_model::outcome::{Outcome, Verdict};
use serde_json::json;

#[test]
fn the_longest_time_is_no_overflow() {
    let outcome = outcome("6.1", Verdict::Reproduced, "reset", true);
    let mut value = serde_json::to_value(outcome).unwrap();
    let never = json!({"secs": limits::TIME.as_secs(), "nanos": 0});
    value["arms"][1]["capture"] = json!({
        "ends": [{"host": "a", "interface": "eth0", "addresses": []}], "until": never, "lost": 0,
        "frames": [{"at": never, "end": 0, "outgoing": true, "length": 1, "bytes": "00", "comment": null}],
        "tracked": [{"at": never, "host": "a", "id": 1, "happened": "new", "flow": "f", "state": "s"}],
    });
    let outcome: Outcome = serde_json::from_value(value).unwrap();
    let capture = outcome.arms[1].capture.as_ref().unwrap();
    let lanes = crate::lanes::Lanes::of(capture).unwrap();
    assert!(!lanes.svg("").is_empty() && !lanes.lines().is_empty());
    assert!(!crate::ladder::Ladder::of(capture).text().is_empty());
}
