//! A ladder as SVG, in the colour of the surrounding text.
//!
//! Browsers do not divide an `<svg>` well between printed pages, so a ladder consists of
//! several, stacked without a gap.

use std::fmt::Write;

use super::{Arrow, HopFate, Ladder, Row};
use crate::escaped::Escaped;

/// The x coordinate of the first column, the distance between columns, and the width for
/// labels, in pixels.
const FIRST: usize = 118;
const GAP: usize = 125;
const LABEL: usize = 400;
/// The maximum number of characters in a line of a note.
const NOTE: usize = 54;
/// The number of lines from which on a part ends.
const PART: usize = 12;
/// The height of the column headings, the height of a line, and the distance from a line's
/// middle to the baseline of its text, in pixels.
const TOP: usize = 56;
const LINE: usize = 17;
const MIDDLE: usize = 4;

impl Ladder {
    /// The ladder as several `<svg>` elements in a `<div>` with the text alternative.
    ///
    /// They use the CSS custom properties `--bad` and `--faint`, if the page defines them.
    #[must_use]
    pub fn svg(&self, title: &str) -> String {
        let summary = self.summary();
        let mut svg =
            format!("<div role=\"img\" aria-label=\"{}: {}\">\n", Escaped(title), Escaped(&summary));
        self.part(&mut svg, TOP, |svg| self.names(svg));
        for rows in parts(&self.rows) {
            let height = rows.iter().map(lines).sum::<usize>() * LINE;
            self.part(&mut svg, height, |svg| {
                let mut y = LINE / 2;
                for row in rows {
                    draw(svg, row, y, self.last() + 16);
                    y += lines(row) * LINE;
                }
            });
        }
        svg.push_str("</div>\n");
        svg
    }

    /// The x coordinate of the last column.
    fn last(&self) -> usize {
        place(self.hosts.len().saturating_sub(1))
    }

    /// Writes one `<svg>` with the vertical lines of the columns.
    fn part(&self, svg: &mut String, height: usize, drawn: impl FnOnce(&mut String)) {
        let width = self.last() + 20 + LABEL;
        let _ = writeln!(
            svg,
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" aria-hidden=\"true\">\n\
             <g fill=\"currentColor\" font-family=\"ui-monospace, monospace\" font-size=\"12\">"
        );
        let top = if height == TOP { TOP - 8 } else { 0 };
        for x in (0..self.hosts.len()).map(place) {
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{height}\" style=\"stroke:var(--faint, #888)\"/>"
            );
        }
        drawn(svg);
        svg.push_str("</g>\n</svg>\n");
    }

    fn names(&self, svg: &mut String) {
        for (column, (name, addresses)) in self.hosts.iter().enumerate() {
            let x = place(column);
            text(svg, x, 16, "text-anchor=\"middle\" font-weight=\"bold\"", name);
            for (line, address) in addresses.split(' ').take(2).enumerate() {
                text(svg, x, 30 + 12 * line, "text-anchor=\"middle\" font-size=\"10\"", address);
            }
        }
    }
}

/// Divides the rows into parts, one for each `<svg>`.
fn parts(rows: &[Row]) -> Vec<&[Row]> {
    let (mut parts, mut begun, mut filled) = (vec![], 0, 0);
    for (at, row) in rows.iter().enumerate() {
        filled += lines(row);
        if filled >= PART || at + 1 == rows.len() {
            parts.push(&rows[begun..=at]);
            (begun, filled) = (at + 1, 0);
        }
    }
    parts
}

fn place(column: usize) -> usize {
    FIRST + column * GAP
}

/// The height of a row in lines.
fn lines(row: &Row) -> usize {
    match row {
        Row::Arrow(arrow) => 1 + notes(arrow).count(),
        Row::Silence(_) | Row::Folded(_) => 1,
    }
}

/// The lines of an arrow's notes, wrapped.
fn notes(arrow: &Arrow) -> impl Iterator<Item = String> {
    let options = textwrap::Options::new(NOTE)
        .subsequent_indent("  ")
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = move |note| textwrap::wrap(note, &options).into_iter().map(std::borrow::Cow::into_owned);
    arrow.notes.iter().map(String::as_str).flat_map(lines)
}

fn text(svg: &mut String, x: usize, y: usize, attributes: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>", Escaped(words));
}

fn draw(svg: &mut String, row: &Row, y: usize, beside: usize) {
    if let Row::Arrow(arrow) = row {
        return draw_arrow(svg, arrow, y, beside);
    }
    text(svg, beside, y + MIDDLE, "font-style=\"italic\"", &format!("... {}", row.words()));
}

fn draw_arrow(svg: &mut String, arrow: &Arrow, y: usize, beside: usize) {
    let bad = "style=\"stroke:var(--bad, #c00)\" stroke-width=\"2\"";
    let time = format!("{}.{:03} s", arrow.at.as_secs(), arrow.at.subsec_millis());
    text(svg, 88, y + MIDDLE, "text-anchor=\"end\" font-size=\"11\"", &time);
    if let (Some(from), Some(to)) = (arrow.from, arrow.to) {
        let (mut start, mut end) = (place(from), place(to));
        match arrow.fate {
            HopFate::Lost | HopFate::UnderWay => end = start.midpoint(end),
            HopFate::Made => start = start.midpoint(end),
            HopFate::Arrived | HopFate::Dropped => {}
        }
        let tip = |far: usize| if from < to { end.saturating_sub(far) } else { end + far };
        let shaft = if arrow.fate == HopFate::Made { " stroke-dasharray=\"4 3\"" } else { "" };
        let _ = writeln!(
            svg,
            "<line x1=\"{start}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"currentColor\"{shaft}/>",
            tip(6)
        );
        match arrow.fate {
            HopFate::Lost | HopFate::Dropped => {
                let (x1, x2) = (tip(9), tip(1));
                let (up, down) = (y - 4, y + 4);
                let _ = writeln!(svg, "<path d=\"M{x1} {up}L{x2} {down}M{x1} {down}L{x2} {up}\" {bad}/>");
            }
            HopFate::UnderWay => {}
            HopFate::Arrived | HopFate::Made => {
                let (back, up, down) = (tip(8), y - 4, y + 4);
                let _ = writeln!(svg, "<path d=\"M{end} {y}L{back} {up}L{back} {down}Z\"/>");
            }
        }
    }
    text(svg, beside, y + MIDDLE, "", &arrow.label);
    for (line, note) in notes(arrow).enumerate() {
        text(
            svg,
            beside + 14,
            y + MIDDLE + (line + 1) * LINE,
            "font-size=\"11\" xml:space=\"preserve\"",
            &note,
        );
    }
}
