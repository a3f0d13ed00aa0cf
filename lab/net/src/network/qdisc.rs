//! Queueing disciplines that slow an interface down: the token bucket (sch_tbf)
//! limits its rate, and sch_netem delays its frames.
//!
//! Reading list: net/sched/sch_tbf.c `tbf_change`, net/sched/sch_netem.c
//! `netem_change`; include/uapi/linux/pkt_sched.h `struct tc_tbf_qopt`,
//! `struct tc_netem_qopt`; tc-tbf(8), tc-netem(8).
//!
//! Frames in the bucket's queue still count against the SO_SNDBUF of the sending
//! socket. So a packet socket can be made to sleep in sendto(): frames that never
//! leave keep its buffer full.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::namespace::Namespace;
use crate::netlink;
use faultlab_base::error::{Error, Result};

/// include/uapi/linux/pkt_sched.h: TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// include/uapi/linux/pkt_sched.h: TC_LINKLAYER_ETHERNET. If the link layer is
/// given, the kernel needs no rate table.
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// include/net/pkt_sched.h: PSCHED_SHIFT; a tick is 64 ns.
const PSCHED_SHIFT: u32 = 6;
/// include/uapi/linux/rtnetlink.h: TCA_OPTIONS. For netem it is a structure,
/// not a list of attributes.
const TCA_OPTIONS: u16 = 2;
/// tc-netem(8): the default queue limit, in frames.
const NETEM_LIMIT: u32 = 1000;

/// Makes a token bucket the root qdisc of `interface`, replacing the current one.
///
/// `rate` is in bytes per second. `burst` and `limit` are in bytes: how much may
/// leave at once, and how much may be queued before frames are dropped. A frame
/// longer than `burst` is dropped.
///
/// # Errors
/// [`Error::Missing`] if the kernel lacks sch_tbf; if there is no such interface;
/// if `rate` or `burst` is 0.
pub fn token_bucket(namespace: &Namespace, interface: &str, rate: u64, burst: u32, limit: u32) -> Result<()> {
    let tried = || format!("token bucket, {rate} bytes/s, burst {burst}, limit {limit}");
    if rate == 0 || burst == 0 {
        // The kernel would treat a rate of 0 as no limit.
        return Err(Error::Lab(format!(
            "{} {interface}: {}: needs a rate and a burst",
            namespace.name(),
            tried()
        )));
    }
    let options = TcAttribute::Options(options(rate, burst, limit));
    let missing = "CONFIG_NET_SCH_TBF (sch_tbf)";
    replace_root(namespace, interface, ("tbf", options), missing, tried)
}

/// Delays every frame that `interface` sends by `time`, rounded to 64 ns,
/// replacing the current qdisc. A frame leaves in the softirq of a timer,
/// whatever the CPU was doing.
///
/// # Errors
/// [`Error::Missing`] if the kernel lacks sch_netem; if there is no such
/// interface.
pub fn delay(namespace: &Namespace, interface: &str, time: Duration) -> Result<()> {
    let options = TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, netem(time)));
    let tried = || format!("netem delay {} us", time.as_micros());
    replace_root(namespace, interface, ("netem", options), "CONFIG_NET_SCH_NETEM (sch_netem)", tried)
}

/// struct tc_netem_qopt: latency in ticks, limit in frames, loss, gap,
/// duplicate, jitter.
fn netem(time: Duration) -> Vec<u8> {
    let latency = u32::try_from(time.as_nanos() >> PSCHED_SHIFT).unwrap_or(u32::MAX);
    [latency, NETEM_LIMIT, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn replace_root(
    namespace: &Namespace,
    interface: &str,
    (kind, options): (&str, TcAttribute),
    config: &str,
    tried: impl Fn() -> String,
) -> Result<()> {
    let place = || format!("{} {interface}", namespace.name());
    let index = namespace
        .enter(|| netlink::index_of(interface))
        .map_err(|errno| Error::kernel(place(), "if_nametoindex", errno))?;
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![TcAttribute::Kind(kind.to_owned()), options];
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    netlink::change(namespace, NETLINK_ROUTE, NLM_F_CREATE | NLM_F_REPLACE, message).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::ENOENT) => Error::missing(config, "load the module or take a kernel that has it"),
            _ => Error::kernel(place(), tried(), source),
        }
    })
}

fn options(rate: u64, burst: u32, limit: u32) -> Vec<TcOption> {
    let rate32 = u32::try_from(rate).unwrap_or(u32::MAX);
    // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
    let mut parms = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    parms.extend(rate32.to_ne_bytes());
    // No peak rate.
    parms.extend([0; 12]);
    parms.extend(limit.to_ne_bytes());
    parms.extend(ticks(rate, burst).to_ne_bytes());
    // The mtu belongs to the peak rate.
    parms.extend(0_u32.to_ne_bytes());

    let mut options = vec![option(TCA_TBF_PARMS, parms)];
    if rate > u64::from(u32::MAX) {
        options.push(option(TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()));
    }
    options.push(option(TCA_TBF_BURST, burst.to_ne_bytes().to_vec()));
    options
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// How long `burst` takes at `rate`, in the ticks of `tc_tbf_qopt.buffer`. The
/// kernel prefers TCA_TBF_BURST; this value is only reported in dumps.
fn ticks(rate: u64, burst: u32) -> u32 {
    let nanoseconds = u128::from(burst) * 1_000_000_000 / u128::from(rate);
    u32::try_from(nanoseconds >> PSCHED_SHIFT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn bytes(options: &[TcOption]) -> Vec<u8> {
        let mut buffer = vec![0; options.buffer_len()];
        options.emit(&mut buffer);
        buffer
    }

    #[test]
    fn parms_are_a_tc_tbf_qopt() {
        let options = options(1_000_000, 2000, 30_000);
        // 4 + 36 for the parms, 4 + 4 for the burst.
        let bytes = bytes(&options);
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[5], TC_LINKLAYER_ETHERNET);
        assert_eq!(bytes[12..16], 1_000_000_u32.to_ne_bytes());
        assert_eq!(bytes[28..32], 30_000_u32.to_ne_bytes());
        // 2000 bytes at 1 MB/s: 2 ms = 31250 ticks of 64 ns.
        assert_eq!(bytes[32..36], 31_250_u32.to_ne_bytes());
    }

    #[test]
    fn a_rate_beyond_32_bits_goes_in_its_own_attribute() {
        let bytes = bytes(&options(5_000_000_000, 2000, 30_000));
        assert_eq!(bytes[12..16], u32::MAX.to_ne_bytes());
        assert_eq!(bytes[44..52], 5_000_000_000_u64.to_ne_bytes());
    }

    #[test]
    fn a_delay_is_a_tc_netem_qopt() {
        // 150 us = 2343 ticks of 64 ns and a bit.
        let bytes = netem(Duration::from_micros(150));
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..4], 2343_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], NETEM_LIMIT.to_ne_bytes());
        assert!(bytes[8..].iter().all(|byte| *byte == 0));
        assert_eq!(netem(Duration::from_secs(1 << 20))[..4], u32::MAX.to_ne_bytes());
    }

    #[test]
    fn a_slow_bucket_saturates() {
        // 2000 s are more than 32 bits of ticks.
        assert_eq!(ticks(1, 2000), u32::MAX);
    }
}
