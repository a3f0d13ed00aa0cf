//! A ladder for the terminal.

use super::{Arrow, HopFate, Ladder, Row};

/// The minimum width of a page, in columns.
const NARROWEST: usize = 80;
/// The widest distance between columns.
const GAP: usize = 14;
/// The position of the first column, after the time.
const FIRST: usize = 13;
/// The minimum width of a label.
const LABEL: usize = 32;

impl Ladder {
    /// The ladder as text, at most `width` terminal columns wide, but at least 80.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        if self.rows.is_empty() {
            return "no packet was sent\n".to_owned();
        }
        let page = Page::of(self, width.max(NARROWEST));
        let mut lines = vec![page.names(self)];
        for row in &self.rows {
            match row {
                Row::Arrow(arrow) => page.arrow(arrow, &mut lines),
                Row::Silence(_) | Row::Folded(_) => lines.push(format!("{:>9}  {}", "...", row.words())),
            }
        }
        lines.extend(textwrap::wrap(&self.summary(), page.width).into_iter().map(Into::into));
        lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
    }
}

struct Page {
    width: usize,
    /// The distance between columns.
    gap: usize,
    columns: usize,
}

impl Page {
    fn of(ladder: &Ladder, width: usize) -> Self {
        let columns = ladder.hosts.len();
        let gap = (width - FIRST - LABEL - 3) / columns.saturating_sub(1).max(1);
        Self { width, gap: gap.min(GAP), columns }
    }

    fn place(&self, column: usize) -> usize {
        FIRST + column * self.gap
    }

    fn names(&self, ladder: &Ladder) -> String {
        let mut line = vec![' '; self.width];
        line[8] = 's';
        for (column, (name, _)) in ladder.hosts.iter().enumerate() {
            let letters: Vec<char> = name.chars().take(self.gap.max(7) - 1).collect();
            let start = self.place(column).saturating_sub(letters.len() / 2);
            for (at, letter) in letters.into_iter().enumerate() {
                if let Some(cell) = line.get_mut(start + at) {
                    *cell = letter;
                }
            }
        }
        line.into_iter().collect()
    }

    fn posts(&self) -> Vec<char> {
        let mut line = vec![' '; self.place(self.columns.saturating_sub(1)) + 1];
        (0..self.columns).for_each(|column| line[self.place(column)] = '│');
        line
    }

    fn arrow(&self, arrow: &Arrow, lines: &mut Vec<String>) {
        let mut line = self.posts();
        let time = format!("{:>5}.{:03}", arrow.at.as_secs(), arrow.at.subsec_millis());
        for (at, letter) in time.chars().enumerate().take(FIRST - 1) {
            line[at] = letter;
        }
        if let (Some(from), Some(to)) = (arrow.from, arrow.to)
            // Two hosts of the same name share a column.
            && from != to
        {
            let (mut start, mut end) = (self.place(from), self.place(to));
            let middle = start.midpoint(end);
            match arrow.fate {
                HopFate::Lost | HopFate::UnderWay => end = middle,
                HopFate::Made => start = middle,
                HopFate::Arrived | HopFate::Dropped => {}
            }
            for cell in &mut line[start.min(end) + 1..start.max(end)] {
                *cell = '─';
            }
            let right = from < to;
            let before = if right { end.saturating_sub(1) } else { end + 1 };
            match arrow.fate {
                HopFate::Lost => line[end] = 'X',
                HopFate::Dropped => line[before] = 'X',
                HopFate::UnderWay => {}
                HopFate::Arrived | HopFate::Made => line[before] = if right { '>' } else { '<' },
            }
        }
        let mut words = vec![arrow.label.clone()];
        words.extend(arrow.notes.iter().map(|note| format!("  {note}")));
        let room = self.width - line.len() - 2;
        let options = textwrap::Options::new(room)
            .subsequent_indent("  ")
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for word in words.iter().flat_map(|text| textwrap::wrap(text, &options)) {
            let drawn: String = std::mem::replace(&mut line, self.posts()).into_iter().collect();
            lines.push(format!("{drawn}  {word}"));
        }
    }
}
