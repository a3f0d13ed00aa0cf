//! Runs a program of this machine and waits for its end.

use std::io;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{MissedTickBehavior, interval};

use super::limits::{OUTPUT_MAX, Size};
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// The interval between two calls of `look`.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a program printed, and whether it succeeded.
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program. Calls `look` periodically while it runs and once after it has ended.
/// The kernel kills the program when this thread ends (PR_SET_PDEATHSIG).
///
/// # Errors
/// If the program is missing, does not start, or prints too much.
pub(super) fn run(command: Command, look: &mut dyn FnMut()) -> Result<Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::kernel("kernel store", "start the runtime", e))?;
    runtime.block_on(run_to_end(command, look))
}

async fn run_to_end(mut command: Command, look: &mut dyn FnMut()) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    #[allow(unsafe_code, reason = "a child can ask for its own death signal only between fork and exec")]
    // SAFETY: prctl is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
        });
    }
    let mut child = command.spawn().map_err(|e| {
        // EACCES instead of ENOENT: PATH may contain a directory that this user may
        // not search.
        if programs::named(&program).next().is_none() {
            Error::missing(program.clone(), "without apt, add the .deb files or the image itself")
        } else {
            Error::kernel(program.clone(), "start", e)
        }
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut printed = pin!(async { tokio::try_join!(all_of(&program, stdout), all_of(&program, stderr)) });
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (stdout, stderr) = loop {
        tokio::select! {
            // An error drops the child, which kills it.
            printed = &mut printed => break printed?,
            _ = looks.tick() => look(),
        }
    };
    let status = child.wait().await.map_err(|e| Error::kernel(program.clone(), "wait", e))?;
    look();
    Ok(Output { success: status.success(), stdout, stderr })
}

/// Everything that the program writes to a pipe.
async fn all_of(program: &str, pipe: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let read = pipe.take(OUTPUT_MAX as u64 + 1).read_to_end(&mut bytes).await;
        read.map_err(|e| Error::kernel(program, "read what it prints", e))?;
    }
    if bytes.len() > OUTPUT_MAX {
        return Err(Error::Lab(format!("{program} prints more than {}", Size(OUTPUT_MAX as u64))));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_kept_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo 'W: careful' >&2; echo 'E: it broke' >&2; exit 3"]);
        let output = run(command, &mut || ()).unwrap();
        assert_eq!((output.stdout.as_str(), output.success), ("out\n", false));
        assert_eq!(output.stderr, "W: careful\nE: it broke\n");
    }

    #[test]
    fn a_program_that_prints_without_end_is_ended() {
        for script in ["exec cat /dev/zero", "exec cat /dev/zero >&2"] {
            let mut endless = Command::new("sh");
            endless.args(["-c", script]);
            let error = run(endless, &mut || ()).map(drop).unwrap_err().to_string();
            assert_eq!(error, "sh prints more than 64 MiB");
        }
    }

    #[test]
    fn a_program_that_is_not_here_is_missing() {
        let error = run(Command::new("no-such-program"), &mut || ()).map(drop).unwrap_err().to_string();
        assert_eq!(error, "no-such-program is missing; without apt, add the .deb files or the image itself");
    }
}
