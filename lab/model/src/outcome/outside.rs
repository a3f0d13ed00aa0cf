//! Checks of untrusted outcomes: from a guest, a worker, or a file.
//!
//! The types of the texts clean them. This module checks the rest: the number of parts,
//! times, and the indices from one part into another. Structs are destructured field by
//! field, so that a new field does not compile until it is handled here.

use std::collections::HashSet;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ArmOutcome, Outcome, Seconds};
use faultlab_base::limits;
use faultlab_base::text::Line;
use faultlab_net::capture::{Capture, ConntrackEvent, End, Frame, Probe};

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut outcome = Self::deserialize(deserializer)?;
        outcome.limit().map_err(D::Error::custom)?;
        Ok(outcome)
    }
}

impl Outcome {
    /// Cuts lists of lines that are too long.
    ///
    /// # Errors
    /// If there is too much of anything else, a time is impossible, or an index is out of
    /// range: a clause.
    fn limit(&mut self) -> Result<(), String> {
        let Self {
            scenario: _,
            kernel: _,
            kernel_id: _,
            machine: _,
            clock: _,
            era: _,
            verdict: _,
            expected: _,
            without_reference: _,
            reason: _,
            settings: _,
            symptom: _,
            control_is_healthy: _,
            arms,
            log,
            seconds: Seconds { wall, virtual_time, wire },
        } = self;
        most("arms", arms.len(), limits::ARMS)?;
        let rows = arms.iter().flat_map(|arm| arm.observations.keys().chain(arm.unobserved.keys()));
        most("rows", rows.collect::<HashSet<_>>().len(), limits::ROWS)?;
        let possible = 0.0..=limits::TIME.as_secs_f64();
        if ![Some(*wall), *virtual_time, *wire].into_iter().flatten().all(|time| possible.contains(&time)) {
            return Err("the outcome took a time that cannot be".to_owned());
        }
        shorten(log);
        arms.iter_mut().try_for_each(ArmOutcome::limit)
    }
}

impl ArmOutcome {
    fn limit(&mut self) -> Result<(), String> {
        let Self {
            name,
            kind: _,
            change: _,
            symptom: _,
            observations: _,
            unobserved: _,
            because,
            evidence,
            why,
            capture_gap: _,
            capture,
        } = self;
        evidence.0.iter_mut().map(|(_, lines)| lines).chain([because, why]).for_each(shorten);
        let capture = capture.iter_mut().try_for_each(limit_capture);
        capture.map_err(|why| format!("its arm {name}: {why}"))
    }
}

fn shorten(list: &mut Vec<Line>) {
    if list.len() > limits::LINES {
        let left_out = list.len() - (limits::LINES - 1);
        list.truncate(limits::LINES - 1);
        list.push(format!("... {left_out} more lines are left out").into());
    }
}

fn limit_capture(capture: &mut Capture) -> Result<(), String> {
    let Capture { ends, frames, until, last_observation, lost: _, tracked, events_cut: _, probes } = capture;
    most("interfaces", ends.len(), limits::INTERFACES)?;
    most("frames", frames.len(), limits::FRAMES)?;
    most("conntrack events", tracked.len(), limits::LINES)?;
    most("probes", probes.len(), limits::LINES)?;
    let count = ends.len();
    for End { host: _, interface: _, addresses, peer } in ends {
        most("addresses of an interface", addresses.len(), limits::INTERFACES)?;
        *peer = peer.filter(|peer| *peer < count);
    }
    let mut latest = last_observation.map_or(*until, |at| at.max(*until));
    let mut reaches = |at: Duration| latest = latest.max(at);
    for Frame { at, end, outgoing: _, length: _, bytes: _, comment: _, carried: _ } in frames {
        if *end >= count {
            return Err("a frame was captured on no interface".to_owned());
        }
        reaches(*at);
    }
    for ConntrackEvent { at, host: _, id: _, happened: _, flow: _, state: _ } in tracked {
        reaches(*at);
    }
    for Probe { at, host: _, act: _, local: _, remote: _, met: _, row: _ } in probes {
        reaches(*at);
    }
    if latest > limits::TIME { Err("its capture took longer than ten years".to_owned()) } else { Ok(()) }
}

fn most(of: &str, number: usize, most: usize) -> Result<(), String> {
    if number > most { Err(format!("there are {number} {of}, and the most are {most}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::made;
    use crate::outcome::Verdict;

    fn outcome() -> Value {
        serde_json::to_value(made::outcome("6.1", Verdict::Reproduced, "reset", true)).unwrap()
    }

    fn read(outcome: &Value) -> Result<Outcome, String> {
        serde_json::from_str(&outcome.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn arms_rows_lines_and_letters_have_limits() {
        let many =
            |n: usize| (0..n).map(|n| (n.to_string(), json!("cell"))).collect::<serde_json::Map<_, _>>();
        let mut arms = outcome();
        arms["arms"] = vec![arms["arms"][0].clone(); 5000].into();
        assert!(read(&arms).unwrap_err().contains("5000 arms"));
        let mut rows = outcome();
        rows["arms"][0]["observations"] = many(5000).into();
        assert!(read(&rows).unwrap_err().contains("more than 256 entries"));
        // Each arm has few rows, but all arms together have many.
        let mut rows = outcome();
        rows["arms"][0]["observations"] = many(200).into();
        rows["arms"][1]["unseen"] = (0..200).map(|n| (format!("other {n}"), json!("why"))).collect();
        assert!(read(&rows).unwrap_err().contains("401 rows"));

        let mut long = outcome();
        long["scenario"] = "x".repeat(5_000_000).into();
        long["log"] = vec!["line"; 50_000].into();
        let long = read(&long).unwrap();
        assert_eq!((long.scenario.len(), long.log.len()), (limits::CELL, limits::LINES));
        assert_eq!(long.log.last().unwrap(), "... 30001 more lines are left out");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let broken = |change: &dyn Fn(&mut Value)| {
            let mut outcome = outcome();
            change(&mut outcome);
            read(&outcome).unwrap_err()
        };
        let capture = |frame: Value, until: u64| json!({ "ends": [], "frames": frame, "lost": 0, "until": { "secs": until, "nanos": 0 } });
        let frame = json!([{
            "at": { "secs": 0, "nanos": 0 }, "end": 0, "outgoing": true, "length": 0, "bytes": "",
        }]);
        let none = broken(&|o| o["arms"][0]["capture"] = capture(frame.clone(), 0));
        assert!(none.contains("captured on no interface"), "{none}");
        let long = broken(&|o| o["arms"][0]["capture"] = capture(json!([]), u64::MAX));
        assert!(long.contains("longer than ten years"), "{long}");
        for seconds in [-1.0, 1e300] {
            let time = broken(&|o| o["seconds"]["wall"] = seconds.into());
            assert!(time.contains("a time that cannot be"), "{time}");
        }
        let twice = serde_json::from_str::<crate::outcome::Map<String>>(r#"{"a": "1", "a": "2"}"#);
        assert!(twice.unwrap_err().to_string().contains("\"a\" twice"));
    }

    #[test]
    fn an_end_without_a_peer_is_read_and_a_peer_that_is_none_of_the_ends_is_no_peer() {
        let end = |peer: Option<Value>| {
            let mut end = json!({ "host": "a", "interface": "b", "addresses": [] });
            end.as_object_mut().unwrap().extend(peer.map(|peer| ("peer".to_owned(), peer)));
            end
        };
        let ends = [None, Some(json!(0)), Some(json!(4)), Some(json!(null))].map(end);
        let mut outcome = outcome();
        outcome["arms"][0]["capture"] = json!({ "ends": ends, "frames": [], "lost": 0 });
        let capture = read(&outcome).unwrap().arms.swap_remove(0).capture.unwrap();
        assert_eq!(capture.ends.iter().map(|end| end.peer).collect::<Vec<_>>(), [None, Some(0), None, None]);
    }
}
