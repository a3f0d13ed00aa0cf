//! The interface between a guest and its host: paths in the initramfs, and the frames
//! on the second serial port.

pub mod frame;

pub use frame::{Decoder, Frame};

/// The path of the orders in the initramfs.
pub const ORDERS: &str = "/orders.json";
/// The last entry of the initramfs. If it is missing, the kernel unpacked only a part.
pub const COMPLETE: &str = "/complete";
/// The kind of a frame whose body is a [`Report`](crate::job::Report) in JSON.
pub const REPORT: u8 = 1;
/// The kind of a frame whose body is a piece of standard output, of a shell or a
/// command.
pub const STDOUT: u8 = 2;
/// The kind of a frame whose body is a piece of standard error, of a shell or a
/// command.
pub const STDERR: u8 = 3;
/// The directory of the guest's modules: `NNN-NAME.ko`, and [`MODULE_LIST`].
pub const MODULES: &str = "/modules";
/// The file names of the modules in load order, one per line.
pub const MODULE_LIST: &str = "/modules/order";
/// The path of busybox in the guest, for a shell or a command.
pub const BUSYBOX: &str = "/bin/busybox";
/// The directory of links to busybox for all of its applets. It comes last on PATH.
pub const APPLETS: &str = "/applets";
