//! The model against what 4.9 and 3.10 kernels did.

use serde::Deserialize;

use super::*;

/// A line of tests/vectors/tw_recycle.jsonl: one cell measured on a real kernel.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Cell {
    kernel: String,
    case: String,
    server_closes_first: bool,
    tsval_delta: Option<i64>,
    ts_option: bool,
    delay_s: f64,
    guest_sec_diff: u64,
    tw_recycle: u8,
    synack: bool,
    pawspassive_delta: u64,
}

/// The clock's phase within its second at the close, and the segments that close.
pub(super) fn case(name: &str) -> (f64, &'static [(Side, Flags)]) {
    const C: Side = Side::Client;
    const S: Side = Side::Server;
    const RST: Flags = Flags::RST_ACK;
    match name {
        "server_first" => (0.0, &[(S, FIN), (C, ACK), (C, FIN), (S, ACK)]),
        "server_first_no_client_fin" => (0.0, &[(S, FIN), (C, ACK)]),
        "client_first" => (0.0, &[(C, FIN), (S, ACK), (S, FIN), (C, ACK)]),
        "established" => (0.0, &[]),
        "rst_by_client" => (0.0, &[(C, RST)]),
        "rst_by_server" => (0.0, &[(S, RST)]),
        edge => {
            let phase = edge.strip_prefix("edge_close_phase_").and_then(|phase| phase.parse().ok());
            (phase.unwrap_or_else(|| panic!("unknown case {name}")), case("server_first").1)
        }
    }
}

fn replay(cell: &Cell) -> (bool, u64) {
    let rule = match cell.kernel.split('.').next() {
        Some("3") => Rule::UpTo3_16,
        Some("4") => Rule::From3_17,
        _ => panic!("unknown kernel {}", cell.kernel),
    };
    let (phase, segments) = case(&cell.case);
    let mut lab = Lab::new(rule);
    lab.model.set_recycle(cell.tw_recycle == 1);
    lab.now = Duration::from_secs_f64(1000.0 + phase);
    let mut talk = lab.open(41000, Some(TICKS));
    lab.close(&mut talk, segments);

    let stamped = cell.server_closes_first && cell.tw_recycle == 1;
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER).is_some(), stamped, "after the close of {cell:?}");

    // The delay was at least this long; what it took besides is known by the
    // whole seconds that went by.
    let second = lab.now.as_secs() + cell.guest_sec_diff;
    lab.now = (lab.now + Duration::from_secs_f64(cell.delay_s)).max(Duration::from_secs(second));
    assert_eq!(lab.now.as_secs(), second, "the clock cannot be as in {cell:?}");
    let tsval =
        cell.tsval_delta.map(|delta| u32::try_from((i64::from(TICKS) + delta).rem_euclid(1 << 32)).unwrap());
    assert_eq!(tsval.is_some(), cell.ts_option);
    let verdict = lab.syn(41001, tsval);
    let Counters { paws_passive, listen_drops } = lab.model.counters();
    assert_eq!(listen_drops, paws_passive, "every drop counts twice");
    (verdict == Verdict::Pass, paws_passive)
}

#[test]
fn agrees_with_every_cell_of_the_old_kernels() {
    let cells: Vec<Cell> = include_str!("../../../../tests/vectors/tw_recycle.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(cells.len(), 808);
    let wrong: Vec<_> = cells
        .iter()
        .map(|cell| (cell, replay(cell)))
        .filter(|(cell, seen)| *seen != (cell.synack, cell.pawspassive_delta))
        .collect();
    assert!(wrong.is_empty(), "{} cells differ: {wrong:#?}", wrong.len());
}
