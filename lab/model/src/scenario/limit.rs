//! The largest values of settings.

/// The largest value of a setting, and the reason, which usually is a limit of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The largest value.
    pub most: u64,
    /// The reason: a clause.
    pub why: &'static str,
}

impl Limit {
    /// Seconds that a play waits, which no kernel limits: 365 days.
    pub const YEAR: Self = Self { most: 365 * 24 * 3600, why: "a play waits for at most a year" };

    /// Seconds of a sysctl that the kernel keeps as jiffies in an int
    /// (kernel/sysctl.c, `proc_dointvec_jiffies`): INT_MAX / HZ with HZ=1000. A kernel with
    /// a smaller HZ accepts more.
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

    /// A sysctl of type u8 (net/ipv4/sysctl_net_ipv4.c, `proc_dou8vec_minmax`).
    pub const BYTE: Self = Self { most: 255, why: "the kernel keeps it in a byte" };

    /// Seconds of the socket option TCP_USER_TIMEOUT, which is an int of milliseconds
    /// (net/ipv4/tcp.c, `tcp_sock_set_user_timeout`): INT_MAX / 1000.
    pub const USER_TIMEOUT: Self =
        Self { most: 2_147_483, why: "the socket option is an int of milliseconds" };
}
