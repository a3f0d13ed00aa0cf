//! Runs a command in a guest, with programs and files of this machine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::answers;
use super::brought::Brought;
use super::command_line::Guest;
use super::initramfs::Initramfs;
use super::module_files::DIRECTORIES;
use super::qemu::{Qemu, memory_for};
use super::run::{Vm, ended};
use super::{ExitReason, tools};
use crate::exec::answers::{ExecAnswer, ExecAnswers};
use crate::exec::order::STDIN;
use crate::exec::{ExecOrder, ExecRun, OnOutput};
use crate::job::Report;
use crate::protocol::{APPLETS, Frame, REPORT};
use faultlab_base::error::{Error, Result};
use faultlab_kernels::load_order::WANTED;
use faultlab_net::kernel::version_of;

/// Disables address space layout randomization: under emulation a program whose code is
/// at another address each time takes seven times as long to start.
const SAME_ADDRESSES: &str = "norandmaps";

/// The settings of the guest for a command.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecMachine {
    /// The number of processors; `None` for one.
    pub processors: Option<u32>,
    /// The memory in MiB; `None` for as much as the files need.
    pub memory: Option<u32>,
    /// An instruction takes 2^shift ns of virtual time; `None` for the default.
    pub shift: Option<u8>,
}

/// Why a command did not end.
#[derive(Debug)]
pub enum ExecFailure {
    /// The guest's kernel panicked after its boot; the error has the message.
    Panicked(Error),
    /// The lab failed.
    Lab(Error),
}

impl From<Error> for ExecFailure {
    fn from(error: Error) -> Self {
        Self::Lab(error)
    }
}

/// A root file system with tools, and the directories of the programs that were
/// added.
pub(super) struct Tools {
    pub root: Initramfs,
    pub directories: Vec<PathBuf>,
}

/// A guest that is ready to boot and to run a command.
#[derive(Debug)]
pub struct ExecGuest {
    vm: Vm,
    qemu: Qemu,
    archive: Vec<u8>,
    answers: ExecAnswers,
}

impl Vm {
    /// Prepares a guest that runs a command with these programs and files of this
    /// machine. This blocks for about a second while files are read and modules are
    /// unpacked, so call it on a thread that may block.
    ///
    /// # Errors
    /// If a program or a file cannot be read, or the files are too large for a guest.
    pub fn prepare_exec(
        self,
        mut order: ExecOrder,
        with: &[PathBuf],
        machine: ExecMachine,
    ) -> Result<ExecGuest> {
        let with: Vec<_> = [order.program.clone()].into_iter().chain(with.iter().cloned()).collect();
        let Tools { mut root, directories } = self.tools(&with, library_path(&order).as_deref())?;
        order.complete_path(&directories, Some(APPLETS));
        if let Some(file) = order.stdin.take() {
            let bytes = std::fs::read(&file)
                .map_err(|e| Error::kernel(file.display().to_string(), "read standard input", e))?;
            root.file(STDIN, 0o444, bytes);
            order.stdin = Some(STDIN.into());
        }
        if let Some(directory) = order.directory.to_str() {
            root.directory_if_none(directory);
        }
        let answers = ExecAnswers::new(&order);
        self.add_init(&mut root, vec![], Some(order))?;
        let archive = root.build()?;
        let qemu = self.for_command(&archive, machine);
        Ok(ExecGuest { vm: self, qemu, archive, answers })
    }

    /// A root file system with tools, these programs and files, and the modules of
    /// [`DIRECTORIES`].
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(super) fn tools(&self, with: &[PathBuf], library_path: Option<&str>) -> Result<Tools> {
        let mut root = Initramfs::new();
        let mut brought = Brought::into(&mut root, library_path)?;
        for what in with {
            brought.with(what)?;
        }
        let directories = brought.directories().to_vec();
        tools::add(&mut brought)?;
        super::etc::add(&mut root);
        let release = &self.kernel.release;
        let available = self.kernel.modules()?;
        let first = available.load_order(WANTED)?.modules.into_iter().map(|module| module.name);
        let first: BTreeSet<String> = first.collect();
        root.module_files(release, &available.of_directories(&DIRECTORIES)?, &first);
        Ok(Tools { root, directories })
    }

    /// QEMU with enough memory for an archive.
    pub(super) fn sized_for(&self, archive: &[u8]) -> Qemu {
        let mut qemu = self.qemu.clone();
        qemu.memory = memory_for(archive.len());
        qemu
    }

    fn for_command(&self, archive: &[u8], machine: ExecMachine) -> Qemu {
        let mut qemu = self.sized_for(archive);
        qemu.memory = machine.memory.unwrap_or(qemu.memory);
        qemu.processors = machine.processors.unwrap_or(qemu.processors);
        qemu.shift = machine.shift.unwrap_or(qemu.shift);
        // A command has its own time limit, and may be silent until then.
        qemu.frame_budget = std::time::Duration::MAX;
        qemu.task_budget = std::time::Duration::MAX;
        qemu
    }

    /// The error with the kernel's name, and with advice if the settings may be its cause.
    fn with_advice(&self, error: Error, qemu: &Qemu, archive: &[u8]) -> Error {
        let enough = memory_for(archive.len());
        let Some(advice) = advice(&self.kernel.release, qemu.memory, enough, qemu.processors) else {
            return self.of_kernel(error);
        };
        let text = error.to_string();
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        self.of_kernel(Error::Lab(format!("{first}; {advice}\n{rest}").trim_end().to_owned()))
    }
}

impl ExecGuest {
    /// Boots the guest and runs the command; passes its output to `on_output` as it
    /// arrives.
    ///
    /// # Errors
    /// If the guest cannot be started, or ends before the command does.
    pub async fn run(self, on_output: &mut OnOutput<'_>) -> Result<ExecRun, ExecFailure> {
        let Self { vm, qemu, archive, mut answers } = self;
        let append = [vm.guest(&archive, None, 1).append, SAME_ADDRESSES].join(" ");
        let guest = Guest { append: append.trim(), ..vm.guest(&archive, None, 1) };
        let mut failure = None;
        let mut booted = false;
        let mut hear = |frame: &Frame| {
            if failure.is_some() {
                return Err(Error::Lab("it went on after it had given up".to_owned()));
            }
            if frame.kind == REPORT {
                let report = answers::read(frame, answers::SMALL)?;
                match report {
                    Report::Booted { .. } if !booted => booted = true,
                    Report::Missing { what, advice } => failure = Some(answers::missing(&what, &advice)),
                    Report::Failed(sentence) | Report::Exhausted(sentence) => {
                        failure = Some(answers::failed(&sentence));
                    }
                    report => {
                        let what = answers::name(&report);
                        return Err(Error::Lab(format!("it reported {what}, and was asked for a command")));
                    }
                }
                return Ok(());
            }
            match answers.take(frame)? {
                _ if !booted => Err(Error::Lab("it ran a command before it had booted".to_owned())),
                ExecAnswer::Output(stream, bytes) => on_output(stream, bytes),
                ExecAnswer::Stored => Ok(()),
            }
        };
        let end = qemu.run(&guest, &mut hear).await?;
        match (failure, answers.end, &end.how) {
            (Some(error), ..) => Err(ExecFailure::Lab(vm.with_advice(error, &qemu, &archive))),
            (None, Some(_), ExitReason::Refused(_)) | (None, None, _) => {
                let error = vm.with_advice(ended(&end), &qemu, &archive);
                let panicked = booted && matches!(end.how, ExitReason::Panicked(_));
                Err(if panicked { ExecFailure::Panicked(error) } else { ExecFailure::Lab(error) })
            }
            // The command has ended: how the guest ended afterwards does not matter.
            (None, Some(end), _) => Ok(ExecRun { end, files: answers.files }),
        }
    }
}

/// Advice about the settings of a guest that ended early, if they may be the cause.
/// `has` is
/// its memory and `enough` what its files need, in MiB.
fn advice(release: &str, has: u32, enough: u32, processors: u32) -> Option<String> {
    if has < enough {
        Some(format!(
            "it has {has} MiB of memory, too little for its files; {enough} are enough: --memory {enough}"
        ))
    } else if processors > 1 && version_of(release) < (5, 15) {
        Some(
            "kernels before 5.15 may hang in virtual time while they start their second processor: leave out --cpus"
                .to_owned(),
        )
    } else {
        None
    }
}

/// The value of LD_LIBRARY_PATH in the command's environment.
fn library_path(order: &ExecOrder) -> Option<String> {
    let value = order.environment.iter().find(|(name, _)| name == "LD_LIBRARY_PATH");
    value.map(|(_, value)| value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn advice_names_the_setting_and_no_other_kernel() {
        let little = "it has 64 MiB of memory, too little for its files; 100 are enough: --memory 100";
        assert_eq!(advice("6.12.0", 64, 100, 1).as_deref(), Some(little));
        for release in ["4.9.0", "5.4.1", "5.10.0-40-amd64"] {
            let several = advice(release, 100, 100, 2).unwrap();
            assert!(several.starts_with("kernels before 5.15 may hang in virtual time"), "{several}");
            assert_eq!(advice(release, 100, 100, 1), None);
        }
        assert_eq!(advice("5.15.0", 100, 100, 2), None);
    }
}
