//! Outcomes as one self-contained HTML file, which loads nothing and is readable without
//! scripts. The file depends on the outcomes only, and not on their wall-clock times, so
//! that it is reproducible.

mod arm;
mod outcome;
mod story;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::escaped::Escaped;
use crate::ladder::Ladder;
use crate::lanes::Lanes;
use crate::matrix::{Cells, Change, Column, changes, scenarios};
use crate::tally::Tally;
use faultlab_base::text::Cell;
use faultlab_model::outcome::{Outcome, Verdict};
use faultlab_model::scenario::Fault;

/// The drawings of an arm's capture.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The packets.
    pub ladder: Ladder,
    /// Conntrack's entries, if any events were captured.
    pub lanes: Option<Lanes>,
}

/// The drawings of an outcome, by arm name.
pub type ByArm = BTreeMap<Cell, Drawn>;
/// The drawings by kernel and scenario.
pub type Drawings = BTreeMap<(Cell, Cell), ByArm>;

/// The inputs of a report.
#[allow(missing_debug_implementations, reason = "it is made of functions")]
pub struct Page<'a> {
    /// The outcomes of each kernel.
    pub columns: &'a [Column],
    /// The drawings.
    pub drawings: &'a Drawings,
    /// Looks up a scenario by name; `None` if the catalogue does not have it.
    pub scenario: &'a dyn Fn(&str) -> Option<&'a Fault>,
    /// The command that reproduces an outcome.
    pub command: &'a dyn Fn(&Outcome) -> String,
    /// The path of an arm's pcapng file, relative to the report; `None` if there is none.
    pub pcap: &'a dyn Fn(&Outcome, &str) -> Option<String>,
}

/// Renders the report.
#[must_use]
pub fn html(page: &Page<'_>) -> String {
    let names = scenarios(page.columns);
    let tally = Tally::of(page.columns.iter().flat_map(|column| &column.outcomes));
    let title = match names.as_slice() {
        [one] => format!("{one}: faultlab"),
        _ => format!("{} faults: faultlab", names.len()),
    };
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        Escaped(&title),
        include_str!("page.css"),
    );
    let _ = match names.as_slice() {
        [one] => writeln!(text, "<h1>{}</h1>", Escaped(one)),
        _ => writeln!(text, "<h1>{} faults{}: {}</h1>", names.len(), on_kernels(page), tally.counts()),
    };
    if page.columns.len() > 1 {
        matrix(&mut text, page.columns, &names);
    } else if names.len() > 1 {
        text.push_str("<nav aria-label=\"Scenarios\">\n<ul>\n");
        for (number, name) in names.iter().enumerate() {
            let verdict = page.columns.iter().find_map(|c| of(c, name)).map_or(String::new(), verdict);
            let _ = writeln!(text, "<li><a href=\"#s{number}\">{}</a>: {verdict}</li>", Escaped(name));
        }
        text.push_str("</ul>\n</nav>\n");
    }
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(text, "<section aria-labelledby=\"s{number}\">");
        let scenario = (page.scenario)(name);
        let title = scenario.map_or(*name, |s| s.card.title);
        let heading = if names.len() == 1 { String::new() } else { format!("{}: ", Escaped(name)) };
        let _ = writeln!(text, "<h2 id=\"s{number}\">{heading}{}</h2>", Escaped(title));
        let outcomes = page.columns.iter().filter_map(|c| of(c, name).map(|o| (c.kernel.as_str(), o)));
        let outcomes: Vec<_> = outcomes.collect();
        if let (Some(scenario), Some((_, first))) = (scenario, outcomes.first()) {
            story::tell(&mut text, scenario, first);
        }
        text.push_str("<div class=\"side\">\n");
        for (column, (kernel, outcome)) in outcomes.iter().enumerate() {
            let drawn = page.drawings.get(&((*kernel).into(), (*name).into()));
            outcome::tell(&mut text, page, outcome, drawn, &format!("o{number}-{column}"));
        }
        text.push_str("</div>\n</section>\n");
    }
    let _ = write!(
        text,
        "</main>\n<footer><p>faultlab {}</p></footer>\n<script>\n{}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        include_str!("page.js"),
    );
    text
}

/// The part of the heading about the number of kernels; empty if there is only one.
fn on_kernels(page: &Page<'_>) -> String {
    match page.columns.len() {
        0 | 1 => String::new(),
        several => format!(" on {several} kernels"),
    }
}

fn of<'a>(column: &'a Column, scenario: &str) -> Option<&'a Outcome> {
    column.outcomes.iter().find(|o| o.scenario == scenario)
}

/// The verdict, in colour.
fn verdict(outcome: &Outcome) -> String {
    if outcome.nothing_differs_without_the_cause() {
        return "without its cause: <strong class=\"good\">nothing differs, as it should</strong>".to_owned();
    }
    let class = match (outcome.verdict, outcome.expected) {
        (Verdict::NotApplicable, _) => "open",
        (_, true) => "good",
        (_, false) => "bad",
    };
    let words = match outcome.standing() {
        "" => String::new(),
        standing => format!(", {standing}"),
    };
    format!("<strong class=\"{class}\">{}</strong>{words}", outcome.verdict)
}

/// The matrix of scenarios by kernels, followed by the changes.
fn matrix(text: &mut String, columns: &[Column], names: &[&str]) {
    text.push_str("<h2 id=\"matrix\">Scenarios by kernels</h2>\n");
    open_wide(text, "Scenarios by kernels");
    text.push_str("<table>\n<thead><tr><th scope=\"col\">Fault</th>");
    for column in columns {
        let _ = write!(text, "<th scope=\"col\">{}</th>", Escaped(&column.kernel));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for (number, name) in names.iter().enumerate() {
        let _ = write!(text, "<tr><th scope=\"row\"><a href=\"#s{number}\">{}</a></th>", Escaped(name));
        for column in columns {
            let _ = write!(text, "<td>{}</td>", of(column, name).map_or("-".to_owned(), verdict));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
    let changes = changes(columns);
    if changes.is_empty() {
        text.push_str("<p>Nothing changed between these kernels.</p>\n");
    }
    for pair in changes.chunk_by(|one, next| one.kernels == next.kernels) {
        changed(text, pair, names);
    }
}

/// A table of the changes from one kernel to the next.
fn changed(text: &mut String, changes: &[Change<'_>], names: &[&str]) {
    let [old, new] = changes[0].kernels.map(|kernel| Escaped(kernel).to_string());
    let _ = writeln!(text, "<h3>What changed from {old} to {new}</h3>");
    open_wide(text, &format!("What changed from {} to {}", changes[0].kernels[0], changes[0].kernels[1]));
    let _ = writeln!(
        text,
        "<table>\n<thead><tr><th scope=\"col\">Fault</th><th scope=\"col\">Row</th>\
         <th scope=\"col\">{old}</th><th scope=\"col\">{new}</th></tr></thead>"
    );
    for Change { scenario, verdicts, cells, .. } in changes {
        let row = |row: &str, [was, is]: [&str; 2]| {
            format!("<td>{row}</td><td>{}</td><td><mark>{}</mark></td></tr>\n", Escaped(was), Escaped(is))
        };
        let words = verdicts.map(|verdict| verdict.to_string());
        let verdict = (words[0] != words[1]).then(|| row("the verdict", [&words[0], &words[1]]));
        let cells = cells.iter().map(|Cells { row: name, arms, cells }| {
            row(&format!("{} <small>({})</small>", Escaped(name), Escaped(&arms.join(", "))), *cells)
        });
        let rows: Vec<_> = verdict.into_iter().chain(cells).collect();
        let number = names.iter().position(|name| name == scenario).unwrap_or_default();
        let _ = write!(
            text,
            "<tbody>\n<tr><th scope=\"rowgroup\" rowspan=\"{}\"><a href=\"#s{number}\">{}</a></th>{}</tbody>\n",
            rows.len(),
            Escaped(scenario),
            rows.join("<tr>"),
        );
    }
    text.push_str("</table>\n</div>\n");
}

/// Opens a box that scrolls horizontally, also with the keyboard.
fn open_wide(text: &mut String, label: &str) {
    let _ = writeln!(
        text,
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">",
        Escaped(label)
    );
}

#[cfg(test)]
mod tests;
