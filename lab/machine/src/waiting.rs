//! A line on standard error that shows progress until a shell starts.

use std::convert::Infallible;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::background::from_background;
use faultlab_base::text;

/// How often the line is written again at a terminal.
const EVERY: Duration = Duration::from_secs(1);

/// The line: at a terminal it has the seconds so far and is removed at the end;
/// anywhere else it is written once.
#[must_use = "it is removed when this is dropped"]
#[derive(Debug)]
pub(super) struct Waiting {
    screen: File,
    what: String,
    columns: usize,
    terminal: bool,
    begun: Instant,
}

impl Waiting {
    /// Shows that `what` is in progress.
    pub(super) fn on(screen: OwnedFd, what: String, columns: usize) -> Self {
        let screen = File::from(screen);
        let terminal = screen.is_terminal();
        let mut waiting = Self { screen, what, columns, terminal, begun: Instant::now() };
        waiting.write("");
        waiting
    }

    /// Keeps the line up to date, for ever; `latest` returns the last observation.
    pub(super) async fn tick(&mut self, latest: impl Fn() -> Option<String>) -> Infallible {
        loop {
            sleep(EVERY).await;
            if self.terminal {
                self.write(&latest().unwrap_or_default());
            }
        }
    }

    fn write(&mut self, latest: &str) {
        let seconds = self.begun.elapsed().as_secs();
        let line = line(&self.what, seconds, latest, self.columns);
        let text = if self.terminal { format!("\r{line}\x1b[K") } else { format!("{}.\n", self.what) };
        // Errors are ignored: the shell works without a reader.
        let _ = from_background(|| self.screen.write_all(text.as_bytes()));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.terminal {
            let _ = from_background(|| self.screen.write_all(b"\r\x1b[K"));
        }
    }
}

/// The line at a terminal that is `columns` wide.
fn line(what: &str, seconds: u64, latest: &str, columns: usize) -> String {
    let latest = if latest.is_empty() { String::new() } else { format!("; {}", text::line(latest)) };
    let line = format!("{what}, {seconds} s{latest}");
    // A line that fills the last column would wrap.
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_line_fits_the_terminal() {
        assert_eq!(line("Playing it", 12, "", 80), "Playing it, 12 s");
        assert_eq!(line("Playing it", 12, "a row: yes", 80), "Playing it, 12 s; a row: yes");
        assert_eq!(line("Playing it", 12, "a row: yes", 20), "Playing it, 12 s; a");
    }
}
