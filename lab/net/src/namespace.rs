//! A network namespace, kept alive by a file descriptor only.
//!
//! It has no name under /run/netns: when the process ends, whatever the reason,
//! the kernel frees the namespace and everything in it.

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use faultlab_base::error::{Error, Result};

thread_local! {
    /// The namespace this thread is in now; -1 until it first enters one.
    static INSIDE: Cell<RawFd> = const { Cell::new(-1) };
    /// The namespace this thread started in, once it is known.
    static HOME: OnceCell<File> = const { OnceCell::new() };
}

/// A file of this thread in /proc. Never /proc/self, which belongs to the main
/// thread: another thread may be in another namespace.
///
/// /proc/thread-self is new in Linux 3.17.
#[must_use]
pub fn of_this_thread(file: &str) -> PathBuf {
    static KNOWN: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/thread-self").exists());
    if *KNOWN { Path::new("/proc/thread-self").join(file) } else { in_task(file) }
}

/// Like `of_this_thread`, for older kernels.
fn in_task(file: &str) -> PathBuf {
    Path::new("/proc/self/task").join(nix::unistd::gettid().to_string()).join(file)
}

/// What `open_current` does, in messages.
const OPEN_CURRENT: &str = "open the thread's ns/net";

fn open_current() -> std::io::Result<File> {
    File::open(of_this_thread("ns/net"))
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: OwnedFd,
}

impl Namespace {
    /// Creates an empty network namespace. `name` is for messages only.
    ///
    /// # Errors
    /// If the process lacks CAP_SYS_ADMIN in its user namespace, or
    /// user.max_net_namespaces is reached (ENOSPC).
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let failed = |source: nix::Error| Error::kernel(&name, "unshare(CLONE_NEWNET)", source);
        let back = ReturnTo::current().map_err(|e| Error::kernel(&name, OPEN_CURRENT, e))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed)?;
        let fd = open_current().map_err(|e| Error::kernel(&name, OPEN_CURRENT, e))?;
        drop(back);
        Ok(Self { fd: fd.into(), name })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn current(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let fd = open_current().map_err(|e| Error::kernel(&name, OPEN_CURRENT, e))?;
        Ok(Self { fd: fd.into(), name })
    }

    /// Another handle for the same namespace, for another thread.
    ///
    /// # Errors
    /// If no descriptor is left (EMFILE).
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|e| Error::kernel(&self.name, "dup", e))?;
        Ok(Self { name: self.name.clone(), fd })
    }

    /// Opens the namespace that this thread started in, to which it returns from
    /// others. For a thread that has made no namespace, and is about to enter one.
    ///
    /// # Errors
    /// If no descriptor is left (EMFILE), or /proc is not mounted.
    pub fn remember() -> Result<()> {
        ReturnTo::current().map(std::mem::forget).map_err(|e| Error::kernel("thread", OPEN_CURRENT, e))
    }

    /// The name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` with this thread in the namespace, then comes back.
    ///
    /// Sockets made in `work` stay in the namespace and can be awaited outside.
    /// Threads and processes started in `work` start in the namespace.
    /// The process aborts if the thread cannot return: in the wrong namespace it
    /// would change another host, or the machine.
    ///
    /// # Panics
    /// If the thread cannot enter. After [`Namespace::new`] or
    /// [`Namespace::remember`] on this thread, a held descriptor rules that out.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let back =
            ReturnTo::current().unwrap_or_else(|error| panic!("{}: {OPEN_CURRENT}: {error}", self.name));
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|errno| panic!("{}: setns: {errno}", self.name));
        INSIDE.set(self.fd.as_raw_fd());
        let result = work();
        drop(back);
        result
    }

    /// The inode number that identifies the namespace in the kernel.
    ///
    /// # Errors
    /// If fstat fails.
    pub fn inode(&self) -> Result<u64> {
        let file = File::from(self.fd.try_clone().map_err(|e| Error::kernel(&self.name, "dup", e))?);
        Ok(file.metadata().map_err(|e| Error::kernel(&self.name, "fstat", e))?.ino())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the thread to its previous namespace, even if `work` panics.
struct ReturnTo {
    outer: RawFd,
}

impl ReturnTo {
    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// If the thread's first namespace is not known yet, and cannot be opened.
    fn current() -> std::io::Result<Self> {
        HOME.with(|home| match home.get() {
            Some(_) => Ok(()),
            None => open_current().map(|file| drop(home.set(file))),
        })?;
        Ok(Self { outer: INSIDE.get() })
    }
}

impl Drop for ReturnTo {
    fn drop(&mut self) {
        let result = if self.outer < 0 {
            HOME.with(|home| setns(home.get().expect("`current` opened it"), CloneFlags::CLONE_NEWNET))
        } else {
            // SAFETY: `outer` is the descriptor of a Namespace whose `enter` is
            // still on this thread's stack, so it is open.
            #[allow(unsafe_code, reason = "the descriptor of an enclosing enter, see SAFETY")]
            let fd = unsafe { BorrowedFd::borrow_raw(self.outer) };
            setns(fd, CloneFlags::CLONE_NEWNET)
        };
        if result.is_err() {
            faultlab_base::terminal::say("cannot come back from a network namespace");
            std::process::abort();
        }
        INSIDE.set(self.outer);
    }
}

/// The stack size, in bytes, of a thread with its own descriptor table; there may
/// be many.
const STACK: usize = 1 << 17;

/// Starts a thread with its own descriptor table, which holds only `kept`; the
/// shared table no longer has it.
///
/// When a process is killed, the kernel closes the descriptors of one table one
/// after the other, but those of several tables in parallel.
///
/// # Errors
/// If no thread or table can be created (EAGAIN, ENOMEM).
pub fn spawn_with_one_descriptor(
    kept: OwnedFd,
    work: impl FnOnce(OwnedFd) + Send + 'static,
) -> io::Result<()> {
    let number = kept.as_raw_fd();
    let (tell, told) = channel();
    let live = move || {
        let own = table_of(number);
        let failure = own.as_ref().err().map(|errno| io::Error::from(*errno));
        // The caller waits for it.
        let _ = tell.send(failure);
        drop(tell);
        if let Ok(own) = own {
            work(own);
        }
    };
    let thread = thread::Builder::new().name("one-descriptor".into()).stack_size(STACK);
    with_signals_blocked(|| thread.spawn(live))??;
    let failure = told.recv().map_err(io::Error::other)?;
    drop(kept);
    failure.map_or(Ok(()), Err)
}

/// Runs `start` with signals blocked in this thread. A thread that it starts
/// inherits the mask: tokio's handler writes to a descriptor that is not in such a
/// thread's table.
fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let mut blocked = SigSet::all();
    // Except those that report a bad memory access.
    blocked.remove(Signal::SIGSEGV);
    blocked.remove(Signal::SIGBUS);
    let _before = RestoredMask(blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?);
    Ok(start())
}

/// Restores this signal mask of the thread when dropped, even if `start` panics.
struct RestoredMask(SigSet);

impl Drop for RestoredMask {
    fn drop(&mut self) {
        // It fails only for an unknown operation.
        let _ = self.0.thread_set_mask();
    }
}

/// Gives this thread its own descriptor table, which holds only this descriptor.
/// It must be open.
fn table_of(kept: RawFd) -> nix::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_FILES)?;
    close_all_but(&[kept]);
    // SAFETY: it is open in this table, and nothing else uses the table.
    #[allow(unsafe_code, reason = "a descriptor of a new table, see SAFETY")]
    Ok(unsafe { OwnedFd::from_raw_fd(kept) })
}

/// Closes all descriptors in this thread's table but these. No value may own any
/// of the others.
pub fn close_all_but(kept: &[RawFd]) {
    #[allow(unsafe_code, reason = "close_range(2), which glibc has since 2.34; see SAFETY")]
    let closed = |first: RawFd, last: RawFd| {
        // SAFETY: these are plain numbers; nothing owns the descriptors.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
    };
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let firsts = [0].into_iter().chain(kept.iter().map(|fd| fd + 1));
    let lasts = kept.iter().map(|fd| fd - 1).chain([RawFd::MAX]);
    // Before Linux 5.9 there is no such system call.
    if !firsts.zip(lasts).all(|(first, last)| closed(first, last)) {
        close_each_but(&kept);
    }
}

/// Like `close_all_but`, one by one.
fn close_each_but(kept: &[RawFd]) {
    let names = fs::read_dir(of_this_thread("fd")).into_iter().flatten().flatten();
    let numbers = names.filter_map(|name| name.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.collect::<Vec<_>>().into_iter().filter(|number| !kept.contains(number)) {
        // The descriptor of the directory is already closed.
        let _ = nix::unistd::close(number);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_thread_with_one_descriptor_has_it_alone() {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let number = write.as_raw_fd();
        let (tell, told) = channel();
        spawn_with_one_descriptor(write, move |kept| {
            // The directory is read through its own descriptor.
            let all = || fs::read_dir(of_this_thread("fd")).expect("a directory").count() - 1;
            for _ in 0..2 {
                // Nothing owns it.
                let _ = nix::unistd::dup(&kept).expect("a copy").into_raw_fd();
            }
            let with_copies = all();
            close_each_but(&[kept.as_raw_fd()]);
            tell.send((kept.as_raw_fd(), with_copies, all())).expect("it is waited for");
        })
        .expect("a thread");
        assert_eq!(told.recv(), Ok((number, 3, 1)));
        // When the thread has ended, the write end is closed.
        assert_eq!(nix::unistd::read(&read, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn signals_are_blocked_until_the_end_even_after_a_panic() {
        let is_blocked = |signal| SigSet::thread_get_mask().expect("a mask").contains(signal);
        let blocked = with_signals_blocked(|| [Signal::SIGINT, Signal::SIGSEGV].map(is_blocked));
        assert_eq!(blocked.expect("a mask"), [true, false]);
        assert!(!is_blocked(Signal::SIGINT));
        let panicked = std::panic::catch_unwind(|| with_signals_blocked(|| panic!("no thread")));
        assert!(panicked.is_err() && !is_blocked(Signal::SIGINT));
    }

    #[test]
    fn both_ways_lead_to_this_thread() {
        std::thread::spawn(|| {
            let inode = |path: PathBuf| std::fs::metadata(path).expect("a thread has such a file").ino();
            assert_eq!(inode(of_this_thread("ns/net")), inode(in_task("ns/net")));
            let name = std::fs::read_to_string(in_task("comm")).expect("a thread has a name");
            assert_eq!(name, std::fs::read_to_string(of_this_thread("comm")).expect("a thread has a name"));
        })
        .join()
        .expect("the thread ends well");
    }
}
