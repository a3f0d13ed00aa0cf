//! The counters that point to a fault, and their meanings.

use std::time::Duration;

use super::journey::Leg;
use super::{Arm, Finding, Rank, flow};
use faultlab_model::recording::{Dropped, InvalidLog, Recording, WireRecording, tally};
use faultlab_net::conntrack::{Change, Statistic};
use faultlab_net::network::firewall::RuleCounter;
use faultlab_net::wire::segment::Flags;

/// A counter, what it counts, and the kernel function that increments it.
///
/// The names are from net/ipv4/proc.c; those that begin with Ip6 are from
/// net/ipv6/proc.c.
const MEANINGS: [(&str, &str); 23] = [
    (
        "PAWSPassive",
        "SYNs rejected for the last timestamp of their address, or for having none (tcp_tw_recycle; \
         tcp_conn_request, up to 3.16 tcp_v4_conn_request)",
    ),
    (
        "PAWSTimewait",
        "segments older than the last of a connection that is in TIME_WAIT (tcp_timewait_state_process)",
    ),
    (
        "PAWSEstab",
        "segments older than the last of their connection (tcp_validate_incoming; on kernels without PAWSTimewait \
         also tcp_timewait_state_process)",
    ),
    ("PAWSActive", "answers to a SYN with an impossible timestamp (tcp_rcv_synsent_state_process)"),
    ("PAWSOldAck", "old ACKs with a timestamp older than the last (tcp_validate_incoming)"),
    ("TCPACKSkippedTimeWait", "ACKs not sent, one was sent just before (tcp_timewait_state_process)"),
    (
        "ListenOverflows",
        "SYNs and ACKs dropped, the accept queue was full (tcp_conn_request, tcp_v4_syn_recv_sock)",
    ),
    ("ListenDrops", "SYNs and ACKs that a listener dropped (tcp_conn_request, tcp_v4_syn_recv_sock)"),
    ("TCPAbortOnTimeout", "connections given up, all they sent unanswered (tcp_write_err)"),
    ("TCPKeepAlive", "keepalive probes sent (tcp_keepalive_timer)"),
    ("TCPBacklogDrop", "segments dropped, the socket's backlog was full (tcp_add_backlog)"),
    ("TCPTimeWaitOverflow", "TIME_WAITs not kept, there were tcp_max_tw_buckets (tcp_time_wait)"),
    ("InNoRoutes", "packets that there was no route for (ip_error, ip_rcv_finish)"),
    ("OutNoRoutes", "own packets that there was no route for (ip_route_output_flow)"),
    ("InAddrErrors", "packets for an address that is nobody's (ip_error, ip_rcv_finish)"),
    ("FragFails", "packets too large for the next link that may not be cut (ip_forward)"),
    ("InDiscards", "packets discarded (ip_rcv_core)"),
    ("OutDiscards", "own packets discarded (ip_finish_output2)"),
    ("Ip6InNoRoutes", "IPv6 packets that there was no route for (ip6_pkt_discard)"),
    ("Ip6OutNoRoutes", "own IPv6 packets that there was no route for (ip6_pkt_discard_out)"),
    ("Ip6InTooBigErrors", "IPv6 packets too large for the next link (ip6_forward)"),
    ("Ip6InAddrErrors", "IPv6 packets for an address that is not to be forwarded to (ip6_forward)"),
    ("Ip6InDiscards", "IPv6 packets discarded (ip6_rcv_core)"),
];

/// A counter that increased more than in the control, and by how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub name: &'static str,
    pub by: i64,
    pub meaning: &'static str,
}

impl Moved {
    pub(super) fn text(&self) -> String {
        format!("{} +{}", self.name, self.by)
    }
}

/// The counters of a host that increased more than in the control, most telling
/// first.
pub(super) fn of(arm: &Arm<'_>, host: &str) -> Vec<Moved> {
    let moved = |&(name, meaning): &(&'static str, &'static str)| {
        let now = arm.recording.counted(host, name);
        let more = now > arm.control.map_or(0, |control| control.counted(host, name));
        more.then_some(Moved { name, by: now, meaning })
    };
    MEANINGS.iter().filter_map(moved).collect()
}

/// The counters of the wire between two hosts that increased more than in the control,
/// and by how much.
pub(super) fn of_wire(arm: &Arm<'_>, ends: [&str; 2]) -> Vec<(&'static str, u64)> {
    let counted = |recording: &Recording| -> Vec<(&'static str, u64)> {
        let between = |wire: &&WireRecording| ends.iter().all(|end| wire.ends.iter().any(|one| one == end));
        recording.wires.iter().filter(between).flat_map(|wire| wire.counted.clone()).collect()
    };
    let before = arm.control.map(counted).unwrap_or_default();
    let more = |(name, by): &(&'static str, u64)| {
        *by > before.iter().find(|(known, _)| known == name).map_or(0, |(_, before)| *before)
    };
    counted(arm.recording).into_iter().filter(more).collect()
}

/// The kernel's reason why a host dropped a segment that ended there, if it gave one.
///
/// A segment that was freed without a reason may have been handled: Linux 6.12 frees a
/// segment without a reason when a TIME_WAIT socket answers it with an ACK (tcp_v4_rcv:
/// discard_it).
pub(super) fn reason(arm: &Arm<'_>, host: &str, end: &Leg<'_>) -> Option<String> {
    let frame = end.frame?;
    let is_it = |dropped: &&Dropped| dropped.frame == Some(frame) && dropped.reason.is_some();
    let dropped = arm.recording.host(host)?.drops.iter().find(is_it)?;
    Some(format!("{host} dropped it: {dropped}"))
}

/// The reasons that a host's kernel gave for dropping segments more often than in the
/// control, both before the teardown.
fn reasons(arm: &Arm<'_>, host: &str) -> Vec<(usize, String)> {
    let reasons = |recording: &Recording| {
        let drops = recording.host(host).into_iter().flat_map(|host| &host.drops);
        let decided = recording.begun + recording.capture.decided();
        tally(drops.filter(|dropped| dropped.segment.is_some() && dropped.at <= decided))
    };
    let before = arm.control.map(reasons).unwrap_or_default();
    let more = |(count, reason): &(usize, String)| {
        before.iter().find(|(_, known)| known == reason).is_none_or(|(before, _)| count > before)
    };
    reasons(arm.recording).into_iter().filter(more).collect()
}

/// Which drop counters of a host's conntrack and rules increased more than in the
/// control, with the kernel's message that the conntrack table is full.
pub(super) fn dropped(arm: &Arm<'_>, host: &str) -> Vec<String> {
    let Some(recording) = arm.recording.host(host) else { return vec![] };
    let control = arm.control.and_then(|control| control.host(host));
    let more_changed = |change: &&Change| {
        let mut before = control.into_iter().flat_map(|control| &control.conntrack);
        let before = before.find(|before| before.statistic == change.statistic);
        matches!(change.statistic, Statistic::Drop | Statistic::InsertFailed)
            && change.by > before.map_or(0, |before| before.by)
    };
    let changed: Vec<_> = recording.conntrack.iter().filter(more_changed).collect();
    let mut told: Vec<_> = changed.iter().map(|change| format!("its conntrack counted {change}")).collect();
    // The log is of the whole machine: the control may have the same message.
    if changed.iter().any(|change| change.statistic == Statistic::Drop) {
        let full = arm.recording.log.iter().find(|text| text.contains("table full"));
        told.extend(full.map(|text| format!("the kernel says: {text}")));
    }
    let more_dropped = |rule: &&RuleCounter| {
        let mut before = control.into_iter().flat_map(|control| &control.dropped);
        let before = before.find(|before| before.rule == rule.rule);
        rule.packets > before.map_or(0, |before| before.packets)
    };
    told.extend(recording.dropped.iter().filter(more_dropped).map(|rule| {
        format!("its rule {:?} dropped {} packet{}", rule.rule, rule.packets, plural(rule.packets))
    }));
    told
}

/// Whether a log message of conntrack is worth reporting. Not reported are: messages
/// about a FIN or a RST, which follow from what came before; those that say that
/// conntrack ignored the segment; and those about a segment that the host forwarded
/// with its usual translation, because since 6.1 conntrack logs some segments that it
/// accepts.
fn is_worth_reporting(arm: &Arm<'_>, host: &str, log: &InvalidLog) -> bool {
    let ends = [Flags::FIN, Flags::RST].iter().any(|flag| log.header.flags.contains(*flag));
    !ends && !log.words.contains("ignored") && !flow::goes_on(arm, host, log)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The counters that moved, host by host, and the kernel's complaints.
pub(super) fn moved(arm: &Arm<'_>) -> Vec<Finding> {
    let mut found = vec![];
    let mut find = |rank, kind: String, text: String| {
        found.push(Finding::new(rank, Duration::ZERO, kind, text));
    };
    for host in &arm.recording.hosts {
        let moved = of(arm, &host.name);
        if !moved.is_empty() {
            let told: Vec<_> = moved.iter().map(|m| format!("{}, {}", m.text(), m.meaning)).collect();
            let names: Vec<_> = moved.iter().map(|m| m.name).collect();
            let kind = format!("{} counted {}", host.name, names.join(" "));
            find(Rank::Counter, kind, format!("{} counted {}", host.name, told.join("; ")));
        }
        for (times, reason) in reasons(arm, &host.name) {
            let kind = format!("{} dropped it: {reason}", host.name);
            let packets = format!("{times} packet{}", plural(times as u64));
            find(Rank::Drop, kind, format!("{} dropped {packets}: {reason}", host.name));
        }
        for log in host.invalid_logs.iter().filter(|log| is_worth_reporting(arm, &host.name, log)) {
            let header = super::name(&log.header, log.length);
            find(
                Rank::Words,
                format!("said {}", host.name),
                format!("conntrack on {} said of {header}: {}", host.name, log.words),
            );
        }
    }
    for text in &arm.recording.log {
        let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        find(Rank::Words, kind, format!("the kernel logged: {text}"));
    }
    found
}
