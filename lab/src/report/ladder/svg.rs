//! A ladder as SVG, in the colour of the text around it.

use std::fmt::Write;

use super::{Arrow, Fate, Ladder, Row};
use crate::report::escaped::Escaped;

/// Where the first column stands, from column to column, and what labels have.
const FIRST: usize = 118;
const GAP: usize = 125;
const LABEL: usize = 400;
/// Where rows begin, the height of a line, and of a character's middle.
const TOP: usize = 56;
const LINE: usize = 17;
const MIDDLE: usize = 4;

impl Ladder {
    /// The ladder as an `<svg>` element of an HTML page.
    ///
    /// Its colours are the custom properties `--bad` and `--faint` where the
    /// page has them.
    #[must_use]
    pub fn svg(&self, title: &str) -> String {
        let height = TOP + self.rows.iter().map(|row| lines(row) * LINE).sum::<usize>() + LINE / 2;
        let last = place(self.hosts.len().saturating_sub(1));
        let width = last + 20 + LABEL;
        let mut svg = format!(
            "<svg role=\"img\" aria-label=\"{}: {}\" \
             viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
             <g fill=\"currentColor\" font-family=\"ui-monospace, monospace\" font-size=\"12\">\n",
            Escaped(title),
            Escaped(&self.summary()),
        );
        for (column, (name, addresses)) in self.hosts.iter().enumerate() {
            let x = place(column);
            text(&mut svg, x, 16, "text-anchor=\"middle\" font-weight=\"bold\"", name);
            for (line, address) in addresses.split(' ').take(2).enumerate() {
                text(&mut svg, x, 30 + 12 * line, "text-anchor=\"middle\" font-size=\"10\"", address);
            }
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{height}\" style=\"stroke:var(--faint, #888)\"/>",
                TOP - 8
            );
        }
        let mut y = TOP + LINE / 2;
        for row in &self.rows {
            match row {
                Row::Arrow(arrow) => draw(&mut svg, arrow, y, last + 16),
                Row::Silence(time) => {
                    let words = format!("... {} s of silence", time.as_secs());
                    text(&mut svg, last + 16, y + MIDDLE, "font-style=\"italic\"", &words);
                }
                Row::Folded(count) => {
                    let words = format!("... {count} more packets");
                    text(&mut svg, last + 16, y + MIDDLE, "font-style=\"italic\"", &words);
                }
            }
            y += lines(row) * LINE;
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }
}

fn place(column: usize) -> usize {
    FIRST + column * GAP
}

/// How many lines a row has.
fn lines(row: &Row) -> usize {
    match row {
        Row::Arrow(arrow) => 1 + arrow.notes.len(),
        Row::Silence(_) | Row::Folded(_) => 1,
    }
}

fn text(svg: &mut String, x: usize, y: usize, attributes: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>", Escaped(words));
}

fn draw(svg: &mut String, arrow: &Arrow, y: usize, beside: usize) {
    let bad = "style=\"stroke:var(--bad, #c00)\" stroke-width=\"2\"";
    let time = format!("{}.{:03} s", arrow.at.as_secs(), arrow.at.subsec_millis());
    text(svg, 88, y + MIDDLE, "text-anchor=\"end\" font-size=\"11\"", &time);
    if let (Some(from), Some(to)) = (arrow.from, arrow.to) {
        let (mut start, mut end) = (place(from), place(to));
        match arrow.fate {
            Fate::Lost | Fate::UnderWay => end = start.midpoint(end),
            Fate::Made => start = start.midpoint(end),
            Fate::Arrived | Fate::Dropped => {}
        }
        let tip = |far: usize| if from < to { end.saturating_sub(far) } else { end + far };
        let shaft = if arrow.fate == Fate::Made { " stroke-dasharray=\"4 3\"" } else { "" };
        let _ = writeln!(
            svg,
            "<line x1=\"{start}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"currentColor\"{shaft}/>",
            tip(6)
        );
        match arrow.fate {
            Fate::Lost | Fate::Dropped => {
                let (x1, x2) = (tip(9), tip(1));
                let (up, down) = (y - 4, y + 4);
                let _ = writeln!(svg, "<path d=\"M{x1} {up}L{x2} {down}M{x1} {down}L{x2} {up}\" {bad}/>");
            }
            Fate::UnderWay => {}
            Fate::Arrived | Fate::Made => {
                let (back, up, down) = (tip(8), y - 4, y + 4);
                let _ = writeln!(svg, "<path d=\"M{end} {y}L{back} {up}L{back} {down}Z\"/>");
            }
        }
    }
    text(svg, beside, y + MIDDLE, "", &arrow.label);
    for (line, note) in arrow.notes.iter().enumerate() {
        text(svg, beside + 14, y + MIDDLE + (line + 1) * LINE, "font-size=\"11\"", note);
    }
}
