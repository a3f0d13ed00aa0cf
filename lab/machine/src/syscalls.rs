//! A seccomp filter against input injection: a program can insert characters into
//! the input of its terminal (TIOCSTI), which the user's shell outside then reads.
//!
//! Reading list: ioctl_tty(2), TIOCSTI and TIOCLINUX; seccomp(2).

use std::mem::offset_of;

use nix::errno::Errno;
use nix::libc::{self, sock_filter};

use faultlab_base::error::{Error, Result};

/// The numbers of ioctl(2): on this architecture, its 32-bit counterpart, and x32.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
const IOCTL: [u32; 3] = [libc::SYS_ioctl as u32, 54, 0x4000_0202];

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
const SETGROUPS: u32 = libc::SYS_setgroups as u32;

/// The forbidden requests: TIOCSTI, and TIOCLINUX, which can paste on a virtual
/// console.
#[allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "a small number, of another type with musl"
)]
const REFUSED: [u32; 2] = [libc::TIOCSTI as u32, 0x541c];

/// Makes [`REFUSED`] fail with EPERM in this process and all its children. Needs
/// CAP_SYS_ADMIN in its user namespace.
///
/// With `one_id` setgroups(2) does nothing and returns 0. In a user namespace that
/// was created without privileges it would fail with EPERM, and programs that drop
/// privileges would exit.
pub(super) fn filter(one_id: bool) -> Result<()> {
    let number = u32::try_from(offset_of!(libc::seccomp_data, nr)).expect("a small number");
    let request = offset_of!(libc::seccomp_data, args) + 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let request = u32::try_from(request).expect("a small number");
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let pretended = if one_id { libc::SECCOMP_RET_ERRNO } else { libc::SECCOMP_RET_ALLOW };
    let program = [
        step(load, number, 0, 0),
        step(equal, SETGROUPS, 8, 0),
        step(equal, IOCTL[0], 2, 0),
        step(equal, IOCTL[1], 1, 0),
        step(equal, IOCTL[2], 0, 3),
        step(load, request, 0, 0),
        step(equal, REFUSED[0], 2, 0),
        step(equal, REFUSED[1], 1, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(), 0, 0),
        step(answer, pretended, 0, 0),
    ];
    let length = program.len().try_into().expect("a short program");
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call, and the kernel only reads it.
    #[allow(unsafe_code, reason = "prctl(2) with a seccomp filter has no wrapper; see SAFETY")]
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::kernel("shell", "forbid TIOCSTI (it needs CONFIG_SECCOMP_FILTER)", errno)),
    }
}

const fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    #[allow(clippy::cast_possible_truncation, reason = "every code of classic BPF fits in 16 bits")]
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}
