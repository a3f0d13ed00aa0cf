//! Shells and exercises in a guest, on its console.

#[allow(dead_code, reason = "not all of it is used here")]
mod stored;
#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use faultlab_testkit::{Answer, Session, Terminal, answer, leave_out};
use lab::machine::vm::tools;
use tempfile::TempDir;

use stored::newest;
use user::{SHORT, faultlab};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    a_shell_in_a_guest_has_the_terminal,
    a_shell_in_a_guest_ends_with_a_pipe,
    a_shell_in_a_guest_has_what_was_brought_along,
    an_exercise_has_a_kernel_of_its_own,
    a_shell_in_a_guest_needs_a_static_busybox,
];

/// A directory with links to these programs, to replace PATH.
fn only(programs: &[&str]) -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let path = std::env::var_os("PATH").expect("cargo was found by it");
    for name in programs {
        let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists());
        symlink(found.expect("it was found before"), place.path().join(name)).expect("a link");
    }
    place
}

/// A shell in a guest on a terminal, once it prompts.
fn at_a_guest(terminal: &mut Terminal, line: &str, prompt: &str) -> Session {
    let kernel = newest().id;
    if let Err(missing) = tools::busybox() {
        leave_out(missing.to_string());
    }
    let mut command = faultlab(&format!("shell {line} --kernel {kernel}"));
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let session = Session::start(&mut command);
    terminal.wait_for(&format!("({prompt}) $ "));
    session
}

fn a_shell_in_a_guest_has_the_terminal() {
    let mut terminal = Terminal::new();
    let mut session = at_a_guest(&mut terminal, SHORT, &format!("{SHORT} fault"));
    terminal.type_line("sh -c 'echo be\"\"gun; exec sleep 1000'");
    terminal.wait_for("begun");
    terminal.interrupt();
    terminal.type_line("echo st''ill $FAULTLAB_ARM; stty size");
    terminal.wait_for("still fault\r\n24 100");
    terminal.type_line("exit 3");
    assert_eq!(session.status(), Some(3));
    session.gone(Instant::now());

    let mut terminal = Terminal::new();
    let mut session = at_a_guest(&mut terminal, SHORT, &format!("{SHORT} fault"));
    terminal.press(b"\x1d");
    assert_eq!(session.status(), Some(130));
    session.gone(Instant::now());
}

/// What `check` prints if nothing was changed, after a line with its duration.
const CHECKED: &str = "\
The symptom is there; in a healthy network, the server's connection: open
  the server's connection: reset
  the client's next request: reset
  packets that were INVALID: 2
";

fn a_shell_in_a_guest_ends_with_a_pipe() {
    let kernel = newest().id;
    if let Err(missing) = tools::busybox() {
        leave_out(missing.to_string());
    }
    let of_busybox = only(&["qemu-system-x86_64", "busybox"]);
    let every = std::env::var_os("PATH").expect("cargo was found by it");
    // The last line of input has no newline. stdout has no echo, no prompt and
    // nothing printed before the shell.
    let long = "x".repeat(200_000);
    let print = "head -c 200000 /dev/zero | tr '\\0' x; echo oops >&2; exit 7";
    for (commands, said, left) in
        [("check | sed 1d; check >&2; exit $?", CHECKED, 1), (print, &*long, 7), ("", "", 0)]
    {
        for path in [Path::new(&every), of_busybox.path()] {
            let (read, write) = io::pipe().expect("a pipe");
            { write }.write_all(commands.as_bytes()).expect("a pipe has room for a command");
            let mut command = faultlab(&format!("shell {SHORT} --kernel {kernel}"));
            let Answer { status, out, err } = answer(command.stdin(read).env("PATH", path));
            assert_eq!(status, Some(left), "{}: {err}{out}", path.display());
            assert_eq!(out, said, "{}: {err}", path.display());
            let begins = format!(
                "Booting {kernel}, and playing the fault arm of {SHORT} there.\n{SHORT}, fault arm\n"
            );
            assert!(err.starts_with(&begins) && !err.contains("$ ") && !err.contains('\r'), "{err}");
            assert_eq!(err.ends_with("\noops\n"), commands == print, "{err}");
        }
    }
}

fn a_shell_in_a_guest_has_what_was_brought_along() {
    let kernel = newest().id;
    if let Err(missing) = tools::busybox() {
        leave_out(missing.to_string());
    }
    let (read, write) = io::pipe().expect("a pipe");
    let commands = "git --version; ip link add d0 type dummy && echo ad''ded; exit 6\n";
    { write }.write_all(commands.as_bytes()).expect("a pipe has room for a command");
    let mut command = faultlab(&format!("shell {SHORT} --kernel {kernel} --with git"));
    let Answer { status, out, err } = answer(command.stdin(read));
    assert_eq!(status, Some(6), "{err}{out}");
    assert!(out.starts_with("git version ") && out.ends_with("\nadded\n"), "{err}{out}");
}

fn an_exercise_has_a_kernel_of_its_own() {
    let mut terminal = Terminal::new();
    // With this seed rtnl-stall is picked first. Another scenario in the catalogue may
    // need another seed.
    let mut session = at_a_guest(&mut terminal, "--exercise --seed 19", "secret exercise");
    terminal.type_line("ls /orders.json");
    terminal.wait_for("No such file or directory");
    // The task that waits for the mutex cannot be interrupted, so it must not
    // block the commands typed next.
    terminal.type_line("nsenter --net=/run/netns/node ip link set lo down & check");
    terminal.wait_for("Not solved, 1 attempt and 0 hints: add a link: waits");
    terminal.type_line("kill $(grep -l ^rtnl-holder /proc/[0-9]*/comm | cut -d/ -f3); check");
    terminal.wait_for("Solved, 2 attempts and 0 hints: add a link: works");
    terminal.wait_for("This was rtnl-stall.");
    terminal.type_line("exit 3");
    assert_eq!(session.status(), Some(3));
    session.gone(Instant::now());
    let text = terminal.text();
    assert!(text.split_once("This was").is_some_and(|(before, _)| !before.contains("rtnl-stall")), "{text}");
}

fn a_shell_in_a_guest_needs_a_static_busybox() {
    let kernel = newest().id;
    let place = only(&["qemu-system-x86_64"]);
    let mut command = faultlab(&format!("shell {SHORT} --kernel {kernel}"));
    let Answer { status, out, err } = answer(command.env("PATH", place.path()));
    assert_eq!((status, out.as_str()), (Some(69), ""));
    assert!(
        err.contains("static busybox") && err.contains("busybox-static") && err.lines().count() == 1,
        "{err}"
    );
}
