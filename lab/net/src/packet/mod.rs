//! Packet sockets: frames as they pass an interface.

pub mod clock;
pub mod offload;
pub mod ring;
pub(crate) mod slots;
