//! Checks the messages about a command, and collects its files. A guest is not
//! trusted: sizes are bounded, and paths consist of plain names, so that no file is
//! written outside of its directory.

use std::path::PathBuf;
use std::time::Duration;

use super::frames::{CONTENT, DIRECTORY, END, ExecEnd, FILE, HowEnded, Stream};
use super::order::{ExecOrder, FILES_MAX, FILES_SIZE_MAX};
use super::out_path::beneath;
use crate::protocol::{Frame, STDERR, STDOUT};
use faultlab_base::error::{Error, Result};

/// The longest time that a command may report: a thousand years.
const TIME_MAX: Duration = Duration::from_secs(1000 * 366 * 24 * 3600);

/// A file or a directory that a command left in `$OUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutFile {
    /// Its path: names below the directory, neither `.` nor `..`.
    pub path: PathBuf,
    /// Its permissions and its bytes; `None` for a directory.
    pub content: Option<(u32, Vec<u8>)>,
}

/// The result of a command.
#[derive(Debug, Clone)]
pub struct ExecRun {
    /// How it ended.
    pub end: ExecEnd,
    /// The files in `$OUT`.
    pub files: Vec<OutFile>,
}

/// The limits of a command, and what has arrived of it.
#[derive(Debug)]
pub struct ExecAnswers {
    output_left: u64,
    takes_files: bool,
    size: u64,
    /// The files, complete once the end has arrived.
    pub files: Vec<OutFile>,
    /// The end, if it has arrived.
    pub end: Option<ExecEnd>,
}

/// A valid message.
#[derive(Debug, PartialEq, Eq)]
pub enum ExecAnswer<'a> {
    /// The command printed this.
    Output(Stream, &'a [u8]),
    /// It was a part of a file or the end, and is stored.
    Stored,
}

impl ExecAnswers {
    /// Expects the output, the files and the end of this command.
    #[must_use]
    pub fn new(order: &ExecOrder) -> Self {
        Self {
            output_left: order.output_max,
            takes_files: order.send_files,
            size: 0,
            files: vec![],
            end: None,
        }
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// What is wrong with it, as a clause with "it" for the sender.
    pub fn take<'a>(&mut self, frame: &'a Frame) -> Result<ExecAnswer<'a>> {
        let refused = |why: &str| Err(Error::Lab(format!("it sent {why}")));
        let body = frame.body.as_slice();
        if self.end.is_some() {
            return refused("more after the command's end");
        }
        let stream = match frame.kind {
            STDOUT => Stream::Stdout,
            STDERR => Stream::Stderr,
            END => {
                let Ok(end) = serde_json::from_slice::<ExecEnd>(body) else {
                    return refused("an invalid end of the command");
                };
                if end.time > TIME_MAX || matches!(end.how, HowEnded::Signalled(signal) if signal > 64) {
                    return refused("an impossible exit signal or time");
                }
                self.end = Some(end);
                return Ok(ExecAnswer::Stored);
            }
            DIRECTORY | FILE | CONTENT if !self.takes_files => {
                return refused("files, which nobody asked for");
            }
            DIRECTORY | FILE | CONTENT => {
                self.file(frame.kind, body)?;
                return Ok(ExecAnswer::Stored);
            }
            _ => return refused("a frame of an unknown kind"),
        };
        if !self.files.is_empty() {
            return refused("output after files");
        }
        match self.output_left.checked_sub(body.len() as u64) {
            Some(left) => self.output_left = left,
            None => return refused("more output than it may"),
        }
        Ok(ExecAnswer::Output(stream, body))
    }

    fn file(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let refused = |why: &str| Err(Error::Lab(format!("it sent {why}")));
        if kind == CONTENT {
            self.size += body.len() as u64;
            if self.size > FILES_SIZE_MAX {
                return refused("larger files than it may");
            }
            let Some(OutFile { content: Some((_, bytes)), .. }) = self.files.last_mut() else {
                return refused("bytes of no file");
            };
            bytes.extend(body);
            return Ok(());
        }
        let (content, path) = match (kind, body.split_first_chunk()) {
            (FILE, Some((mode, path))) => (Some((u32::from_le_bytes(*mode) & 0o777, vec![])), path),
            (FILE, None) => return refused("a file without a name"),
            _ => (None, body),
        };
        if self.files.len() >= FILES_MAX {
            return refused("more files than it may");
        }
        let Some(path) = beneath(path) else {
            return refused("a file whose path is empty, too long, too deep, or leads out of $OUT");
        };
        self.files.push(OutFile { path, content });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::super::frames;
    use super::*;

    fn order() -> ExecOrder {
        ExecOrder {
            program: "/bin/true".into(),
            arguments: vec!["true".into()],
            environment: vec![],
            directory: "/".into(),
            stdin: None,
            limit: Duration::from_secs(1),
            output_max: 10,
            send_files: true,
        }
    }

    fn file(path: &[u8]) -> Frame {
        Frame::new(FILE, [&0o644_u32.to_le_bytes(), path].concat())
    }

    #[test]
    fn a_command_is_followed_to_its_end() {
        let mut answers = ExecAnswers::new(&order());
        let output = frames::output(Stream::Stderr, b"x");
        assert_eq!(answers.take(&output).unwrap(), ExecAnswer::Output(Stream::Stderr, b"x"));
        answers.take(&Frame::new(DIRECTORY, "a b")).unwrap();
        answers.take(&file(b"a b/c\nd")).unwrap();
        answers.take(&Frame::new(CONTENT, "one ")).unwrap();
        answers.take(&Frame::new(CONTENT, "two")).unwrap();
        let end = ExecEnd { how: HowEnded::Exited(3), time: Duration::from_secs(9), left_out: 1 };
        answers.take(&frames::end(&end)).unwrap();
        assert_eq!(answers.end, Some(end));
        let files = [
            OutFile { path: "a b".into(), content: None },
            OutFile { path: "a b/c\nd".into(), content: Some((0o644, b"one two".to_vec())) },
        ];
        assert_eq!(answers.files, files);
        assert!(answers.take(&output).is_err());
    }

    #[test]
    fn what_is_not_asked_for_is_refused() {
        let refused = |frames: &[Frame]| {
            let mut answers = ExecAnswers::new(&order());
            let why = frames.iter().find_map(|frame| answers.take(frame).err());
            why.expect("a frame is refused").to_string()
        };
        let output = |length| frames::output(Stream::Stdout, &vec![b'x'; length]);
        assert_eq!(refused(&[output(6), output(5)]), "it sent more output than it may");
        assert_eq!(refused(&[file(b"a"), output(1)]), "it sent output after files");
        assert_eq!(refused(&[Frame::new(CONTENT, "x")]), "it sent bytes of no file");
        assert_eq!(
            refused(&[Frame::new(DIRECTORY, "a"), Frame::new(CONTENT, "x")]),
            "it sent bytes of no file"
        );
        assert_eq!(refused(&[Frame::new(FILE, "abc")]), "it sent a file without a name");
        assert_eq!(refused(&[Frame::new(9, "")]), "it sent a frame of an unknown kind");
        assert_eq!(refused(&[Frame::new(END, "{}")]), "it sent an invalid end of the command");
        let long = ExecEnd { how: HowEnded::OutOfTime, time: TIME_MAX * 2, left_out: 0 };
        assert_eq!(refused(&[frames::end(&long)]), "it sent an impossible exit signal or time");
        let mut many = vec![file(b"a"); FILES_MAX + 1];
        assert_eq!(refused(&many), "it sent more files than it may");
        many.truncate(1);
        many.extend(vec![Frame::new(CONTENT, vec![0; 1 << 20]); 65]);
        assert_eq!(refused(&many), "it sent larger files than it may");
        let mut answers = ExecAnswers::new(&ExecOrder { send_files: false, ..order() });
        assert!(answers.take(&file(b"a")).is_err());
    }

    #[test]
    fn a_path_leads_nowhere_but_down() {
        for path in ["", "/", "/etc/passwd", "..", "../a", "a/..", "a/../b", "a//b", "./a", "a/", "a\0b"] {
            let frame = Frame::new(DIRECTORY, path);
            assert!(ExecAnswers::new(&order()).take(&frame).is_err(), "{path:?}");
        }
        assert!(ExecAnswers::new(&order()).take(&Frame::new(DIRECTORY, "a/".repeat(65) + "b")).is_err());
    }

    proptest! {
        #[test]
        fn any_frames_are_taken_without_panic(frames in prop::collection::vec((0u8..9, any::<Vec<u8>>()), 0..20)) {
            let mut answers = ExecAnswers::new(&order());
            for (kind, body) in frames {
                let _ = answers.take(&Frame::new(kind, body));
            }
            for file in &answers.files {
                prop_assert!(file.path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
