//! Tables in monospaced text: a line for each entry, a column for each of its values. If
//! the columns do not fit the page, they are divided into blocks, each with all entries.
//! Words are not broken unless the page is too narrow for one.

use std::iter::once;

use textwrap::{Options, WordSeparator, WordSplitter};

/// The indentation of every line, in columns.
const INDENT: usize = 2;

/// Joins a mark to the word before it. It is printed as a space.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// The layouts of a block, best first: the maximum number of lines of a heading and of a
/// cell, and the space between columns.
const LAYOUTS: [Layout; 7] = [
    Layout { heading: 1, cell: 1, gap: 3 },
    Layout { heading: 1, cell: 1, gap: 2 },
    Layout { heading: 2, cell: 1, gap: 3 },
    Layout { heading: 2, cell: 1, gap: 2 },
    Layout { heading: 3, cell: 1, gap: 2 },
    Layout { heading: 3, cell: 2, gap: 2 },
    Layout { heading: 9, cell: 9, gap: 2 },
];

/// How many of the layouts are tried before the columns are divided into blocks.
const WITHOUT_SPLIT: usize = 5;

/// How many of the layouts have headings of at most two lines.
const TWO_LINE_HEADINGS: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Layout {
    heading: usize,
    cell: usize,
    gap: usize,
}

/// A column: its heading and its cells.
#[derive(Debug)]
pub(crate) struct Column {
    heading: String,
    cells: Vec<String>,
}

impl Column {
    pub(crate) fn new(heading: impl Into<String>, cells: Vec<String>) -> Self {
        Self { heading: heading.into(), cells }
    }

    /// The minimum width of the column.
    fn least_width(&self, layout: Layout) -> usize {
        let cells = self.cells.iter().map(|cell| least_width(cell, layout.cell));
        cells.chain(once(least_width(&self.heading, layout.heading))).max().unwrap_or(0)
    }
}

/// Draws the table for a page of this width. `names` are the names of the entries.
pub(crate) fn grid(names: &[&str], columns: &[Column], page: usize) -> String {
    let name = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    // The width for the columns of a block, at least 20.
    let room = page.saturating_sub(INDENT + name).max(20);
    let all = |columns: &[Column], layout: Layout| -> usize {
        columns.iter().map(|column| layout.gap + column.least_width(layout)).sum()
    };
    let fitting = |columns: &[Column], layouts: &[Layout]| {
        layouts.iter().find(|layout| all(columns, **layout) <= room).copied()
    };
    let mut blocks = vec![];
    let mut rest = columns;
    while !rest.is_empty() {
        let (count, layout) = fitting(rest, &LAYOUTS[..WITHOUT_SPLIT]).map_or_else(
            || {
                // As many columns as fit with headings of two lines, but at least one.
                let fits = |count: &usize| fitting(&rest[..*count], &LAYOUTS[..TWO_LINE_HEADINGS]).is_some();
                let count = (1..rest.len()).take_while(fits).last().unwrap_or(1);
                (count, fitting(&rest[..count], &LAYOUTS).unwrap_or(LAYOUTS[LAYOUTS.len() - 1]))
            },
            |layout| (rest.len(), layout),
        );
        let (block, others) = rest.split_at(count);
        blocks.push(lines(names, name, block, layout, room));
        rest = others;
    }
    blocks.join("\n")
}

/// The text of one block.
fn lines(names: &[&str], name: usize, columns: &[Column], layout: Layout, room: usize) -> String {
    let widths: Vec<_> = columns.iter().map(|c| c.least_width(layout).min(room - layout.gap)).collect();
    let across = name + widths.iter().map(|width| layout.gap + width).sum::<usize>();
    let entry = |name_of: &str, cells: Vec<&str>| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| wrapped(cell, *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let line = |number: usize| {
            let first = if number == 0 { name_of } else { "" };
            let mut line = format!("{:INDENT$}{first:name$}", "");
            for (cell, width) in cells.iter().zip(&widths) {
                let words = cell.get(number).map_or("", String::as_str);
                line.push_str(&format!("{:1$}{words:width$}", "", layout.gap));
            }
            line.trim_end().replace(NO_BREAK, " ") + "\n"
        };
        (0..height).map(line).collect::<String>()
    };
    let mut text = entry("", columns.iter().map(|column| column.heading.as_str()).collect());
    text.push_str(&format!("{:INDENT$}{}\n", "", "─".repeat(across)));
    for (number, name) in names.iter().enumerate() {
        let cells = columns.iter().map(|column| column.cells.get(number).map_or("", String::as_str));
        text.push_str(&entry(name, cells.collect()));
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1))
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).into_iter().map(Into::into).collect()
}

/// The smallest width at which a text wraps to at most this many lines without breaking a
/// word.
fn least_width(text: &str, lines: usize) -> usize {
    let longest = text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    let all = text.chars().count();
    if lines == 1 {
        return all;
    }
    (longest..all).find(|width| wrapped(text, *width).len() <= lines).unwrap_or(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let column = |heading: &str, cells: [&str; 2]| Column::new(heading, cells.map(str::to_owned).into());
        vec![
            column("half-open connection *", ["none", "ESTABLISHED, its peer is dead"]),
            column("the server's socket", ["ESTABLISHED", "none"]),
            column("recv() ends with", ["nothing", "ETIMEDOUT"]),
        ]
    }

    #[test]
    fn a_line_is_an_entry_whatever_the_width_and_no_word_is_broken() {
        let table = |page| grid(&["control", "fault"], &columns(), page);
        insta::assert_snapshot!(table(100), @r"
                  half-open connection *          the server's socket   recv() ends with
        ────────────────────────────────────────────────────────────────────────────────
        control   none                            ESTABLISHED           nothing
        fault     ESTABLISHED, its peer is dead   none                  ETIMEDOUT
        ");
        insta::assert_snapshot!(table(60), @r"
                  half-open connection *          the server's
                                                  socket
        ──────────────────────────────────────────────────────
        control   none                            ESTABLISHED
        fault     ESTABLISHED, its peer is dead   none

                  recv() ends with
        ──────────────────────────
        control   nothing
        fault     ETIMEDOUT
        ");
        insta::assert_snapshot!(table(40), @r"
                 half-open connection *
        ──────────────────────────────────────
        control  none
        fault    ESTABLISHED, its peer is dead

                  the server's   recv()
                  socket         ends with
        ──────────────────────────────────
        control   ESTABLISHED    nothing
        fault     none           ETIMEDOUT
        ");
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_wider_than_the_page_unless_a_word_is(
            cells in proptest::collection::vec("[a-z]{1,12}( [a-z]{1,12}){0,5}", 1..9),
            page in 60_usize..200,
        ) {
            let columns: Vec<_> = cells.iter().map(|cell| Column::new(cell, vec![cell.clone()])).collect();
            let text = grid(&["an entry"], &columns, page);
            proptest::prop_assert!(text.lines().all(|line| line.chars().count() <= page), "{}", text);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            for word in cells.iter().flat_map(|cell| words(cell)) {
                proptest::prop_assert!(words(&text).contains(&word), "{}: {}", word, text);
            }
        }
    }
}
