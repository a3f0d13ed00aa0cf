//! Outcomes from outside: from a guest, a worker, or a file.
//!
//! All of their text is cleaned, and its amount is limited. Fields are listed one by
//! one, so a new field does not compile until its treatment is decided here.

use std::collections::HashSet;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ArmOutcome, Map, Outcome, Seconds};
use faultlab_base::limits;
use faultlab_base::text::{clean_cell, clean_line, clean_lines};
use faultlab_net::capture::{Capture, ConntrackEvent, End, Frame, Probe};

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut outcome = Self::deserialize(deserializer)?;
        outcome.is_bounded().map_err(D::Error::custom)?;
        outcome.clean();
        Ok(outcome)
    }
}

impl Outcome {
    fn is_bounded(&self) -> Result<(), String> {
        if self.arms.len() > limits::ARMS {
            return Err(format!(
                "the outcome has {} arms, and the most are {}",
                self.arms.len(),
                limits::ARMS
            ));
        }
        let rows = self.arms.iter().flat_map(|arm| arm.observations.keys().chain(arm.unobserved.keys()));
        let rows = rows.collect::<HashSet<_>>().len();
        if rows > limits::ROWS {
            return Err(format!("the outcome has {rows} rows, and the most are {}", limits::ROWS));
        }
        Ok(())
    }

    /// Cleans all text; see [`faultlab_base::text`]. An outcome that was read is
    /// already clean.
    pub fn clean(&mut self) {
        let Self {
            scenario,
            kernel,
            kernel_id,
            machine: _,
            clock: _,
            era,
            verdict: _,
            expected: _,
            reason,
            settings,
            symptom,
            control_is_healthy: _,
            arms,
            log,
            seconds: Seconds { wall: _, virtual_time: _, wire: _ },
        } = self;
        [scenario, kernel, symptom].into_iter().for_each(clean_cell);
        [kernel_id, era].into_iter().flatten().for_each(clean_cell);
        // The last output of a guest's console has several lines.
        reason.iter_mut().for_each(clean_lines);
        clean_map(settings, clean_cell);
        arms.iter_mut().for_each(ArmOutcome::clean);
        clean_list(log);
    }
}

impl ArmOutcome {
    fn clean(&mut self) {
        let Self {
            name,
            kind: _,
            change,
            symptom: _,
            observations,
            unobserved,
            because,
            evidence,
            why,
            capture_gap,
            capture,
        } = self;
        clean_cell(name);
        [change].into_iter().chain(capture_gap).for_each(clean_line);
        clean_map(observations, clean_cell);
        clean_map(unobserved, clean_cell);
        clean_map(evidence, clean_list);
        clean_list(because);
        clean_list(why);
        capture.iter_mut().for_each(clean_capture);
    }
}

fn clean_map<V>(map: &mut Map<V>, mut clean: impl FnMut(&mut V)) {
    for (key, value) in &mut map.0 {
        clean_cell(key);
        clean(value);
    }
}

fn clean_list(list: &mut Vec<String>) {
    if list.len() > limits::LINES {
        let left_out = list.len() - (limits::LINES - 1);
        list.truncate(limits::LINES - 1);
        list.push(format!("... {left_out} more lines are left out"));
    }
    list.iter_mut().for_each(clean_line);
}

fn clean_capture(capture: &mut Capture) {
    let Capture { ends, frames, until, last_observation, lost: _, tracked, events_cut: _, probes } = capture;
    [until].into_iter().chain(last_observation).for_each(|at| *at = (*at).min(limits::TIME));
    let count = ends.len();
    for End { host, interface, addresses: _, peer } in ends {
        [host, interface].into_iter().for_each(clean_cell);
        *peer = peer.filter(|peer| *peer < count);
    }
    for Frame { at, end: _, outgoing: _, length: _, bytes: _, comment, carried: _ } in frames {
        *at = (*at).min(limits::TIME);
        comment.iter_mut().for_each(clean_line);
    }
    for ConntrackEvent { at, host, id: _, happened: _, flow, state } in tracked {
        *at = (*at).min(limits::TIME);
        [host, flow, state].into_iter().for_each(clean_line);
    }
    for Probe { at, host, act: _, local: _, remote: _, met, row } in probes {
        *at = (*at).min(limits::TIME);
        [host].into_iter().chain(met).chain(row).for_each(clean_line);
    }
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
