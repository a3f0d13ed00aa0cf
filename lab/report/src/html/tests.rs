use super::*;
use crate::made::column;

fn page(columns: &[Column]) -> String {
    html(&Page {
        columns,
        drawings: &Drawings::new(),
        scenario: &|_| None,
        command: &|outcome| format!("faultlab run {}", outcome.scenario),
        pcap: &|_, _| None,
    })
}

/// Hostile text in a name, a log line or a cell.
const EVIL: &str = "<script>alert('x')</script>\"><img src=x>";

#[test]
fn what_was_named_is_text() {
    let mut evil = column(EVIL, Verdict::Reproduced, EVIL, false);
    let outcome = &mut evil.outcomes[0];
    outcome.scenario = EVIL.into();
    outcome.kernel = EVIL.into();
    outcome.kernel_id = Some(EVIL.into());
    outcome.reason = Some(EVIL.into());
    outcome.symptom = EVIL.into();
    outcome.settings.insert(EVIL, EVIL.to_owned());
    for arm in &mut outcome.arms {
        arm.name = EVIL.into();
        arm.change = EVIL.into();
        arm.symptom = Some(true);
        arm.unobserved.insert(EVIL, EVIL.to_owned());
        arm.because.push(EVIL.into());
        arm.why.push(EVIL.into());
        arm.capture_gap = Some(EVIL.into());
        arm.evidence.insert(EVIL, vec![EVIL.into()]);
    }
    for columns in [vec![evil.clone()], vec![evil.clone(), evil]] {
        let html = page(&columns);
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        // The only script is the report's own, and there are no images.
        assert_eq!(html.matches("<script").count(), 1);
        assert!(!html.contains("<img"));
    }
}

#[test]
fn the_title_says_what_happened() {
    let mut columns =
        [column("6.0", Verdict::Reproduced, "reset", true), column("6.1", Verdict::Immune, "open", true)];
    for column in &mut columns {
        let another = Outcome { scenario: "another".into(), ..column.outcomes[0].clone() };
        column.outcomes.push(another);
    }
    assert!(page(&columns).contains("<h1>2 faults on 2 kernels: 2 reproduced, 2 immune</h1>"));
    assert!(page(&columns[1..]).contains("<h1>2 faults: 2 immune</h1>"));
}

#[test]
fn what_differs_from_the_control_is_marked() {
    let html = page(&[column("6.0", Verdict::Reproduced, "reset", true)]);
    assert!(html.contains("<td>open</td><td class=\"changed\"><mark>reset</mark></td>"), "{html}");
    assert!(html.contains("<th scope=\"row\">the connection <small>(the symptom)</small></th>"), "{html}");
}

#[test]
fn kernels_have_the_matrix_first() {
    let columns =
        [column("6.0", Verdict::Reproduced, "reset", true), column("6.1", Verdict::Immune, "open", true)];
    let html = page(&columns);
    let at = |what: &str| html.find(what).unwrap_or_else(|| panic!("{what}: {html}"));
    let verdict = "</th><td>the verdict</td><td>reproduced</td><td><mark>immune</mark></td></tr>";
    assert!(at("Scenarios by kernels</h2>") < at("What changed from 6.0 to 6.1</h3>"));
    let cell = "<td>the connection <small>(fault)</small></td><td>reset</td><td><mark>open</mark></td></tr>";
    assert!(at(verdict) < at(cell) && at(cell) < at("<h3 id=\"o0-0\">On Linux 6.0</h3>"));
    assert!(at("On Linux 6.0</h3>") < at("<h3 id=\"o0-1\">On Linux 6.1</h3>"));
}

#[test]
fn the_wall_clock_is_not_in_it() {
    let mut slow = column("6.0", Verdict::Reproduced, "reset", true);
    let quick = page(std::slice::from_ref(&slow));
    slow.outcomes[0].seconds.wall = 77.7;
    assert_eq!(page(&[slow]), quick);
}
