//! What is tried from a host, and what it met.
//!
//! An answer is an enum whose display is the cell of an outcome's table. How
//! long something took is evidence and not part of the answer.

pub mod attempt;
pub mod child;
pub mod flow;
pub mod hold;
pub mod holder;
pub mod link;
pub mod path_mtu;
pub mod route;
pub mod rtnl_holder;
pub mod tcp;

pub use attempt::Attempt;
pub use child::{Child, Life};
pub use flow::{Flow, Side};
pub use hold::Hold;
pub use holder::Holder;
pub use path_mtu::PathMtu;
pub use rtnl_holder::RtnlHolder;
pub use tcp::{Answer, Connect, accept, connect, listen, receive};
