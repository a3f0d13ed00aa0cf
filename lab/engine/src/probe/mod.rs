//! Probes: what a host tries, and the result.
//!
//! An answer is an enum, and displays as a cell of an outcome's table. How long a
//! probe took is evidence, and not part of the answer.

pub mod address;
pub mod attempt;
pub mod blocker;
pub mod child;
pub mod device_holder;
pub mod flow;
pub mod link;
pub mod neighbour;
pub mod path_mtu;
pub mod route;
pub mod rtnl_holder;
pub mod tcp;
pub mod udp;

pub use attempt::Attempt;
pub use blocker::Blocker;
pub use child::{Child, Life};
pub use device_holder::DeviceHolder;
pub use flow::{Flow, Side};
pub use path_mtu::PathMtu;
pub use rtnl_holder::RtnlHolder;
pub use tcp::{Answer, Connect, accept, connect, listen, receive};
pub use udp::{Reply, UdpClient, UdpServer};
