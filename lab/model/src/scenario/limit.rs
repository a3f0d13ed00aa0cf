//! The largest values of settings, and what sets them.

/// The largest value of a setting, and what sets it: the kernel, as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The largest value.
    pub most: u64,
    /// What sets it: a clause.
    pub why: &'static str,
}

impl Limit {
    /// A number that no kernel limits: a play that waits lasts at most a year.
    pub const YEAR: Self = Self { most: 365 * 24 * 3600, why: "a play waits for at most a year" };

    /// Seconds of a sysctl that the kernel keeps as jiffies in an int: INT_MAX / HZ
    /// (kernel/sysctl.c, `proc_dointvec_jiffies`). HZ is at most 1000; a kernel with
    /// a smaller one takes more.
    pub const JIFFIES: Self = Self {
        most: 2_147_483,
        why: "the kernel keeps it as jiffies in an int, up to 1000 of them a second",
    };

    /// Seconds of the socket options TCP_KEEPIDLE and TCP_KEEPINTVL
    /// (include/net/tcp.h, `MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`).
    pub const KEEPALIVE_OPTION: Self =
        Self { most: 32_767, why: "the socket option takes no more (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL)" };

    /// Probes of the socket option TCP_KEEPCNT (include/net/tcp.h,
    /// `MAX_TCP_KEEPCNT`).
    pub const KEEPALIVE_COUNT: Self =
        Self { most: 127, why: "the socket option takes no more (MAX_TCP_KEEPCNT)" };

    /// A sysctl that is a byte (net/ipv4/sysctl_net_ipv4.c, `proc_dou8vec_minmax`).
    pub const BYTE: Self = Self { most: 255, why: "the kernel keeps it in a byte" };

    /// Seconds of the socket option TCP_USER_TIMEOUT, an int of milliseconds
    /// (net/ipv4/tcp.c, `tcp_sock_set_user_timeout`).
    pub const USER_TIMEOUT: Self =
        Self { most: 2_147_483, why: "the socket option is an int of milliseconds" };
}
