//! Actors: stand-ins for programs and routers.

pub mod arping;
pub mod http;
pub mod keepalive_schedule;
pub mod kubelet;
pub mod path_mtu;
pub mod prober;

pub use keepalive_schedule::KeepaliveSchedule;
pub use kubelet::Kubelet;
