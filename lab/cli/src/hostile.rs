//! Outcomes with hostile text in every field, in every output format.

use clap::Parser;
use serde_json::{Value, json};

use super::options::Options;
use super::run::told;
use super::{ladders, options, pcap, report};
use faultlab_base::text::{is_plain, line};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_machine::job::Report;
use faultlab_model::outcome::{Outcome, Verdict};
use faultlab_model::scenario::{Arms, Card, Environment};
use faultlab_net::topology::Topology;
use faultlab_report::html::{Drawings, Page, html};
use faultlab_report::made::column;
use faultlab_report::matrix::{Column, matrix};
use faultlab_report::pcapng::Frames;
use faultlab_report::{Style, junit, ktap, pcapng};

/// Text that a hostile guest may send: a terminal title, a cleared screen, forged
/// lines of this program and of KTAP, bidirectional overrides, markup.
const HOSTILE: &str = "\x1b]0;t\x07\u{9b}2J\nfaultlab: all as expected\r\nok 1 forged\n  ok 1 forged\u{85}\u{2028}\
                       \u{202e}\u{2066}\u{200b}\u{feff}<script>\"'&\x7f\t\0# SKIP";

/// String fields that are not free text: enum names, addresses, bytes.
const NO_TEXT: [&str; 11] = [
    "machine",
    "clock",
    "verdict",
    "kind",
    "act",
    "happened",
    "carried",
    "bytes",
    "addresses",
    "local",
    "remote",
];

/// The value with all text replaced by hostile text.
fn hostile(key: &str, value: Value) -> Value {
    match value {
        Value::String(_) if !NO_TEXT.contains(&key) => HOSTILE.into(),
        Value::Array(values) => values.into_iter().map(|value| hostile(key, value)).collect(),
        Value::Object(fields) => {
            // The keys of these maps are names of rows or hosts.
            let map = ["settings", "observations", "unseen", "evidence"].contains(&key);
            let field = |(name, value): (String, Value)| {
                let value = hostile(&name, value);
                (if map { HOSTILE.to_owned() } else { name }, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        other => other,
    }
}

fn outcome() -> Value {
    let mut outcome =
        serde_json::to_value(&column("6.1", Verdict::Reproduced, "reset", false).outcomes[0]).unwrap();
    outcome["era"] = "x".into();
    outcome["log"] = json!(["x"]);
    outcome["settings"] = json!({"x": "x"});
    for arm in outcome["arms"].as_array_mut().unwrap() {
        arm["symptom"] = (arm["kind"] == "fault").into();
        for list in ["because", "why"] {
            arm[list] = json!(["x", "x"]);
        }
        arm["change"] = "x".into();
        arm["unseen"] = json!({"x": "x"});
        arm["evidence"] = json!({"x": ["x"]});
        arm["unwatched"] = "x".into();
        let at = json!({"secs": 1, "nanos": 0});
        let frame = "0200000000010200000000020800450000280000400040060000c0000201c0000202aabb0050000000010000\
                     000050020000000000000000";
        arm["capture"] = json!({
            "ends": [{"host": "x", "interface": "x", "addresses": ["192.0.2.1"]}, {"host": "y", "interface": "x", "addresses": ["192.0.2.2"]}],
            "frames": [{"at": at, "end": 0, "outgoing": true, "length": 54, "bytes": frame, "comment": "x"}],
            "until": at, "lost": 0, "untold": false,
            "tracked": [{"at": at, "host": "x", "id": 1, "happened": "new", "flow": "x", "state": "x"}],
            "probes": [{"at": at, "host": "x", "act": "connects", "local": "192.0.2.1:43707",
                "remote": "192.0.2.2:80", "met": "x", "row": "x"}],
        });
    }
    hostile("", outcome)
}

/// The outcome as a guest sends it, and as the lab derives it from a guest's
/// console.
fn outcomes() -> [Outcome; 2] {
    let sent: Outcome = serde_json::from_value(outcome()).unwrap();
    let mut made = sent.clone();
    made.reason = Some(HOSTILE.into());
    made.kernel_id = Some(HOSTILE.into());
    [sent, made]
}

fn columns(outcome: &Outcome) -> Vec<Column> {
    let column = Column::new(HOSTILE, vec![outcome.clone()]);
    let other = Column { kernel: format!("{} other", column.kernel).into(), ..column.clone() };
    vec![column, other]
}

fn catalogue() -> Catalogue {
    let name: &'static str = Box::leak(line(HOSTILE).into_owned().into_boxed_str());
    let card = Card::for_test(name, "A title");
    let arms = |_: &Environment| Arms::control("", Topology::new(), ()).fault("", |_| {});
    let scenario = Scenario::new(card, ("the connection", "open"), arms, async |_, ()| Ok(()));
    Catalogue { scenarios: Box::leak(Box::new([scenario])), snapshots: |_| None }
}

#[derive(Debug, Parser)]
struct Typed {
    #[command(flatten)]
    run: options::Run,
}

fn options(words: &[&str], catalogue: &Catalogue) -> Options {
    let words = ["faultlab"].into_iter().chain(words.iter().copied());
    Typed::try_parse_from(words).unwrap().run.options(catalogue).unwrap()
}

/// Checks that a text has no terminal control characters, and no line that the
/// hostile text starts.
fn is_harmless(format: &str, text: &str) {
    let raw: Vec<char> = text.chars().filter(|letter| *letter != '\n' && !is_plain(*letter)).collect();
    assert!(raw.is_empty(), "{format}: {raw:?}");
    // Lines have no meaning in markup.
    for line in text.lines().filter(|_| !text.starts_with('<')) {
        assert!(!line.starts_with("faultlab:") && !line.starts_with("ok 1 forged"), "{format}: {text}");
    }
    assert!(text.contains("]0;t"), "{format} has nothing of it: {text:?}");
}

const PLAIN: Style = Style { width: 80, colour: false };

#[test]
fn no_format_lets_hostile_text_through() {
    let catalogue = catalogue();
    for outcome in outcomes() {
        let columns = columns(&outcome);
        let mut drawn = columns[0].outcomes[0].clone();
        let drawings = [ladders::take(&mut drawn)];
        let told = |words: &[&str]| {
            let options = options(words, &catalogue);
            told(&catalogue, &options, None, &columns[0].outcomes, &drawings, PLAIN)
        };
        is_harmless("text", &told(&[]));
        is_harmless("why", &told(&["--kernel", "a", "--kernel", "b"]));
        is_harmless("ladder", &told(&["--ladder"]));
        let json = told(&["--json"]);
        is_harmless("JSON", &json);
        assert_eq!(json.lines().count(), 1);
        is_harmless("matrix", &matrix(&columns, PLAIN));
        let ktap = ktap::ktap(&columns);
        is_harmless("KTAP", &ktap);
        let results = ktap.lines().map(str::trim_start);
        assert_eq!(results.filter(|l| l.starts_with("ok ") || l.starts_with("not ok ")).count(), 4, "{ktap}");
        // A `#` in a name would be read as a directive.
        assert!(
            ktap.lines().all(|line| line.matches('#').count() <= 1 || line.starts_with("  # ")),
            "{ktap}"
        );
        is_harmless("JUnit", &junit::junit(&columns).unwrap());
    }
}

#[test]
fn no_report_lets_hostile_text_through() {
    let catalogue = catalogue();
    let options = options(&[], &catalogue);
    for outcome in outcomes() {
        let mut columns = columns(&outcome);
        let mut drawings = Drawings::new();
        for column in &mut columns {
            for outcome in &mut column.outcomes {
                drawings.insert((column.kernel.clone(), outcome.scenario.clone()), ladders::take(outcome));
            }
        }
        let html = html(&Page {
            columns: &columns,
            drawings: &drawings,
            scenario: &|_| None,
            command: &|outcome| report::command(&options, outcome),
            pcap: &|outcome, arm| Some(pcap::file(outcome, arm)),
        });
        is_harmless("HTML", &html);
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains("<svg"), "{html}");
    }
}

#[test]
fn no_capture_and_no_name_of_a_file_lets_hostile_text_through() {
    for outcome in outcomes() {
        let columns = columns(&outcome);
        let outcome = &columns[0].outcomes[0];
        let folder = tempfile::tempdir().unwrap();
        pcap::write(outcome, Frames::AsSent, folder.path()).unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
        // Both arms have the same name.
        assert_eq!(files.len(), 1);
        let name = files[0].file_name().into_string().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name}");
        assert!(!name.starts_with('.') && name.len() <= 255, "{name}");

        let mut bytes = vec![];
        pcapng::write(outcome.arms[0].capture.as_ref().unwrap(), Frames::BothEnds, "about", &mut bytes)
            .unwrap();
        let has = |part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
        assert!(has("]0;t") && has("probe "));
        for part in ["\x1b]", "\x07", "\u{9b}", "\nfaultlab:", "\nok 1", "\u{202e}", "\u{200b}"] {
            assert!(!has(part), "{part:?}");
        }
    }
}

#[test]
fn what_a_guest_reports_meanwhile_is_clean() {
    let read = |kind: &str| match serde_json::from_value(json!({kind: HOSTILE})).unwrap() {
        Report::ArmEnded(text) => text.to_string(),
        Report::Failed(text) => text.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(read("arm-ended").chars().all(is_plain));
    // A panic quotes the last lines of the console.
    assert!(read("failed").chars().all(|letter| letter == '\n' || is_plain(letter)));
}
