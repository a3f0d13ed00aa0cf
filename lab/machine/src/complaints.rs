//! A worker's standard error, which is empty unless it panics.

use std::collections::VecDeque;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use faultlab_base::terminal::PANICKED;
use faultlab_base::text;

/// The number of last lines kept.
const LAST: usize = 10;
/// The number of bytes kept of a line.
const LINE: usize = 4096;

/// The panic message and the last lines. The message is kept separately because a
/// backtrace (`RUST_BACKTRACE=1`) of more than [`LAST`] lines follows it.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    panic: Option<String>,
    last: VecDeque<String>,
}

impl Complaints {
    /// Reads standard error to its end.
    pub(super) async fn read(mut from: impl AsyncBufRead + Unpin) -> Self {
        let (mut complaints, mut line) = (Self::default(), vec![]);
        while let Ok(bytes) = from.fill_buf().await {
            if bytes.is_empty() {
                break;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            line.extend(part.iter().take(LINE.saturating_sub(line.len())));
            let read = part.len() + usize::from(end.is_some());
            from.consume(read);
            if end.is_some() {
                complaints.push(&std::mem::take(&mut line));
            }
        }
        complaints.push(&line);
        complaints
    }

    fn push(&mut self, line: &[u8]) {
        let line = text::line(&String::from_utf8_lossy(line)).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        if self.panic.is_none() && line.starts_with(PANICKED) {
            self.panic = Some(line.clone());
        }
        self.last.push_back(line);
        if self.last.len() > LAST {
            self.last.pop_front();
        }
    }

    /// The second half of the error message about a worker that died.
    pub(super) fn said(self) -> String {
        match (self.panic, Vec::from(self.last)) {
            (Some(panic), _) => format!("and said: {panic}"),
            (None, last) if last.is_empty() => "and said nothing".to_owned(),
            (None, last) => format!("and said: {}", last.join(" | ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(text: &[u8]) -> String {
        Complaints::read(text).await.said()
    }

    #[tokio::test]
    async fn a_panic_keeps_its_sentence_before_a_backtrace() {
        let panic = format!("{PANICKED}lab/src/a.rs:1:2: the words");
        let trace = "   1: function\n             at file:1:2\n".repeat(200);
        let told = said(format!("before\n{panic}\n{trace}").as_bytes()).await;
        assert_eq!(told, format!("and said: {panic}"));
    }

    #[tokio::test]
    async fn what_is_said_has_an_end_and_no_control_character() {
        assert_eq!(said(b"").await, "and said nothing");
        assert_eq!(said(b"one\ntwo\x1b[2J\r\n\n\xff").await, "and said: one | two\\x1b[2J\\r | \u{fffd}");
        let long = said(&vec![b'x'; 1 << 20]).await;
        assert_eq!(long.len(), LINE + "and said: ".len());
        let many = said(&b"line\n".repeat(1000)).await;
        assert_eq!(many.matches("line").count(), LAST);
    }
}
