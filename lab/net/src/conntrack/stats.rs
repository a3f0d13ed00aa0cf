//! conntrack's counters, in the format of `conntrack -S`.

use std::fmt;

use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterSubsystem};

use crate::netlink::nfnetlink::Message;

/// include/uapi/linux/netfilter/nfnetlink_conntrack.h: enum cntl_msg_types.
const IPCTNL_MSG_CT_GET_STATS_CPU: u8 = 4;

/// A conntrack counter. The counters that are 0 on every kernel since 4.9
/// (searched, new, delete, delete_list) are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statistic {
    /// Entries found by something other than a packet of their flow.
    Found,
    /// Packets that conntrack could not classify.
    Invalid,
    /// Entries inserted by something other than a packet.
    Insert,
    /// Entries that could not be inserted: another one has the same tuple.
    InsertFailed,
    /// Packets dropped: the table was full, or the entry could not be inserted.
    Drop,
    /// Entries evicted to make room.
    EarlyDrop,
    /// Packets with an invalid header.
    Error,
    /// Lookups that were restarted because the table was resized.
    SearchRestart,
    /// Two entries of one flow merged. Linux 5.10 and later.
    ClashResolve,
    /// Entries not inserted because their hash chain was too long. Linux 5.15 and later.
    ChainTooLong,
}

impl Statistic {
    /// All of them, in the order of `conntrack -S`.
    pub const ALL: [Self; 10] = [
        Self::Found,
        Self::Invalid,
        Self::Insert,
        Self::InsertFailed,
        Self::Drop,
        Self::EarlyDrop,
        Self::Error,
        Self::SearchRestart,
        Self::ClashResolve,
        Self::ChainTooLong,
    ];

    /// The counter in a message. include/uapi/linux/netfilter/nfnetlink_conntrack.h: enum ctattr_stats_cpu.
    fn of_attribute(kind: u16) -> Option<Self> {
        Some(match kind {
            2 => Self::Found,
            4 => Self::Invalid,
            8 => Self::Insert,
            9 => Self::InsertFailed,
            10 => Self::Drop,
            11 => Self::EarlyDrop,
            12 => Self::Error,
            13 => Self::SearchRestart,
            14 => Self::ClashResolve,
            15 => Self::ChainTooLong,
            _ => return None,
        })
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Found => "found",
            Self::Invalid => "invalid",
            Self::Insert => "insert",
            Self::InsertFailed => "insert_failed",
            Self::Drop => "drop",
            Self::EarlyDrop => "early_drop",
            Self::Error => "error",
            Self::SearchRestart => "search_restart",
            Self::ClashResolve => "clash_resolve",
            Self::ChainTooLong => "chaintoolong",
        })
    }
}

/// The counters of a namespace, summed over the CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    sums: [Option<u64>; Statistic::ALL.len()],
}

impl Stats {
    pub(super) fn request() -> NetfilterMessageInner {
        NetfilterMessageInner::Other {
            subsys: NetfilterSubsystem::Conntrack,
            message_type: IPCTNL_MSG_CT_GET_STATS_CPU,
            attributes: vec![],
        }
    }

    /// Adds the counters of one CPU.
    pub(super) fn add(&mut self, message: &Message<'_>) {
        for attribute in message.attributes() {
            if let (Some(statistic), Some(value)) =
                (Statistic::of_attribute(attribute.kind), attribute.bytes())
            {
                *self.sums[statistic as usize].get_or_insert(0) += u64::from(u32::from_be_bytes(value));
            }
        }
    }

    /// The value of a counter; `None` if the kernel does not have it.
    #[must_use]
    pub fn get(&self, statistic: Statistic) -> Option<u64> {
        self.sums[statistic as usize]
    }

    /// How much a counter has grown since `before`; 0 if the kernel does not have
    /// it.
    #[must_use]
    pub fn since(&self, before: &Self, statistic: Statistic) -> u64 {
        let of = |stats: &Self| stats.get(statistic).unwrap_or(0);
        of(self).saturating_sub(of(before))
    }

    /// The counters that grew from `before` to `after`.
    #[must_use]
    pub fn changes(before: &Self, after: &Self) -> Vec<Change> {
        let change = |statistic: Statistic| {
            let by = after.get(statistic)?.saturating_sub(before.get(statistic)?);
            (by > 0).then_some(Change { statistic, by })
        };
        Statistic::ALL.into_iter().filter_map(change).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known =
            Statistic::ALL.into_iter().filter_map(|statistic| Some((statistic, self.get(statistic)?)));
        for (i, (statistic, value)) in known.enumerate() {
            write!(f, "{}{statistic}={value}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// How much a counter grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The counter.
    pub statistic: Statistic,
    /// By how much.
    pub by: u64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} +{}", self.statistic, self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nfnetlink::messages;
    use proptest::prelude::*;

    #[test]
    fn counters_are_in_the_order_of_all() {
        for (i, statistic) in Statistic::ALL.into_iter().enumerate() {
            assert_eq!(statistic as usize, i);
        }
    }

    #[test]
    fn only_what_grew_is_a_change() {
        let (mut before, mut after) = (Stats::default(), Stats::default());
        before.sums[Statistic::Invalid as usize] = Some(3);
        after.sums[Statistic::Invalid as usize] = Some(5);
        before.sums[Statistic::Drop as usize] = Some(1);
        after.sums[Statistic::Drop as usize] = Some(1);
        let changes: Vec<_> = Stats::changes(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["invalid +2"]);
        assert_eq!(after.to_string(), "invalid=5 drop=1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_added(mut bytes in proptest::collection::vec(any::<u8>(), 20..300)) {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut stats = Stats::default();
            messages(&bytes).for_each(|message| stats.add(&message));
        }
    }
}
