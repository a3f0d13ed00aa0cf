//! The output of a guest's kernel on its first serial port.

use std::collections::VecDeque;

/// Bytes kept from the start of the log: a boot and a long run print less.
const HEAD_MAX: usize = 4 << 20;
/// Bytes kept from the end of a longer log.
const TAIL_MAX: usize = 64 << 10;

/// The maximum number of characters of a quoted line.
const LINE_MAX: usize = 1000;

/// kernel/panic.c: "Kernel panic - not syncing: %s".
const PANIC: &str = "Kernel panic - not syncing";

/// A console log of bounded size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Console {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Console {
    /// Appends output.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = HEAD_MAX - self.head.len();
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        self.head.extend(head);
        self.tail.extend(tail);
        let over = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// Whether nothing was printed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// The log. If it was too long, a line in the middle has the number of bytes left
    /// out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.left_out > 0 {
            text.extend(["\n[", &self.left_out.to_string(), " bytes left out]\n"]);
        }
        let (one, two) = self.tail.as_slices();
        text.push_str(&String::from_utf8_lossy(&[one, two].concat()));
        text.replace('\r', "")
    }

    /// The last `count` non-blank lines.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        last(self.text().lines(), count)
    }

    /// The last `count` lines up to the kernel's panic message.
    #[must_use]
    pub fn lines_to_panic(&self, count: usize) -> Vec<String> {
        let text = self.text();
        let end = text.lines().position(|line| line.contains(PANIC)).map_or(usize::MAX, |at| at + 1);
        last(text.lines().take(end), count)
    }

    /// The first line with the kernel's panic message.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        let text = self.text();
        let line = text.lines().find_map(|line| line.find(PANIC).map(|at| &line[at..]))?;
        Some(quoted(line.trim_end()))
    }
}

/// The last `count` non-blank ones of these lines.
fn last<'a>(lines: impl Iterator<Item = &'a str>, count: usize) -> Vec<String> {
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| quoted(line)).collect()
}

/// A line, shortened for quoting: a guest's lines may have any length.
fn quoted(line: &str) -> String {
    match line.char_indices().nth(LINE_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_behind_its_timestamp() {
        let mut console = Console::default();
        console.push(b"[    1.2] Run /init as init process\r\n[    1.3] Kernel panic - not syncing: ");
        console.push(b"Attempted to kill init! exitcode=0x00000100\r\n[    1.4] CPU: 0 PID: 1\r\n");
        assert_eq!(
            console.panic().unwrap(),
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
        );
        assert_eq!(console.last_lines(1), ["[    1.4] CPU: 0 PID: 1"]);
        assert_eq!(console.lines_to_panic(2)[0], "[    1.2] Run /init as init process");
    }

    #[test]
    fn a_line_of_any_length_is_quoted_within_bounds() {
        let mut console = Console::default();
        console.push(format!("Kernel panic - not syncing: {}\n", "\u{fc}".repeat(1 << 20)).as_bytes());
        let quoted = console.panic().unwrap();
        assert_eq!(quoted.chars().count(), LINE_MAX + 3);
        assert_eq!(console.last_lines(1), [quoted]);
    }

    #[test]
    fn a_long_log_keeps_its_start_and_its_end() {
        let mut console = Console::default();
        console.push(b"first\n");
        for _ in 0..1000 {
            console.push(&[b'x'; 8192]);
        }
        console.push(b"\nlast\n");
        let text = console.text();
        assert!(text.starts_with("first\n") && text.ends_with("\nlast\n"));
        assert!(text.len() < HEAD_MAX + TAIL_MAX + 100);
        // 6 + 8,192,000 + 6 printed, 4 MiB + 64 KiB kept.
        assert!(text.contains(&format!("[{} bytes left out]", 8_192_012 - HEAD_MAX - TAIL_MAX)));
    }
}
