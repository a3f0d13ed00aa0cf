//! Packet sockets: frames as they pass an interface.

mod address;
pub mod clock;
pub mod offload;
pub mod ring;
pub(crate) mod slots;

pub use address::link_layer;
