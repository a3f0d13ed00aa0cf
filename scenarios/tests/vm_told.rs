//! Messages for the cases in which no guest can be started, or it ends early.

#[allow(dead_code, reason = "not all of it is used here")]
mod stored;
#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use faultlab_testkit::{Answer, answer, leave_out};
use lab::kernels::Store;
use lab::kernels::load_order::WANTED;
use lab::kernels::module::Module;
use lab::machine::vm::Qemu;
use tempfile::TempDir;

use stored::{Home, broken_kernel, newest, refusal, run};
use user::{SHORT, faultlab};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    what_is_no_kernel_is_one_sentence,
    a_qemu_that_is_missing_or_old_is_one_sentence,
    a_bisection_is_told_what_it_cannot_judge,
    a_kernel_that_never_boots_fails_beside_one_that_does,
    a_panic_is_quoted,
    a_module_that_does_not_load_is_named,
    a_kernel_without_a_serial_port_is_one_sentence,
];

fn what_is_no_kernel_is_one_sentence() {
    let home = Home::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    let refused = |kernel: &str| refusal(&mut faultlab(&format!("run {SHORT} --kernel {kernel}")));
    assert!(refused("no-such-kernel").contains("kernel no-such-kernel is missing"));
    let text = file("text", b"no kernel at all\n");
    let no_bzimage = refused(&text);
    assert!(no_bzimage.contains("text is no bzImage: it has no HdrS at 0x202"), "{no_bzimage}");
    // A kernel given as a file needs no store.
    let storeless = |verb: &str, kernel: &str| {
        refusal(faultlab(&format!("{verb} {SHORT} --kernel {kernel}")).env("XDG_CACHE_HOME", "/dev/null"))
    };
    assert_eq!([storeless("run", &text), storeless("shell", &text)], [&*no_bzimage; 2]);
    assert!(storeless("run", "no-such-kernel").contains("Not a directory"));
    let whole = broken_kernel();
    let cut = file("cut", &whole[..whole.len() / 2]);
    assert!(refused(&cut).contains("cut is no bzImage: it is cut short"), "{}", refused(&cut));
}

/// A directory with a program in place of QEMU.
fn in_place_of_qemu(script: &str) -> (TempDir, String) {
    let bin = tempfile::tempdir().expect("a directory");
    let program = bin.path().join("qemu-system-x86_64");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
    (bin, path)
}

/// QEMU, with extra words on the kernel command line.
fn with_words(words: &str) -> (TempDir, String) {
    let real = Qemu::find().unwrap_or_else(|missing| leave_out(missing.to_string()));
    in_place_of_qemu(&format!(
        "for word; do
           shift
           case $word in console=ttyS0*) word=\"$word {words}\" ;; esac
           set -- \"$@\" \"$word\"
         done
         exec {} \"$@\"",
        real.program().display()
    ))
}

fn a_qemu_that_is_missing_or_old_is_one_sentence() {
    let line = format!("run {SHORT} --kernel {}", newest().id);
    let empty = Home::new();
    let missing = refusal(faultlab(&line).env("PATH", empty.path()));
    assert!(missing.starts_with("faultlab: qemu-system-x86_64 is missing; install"), "{missing}");
    let (_bin, path) = in_place_of_qemu("echo 'QEMU emulator version 2.0.0'");
    let old = refusal(faultlab(&line).env("PATH", path));
    assert!(old.contains("(this is 2.0)"), "{old}");
}

fn a_bisection_is_told_what_it_cannot_judge() {
    let home = Home::new();
    let broken = home.path().join("broken");
    fs::write(&broken, broken_kernel()).expect("a file");
    for kernel in
        ["no-such-kernel", "/dev/null", &newest().id.replace(':', "_"), broken.to_str().expect("UTF-8")]
    {
        let Answer { status, out, err } = run(&format!("run {SHORT} --kernel {kernel} --bisect"));
        assert_eq!(status, Some(125), "{kernel}: {out}{err}");
        assert_ne!(out + &err, "", "{kernel}");
    }
    let unknown = run("run no-such-scenario --kernel no-such-kernel --bisect");
    assert_eq!(unknown.status, Some(125), "{}", unknown.err);
}

fn a_kernel_that_never_boots_fails_beside_one_that_does() {
    let home = Home::new();
    let broken = home.path().join("broken");
    fs::write(&broken, broken_kernel()).expect("a file");
    let whole = newest().id;
    let junit = home.path().join("junit.xml");
    let line = format!(
        "run {SHORT} --kernel {} --kernel {whole} --ktap --junit {}",
        broken.display(),
        junit.display()
    );
    let Answer { status, out, err } = run(&line);
    assert_eq!(status, Some(1), "{out}{err}");
    let (reasons, rest): (Vec<_>, Vec<_>) = out.lines().partition(|line| line.starts_with("  # "));
    let [reason] = reasons.as_slice() else { panic!("{out}") };
    assert!(reason.contains("the guest"), "{reason}");
    let ktap = format!(
        "KTAP version 1\n1..2\n  KTAP version 1\n  1..1\n  not ok 1 {SHORT} # failed\nnot ok 1 {}\n  \
         KTAP version 1\n  1..1\n  ok 1 {SHORT} # reproduced\nok 2 {whole}",
        broken.display()
    );
    assert_eq!(rest.join("\n"), ktap);
    let report = fs::read_to_string(junit).expect("the report");
    let expected = ["testsuites", "testsuite", "testcase", "error", "testsuite", "testcase"];
    assert_eq!(elements(&report), expected, "{report}");
}

fn a_panic_is_quoted() {
    let line = format!("run {SHORT} --json --kernel {}", newest().id);
    // The same guest, but its init does not exist.
    let (_bin, path) = with_words("rdinit=/none init=/none");
    let home = Home::new();
    let Answer { status, out, err } = answer(faultlab(&line).env("PATH", path).env("TMPDIR", home.path()));
    home.assert_empty();
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert!(err.contains("Kernel panic - not syncing"), "{err}");
}

fn a_module_that_does_not_load_is_named() {
    let id = newest().id;
    let stored = Store::open().expect("the store").get(&id).expect("the kernel");
    let order = stored.modules().expect("its modules").load_order(WANTED).expect("the order");
    // As for an installed kernel: modules/RELEASE also contains the image.
    let home = Home::new();
    let dir = home.path().join("modules").join(&stored.release);
    fs::create_dir_all(&dir).expect("a directory");
    fs::copy(&stored.image, dir.join("vmlinuz")).expect("the image");
    for Module { name, mut bytes, .. } in order.modules {
        if name == "veth" {
            // Its vermagic claims another configuration of this release.
            let at = bytes.windows(10).position(|w| w == b"mod_unload").expect("a word of its vermagic");
            bytes[at] = b'M';
        }
        fs::write(dir.join(format!("{name}.ko")), bytes).expect("a module");
    }
    let line = format!("run {SHORT} --kernel {}", dir.join("vmlinuz").display());
    let said = refusal(&mut faultlab(&line));
    assert!(said.contains("load the module veth: "), "{said}");
    assert_eq!(run(&(line + " --bisect")).status, Some(125));
}

fn a_kernel_without_a_serial_port_is_one_sentence() {
    let (_bin, path) = with_words("8250.nr_uarts=0");
    let said = refusal(faultlab(&format!("run {SHORT} --kernel {}", newest().id)).env("PATH", path));
    assert!(said.contains("CONFIG_SERIAL_8250_CONSOLE"), "{said}");
}

/// The names of an XML document's elements. Panics if one is not closed.
fn elements(xml: &str) -> Vec<String> {
    let (mut all, mut open) = (vec![], vec![]);
    for tag in xml.split('<').skip(1) {
        let (tag, _text) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{xml}");
            continue;
        }
        all.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} never end: {xml}");
    all
}
