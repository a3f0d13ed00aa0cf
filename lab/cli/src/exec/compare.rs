//! Compares the runs of a command on several kernels.

use std::collections::BTreeSet;

use super::ran::Ran;
use faultlab_base::text;
use faultlab_machine::exec::answers::OutFile;
use faultlab_report::Style;

/// The maximum number of rows for the lines of an output, and for files.
const LINES_MAX: usize = 10;

/// The result of a comparison: a text for people, and whether anything differs.
#[derive(Debug)]
pub(super) struct Differences {
    pub text: String,
    pub any: bool,
}

/// A row of the table: its name, and a cell for each kernel.
type Row = (String, Vec<String>);

/// Compares exit status, standard output, standard error, and files.
pub(super) fn table(ran: &[Ran], style: Style) -> Differences {
    let mut rows: Vec<Row> = vec![];
    let status: Vec<_> = ran.iter().map(|ran| ran.status().to_string()).collect();
    if differ(&status) {
        rows.push(("exit status".to_owned(), status));
    }
    let outputs: [(&str, Vec<&[u8]>); 2] = [
        ("stdout", ran.iter().map(|ran| ran.stdout.as_slice()).collect()),
        ("stderr", ran.iter().map(|ran| ran.stderr.as_slice()).collect()),
    ];
    for (name, outputs) in outputs {
        rows.extend(lines(name, &outputs));
    }
    rows.extend(files(&ran.iter().map(|ran| ran.files.as_slice()).collect::<Vec<_>>()));
    if rows.is_empty() {
        let text = format!("The same status and output on {} kernels.", ran.len());
        return Differences { text, any: false };
    }
    let kernels: Vec<_> = ran.iter().map(|ran| text::cell(&ran.kernel).into_owned()).collect();
    Differences { text: drawn(&kernels, &rows, style), any: true }
}

fn differ<T: PartialEq>(all: &[T]) -> bool {
    all.iter().any(|one| *one != all[0])
}

/// A row for each line, by number, in which the outputs differ.
fn lines(name: &str, outputs: &[&[u8]]) -> Vec<Row> {
    if !differ(outputs) {
        return vec![];
    }
    let texts: Vec<_> = outputs.iter().map(|output| String::from_utf8_lossy(output)).collect();
    let lines: Vec<Vec<&str>> = texts.iter().map(|text| text.lines().collect()).collect();
    let most = lines.iter().map(Vec::len).max().unwrap_or(0);
    let row = |number: usize| {
        let cells: Vec<_> = lines.iter().map(|lines| lines.get(number).copied()).collect();
        differ(&cells).then(|| {
            let cell = |line: Option<&str>| line.map_or("-".to_owned(), |line| text::cell(line).into_owned());
            (format!("{name} line {}", number + 1), cells.iter().copied().map(cell).collect())
        })
    };
    let mut rows: Vec<Row> = (0..most).filter_map(row).collect();
    if rows.is_empty() {
        // The outputs differ only in bytes that no line shows, such as a final line feed.
        rows.push((
            format!("{name}, bytes"),
            outputs.iter().map(|output| output.len().to_string()).collect(),
        ));
    }
    shortened(rows, |more| format!("{name}, {more} more {}", if more == 1 { "line" } else { "lines" }))
}

/// A row for each file that differs or is missing on a kernel.
fn files(all: &[&[OutFile]]) -> Vec<Row> {
    let names: BTreeSet<_> = all.iter().flat_map(|files| files.iter().map(|file| &file.path)).collect();
    let mut rows = vec![];
    for name in names {
        let found: Vec<_> = all.iter().map(|files| files.iter().find(|file| file.path == *name)).collect();
        if differ(&found) {
            let cell = |file: Option<&OutFile>| match file.map(|file| &file.content) {
                None => "-".to_owned(),
                Some(None) => "directory".to_owned(),
                Some(Some((_, bytes))) => format!("{} bytes", bytes.len()),
            };
            let name = format!("$OUT/{}", text::cell(&name.to_string_lossy()));
            rows.push((name, found.iter().copied().map(cell).collect()));
        }
    }
    shortened(rows, |more| format!("$OUT, {more} more {}", if more == 1 { "file" } else { "files" }))
}

/// At most [`LINES_MAX`] rows, and one with the number of the others.
fn shortened(mut rows: Vec<Row>, others: impl Fn(usize) -> String) -> Vec<Row> {
    let more = rows.len().saturating_sub(LINES_MAX);
    if more > 0 {
        let cells = vec![String::new(); rows[0].1.len()];
        rows.truncate(LINES_MAX);
        rows.push((others(more), cells));
    }
    rows
}

/// Draws the table. Cells are cut to fit the style's width, to no less than 8 columns.
fn drawn(kernels: &[String], rows: &[Row], style: Style) -> String {
    let width = |cell: &str| cell.chars().count();
    let first = rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0).min(style.width / 3);
    let room = style.width.saturating_sub(first + 2 + 3 * kernels.len());
    let column = |at: usize| {
        let cells = rows.iter().filter_map(|(_, cells)| cells.get(at)).chain(kernels.get(at));
        cells.map(|cell| width(cell)).max().unwrap_or(0).min((room / kernels.len()).max(8))
    };
    let widths: Vec<usize> = (0..kernels.len()).map(column).collect();
    let fit = |cell: &str, most: usize| -> String {
        if width(cell) <= most {
            return format!("{cell:most$}");
        }
        cell.chars().take(most.saturating_sub(3)).chain(['.'; 3]).take(most).collect()
    };
    let line = |name: &str, cells: &[String]| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| fit(cell, *width)).collect();
        format!("  {}   {}", fit(name, first), cells.join("   ")).trim_end().to_owned()
    };
    let rule = format!("  {}", "─".repeat(first + widths.iter().map(|width| width + 3).sum::<usize>()));
    let mut drawn = vec![line("", kernels), rule];
    drawn.extend(rows.iter().map(|(name, cells)| line(name, cells)));
    drawn.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ran::End;
    use super::*;
    use faultlab_machine::exec::{ExecEnd, HowEnded};

    fn ran(kernel: &str, status: u8, stdout: &str) -> Ran {
        let how = HowEnded::Exited(status);
        Ran {
            kernel: kernel.to_owned(),
            release: "6.1.0".to_owned(),
            virtual_limit: Duration::from_secs(1),
            end: End::Ended(ExecEnd { how, time: Duration::ZERO, left_out: 0 }),
            is_virtual: true,
            in_guest: true,
            stdout: stdout.as_bytes().to_owned(),
            stderr: vec![],
            not_found: BTreeSet::new(),
            files: vec![],
            wall: Duration::ZERO,
        }
    }

    const STYLE: Style = Style { width: 80, colour: false };

    #[test]
    fn lines_that_differ_are_side_by_side() {
        let one = ran("debian:bullseye", 0, "same\n5.10\n");
        let two = ran("debian:trixie", 3, "same\n\x1b[2J6.12\nmore\n");
        let found = table(&[one, two], STYLE);
        assert!(found.any);
        assert_eq!(
            found.text,
            "                  debian:bullseye   debian:trixie
  ───────────────────────────────────────────────
  exit status     0                 3
  stdout line 2   5.10              \\x1b[2J6.12
  stdout line 3   -                 more"
        );
    }

    #[test]
    fn what_is_alike_is_one_sentence() {
        let found = table(&[ran("a", 1, "x"), ran("b", 1, "x")], STYLE);
        assert_eq!((found.any, found.text.as_str()), (false, "The same status and output on 2 kernels."));
        let found = table(&[ran("a", 1, "x"), ran("b", 1, "x\n")], STYLE);
        assert!(found.any && found.text.contains("stdout, bytes   1   2"), "{}", found.text);
    }

    #[test]
    fn a_table_has_an_end() {
        let long: Vec<_> = (0..1000).map(|number| format!("{number} {}\n", "x".repeat(500))).collect();
        let long = long.concat();
        let found = table(&[ran("a", 0, &long), ran("b", 0, "")], STYLE);
        assert!(found.text.lines().count() == LINES_MAX + 3, "{}", found.text);
        assert!(found.text.lines().all(|line| line.chars().count() <= 80), "{}", found.text);
        assert!(found.text.contains("990 more lines"), "{}", found.text);
    }

    #[test]
    fn files_beyond_the_tenth_are_counted() {
        let with_files = |count: usize| {
            let file = |number: usize| OutFile { path: format!("{number:02}").into(), content: None };
            Ran { files: (0..count).map(file).collect(), ..ran("a", 0, "") }
        };
        let found = |count| table(&[with_files(count), with_files(0)], STYLE).text;
        assert!(!found(10).contains("more"), "{}", found(10));
        assert!(found(11).contains("$OUT/09") && found(11).ends_with("$OUT, 1 more file"), "{}", found(11));
        assert!(found(30).ends_with("$OUT, 20 more files"), "{}", found(30));
    }
}
