//! Outcomes with values that no reviewed snapshot has, in every format.

use faultlab_model::outcome::Verdict;

use crate::html::{Drawings, Page, html};
use crate::made::column;
use crate::matrix::{Column, matrix};
use crate::{Style, junit, ktap, table};

const STYLE: Style = Style { width: 100, colour: false };

fn judged_by_difference() -> Column {
    let mut column = column("6.1", Verdict::Reproduced, "reset", true);
    column.outcomes[0].without_reference = true;
    column.outcomes[0].reason =
        Some("no reference for these values (timeout=100): a keepalive is too slow".into());
    column
}

#[test]
fn every_format_says_that_there_is_no_reference() {
    let columns = [judged_by_difference()];
    assert_eq!(table::verdict(&columns[0].outcomes[0], STYLE), "reproduced, no reference");
    insta::assert_snapshot!(matrix(&columns, STYLE), @r"
                      6.1
      ──────────────────────────
      beyond-window   reproduced
      6.1, beyond-window: no reference for these values (timeout=100): a keepalive is too slow
    ");
    insta::assert_snapshot!(ktap::ktap(&columns), @r"
    KTAP version 1
    1..1
      KTAP version 1
      1..1
      ok 1 beyond-window # reproduced
      # no reference for these values (timeout=100): a keepalive is too slow
    ok 1 6.1
    ");
    let junit = junit::junit(&columns).unwrap();
    let reason = "no reference for these values (timeout=100): a keepalive is too slow";
    assert!(junit.contains(&format!("<system-out>{reason}</system-out>")), "{junit}");
    assert!(junit.contains("failures=\"0\" errors=\"0\""), "{junit}");
    let page = html(&Page {
        columns: &columns,
        drawings: &Drawings::new(),
        scenario: &|_| None,
        command: &|_| String::new(),
        pcap: &|_, _| None,
    });
    assert!(page.contains("<strong class=\"good\">reproduced</strong>, no reference"), "{page}");
    assert!(page.contains(reason), "{page}");
}

#[test]
fn json_has_the_key_only_where_it_is_true() {
    let key =
        |column: Column| serde_json::to_value(&column.outcomes[0]).unwrap().get("without_reference").cloned();
    assert_eq!(key(judged_by_difference()), Some(true.into()));
    assert_eq!(key(column("6.1", Verdict::Reproduced, "reset", true)), None);
}
