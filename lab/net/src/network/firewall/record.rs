//! A rule as the kernel lists it: its name, its handle, its counter.

use std::fmt;

use super::request::{TABLE, read_comment};
use crate::netlink::nfnetlink::{Attribute, Message};
use crate::topology::Family;

// include/uapi/linux/netfilter/nf_tables.h: nf_tables_msg_types, nft_rule_attributes, nft_list_attributes,
// nft_expr_attributes, nft_counter_attributes.
const NFT_MSG_NEWRULE: u16 = 10 << 8 | 6;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// A rule's counter since its installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule's name.
    pub rule: String,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

impl fmt::Display for RuleCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: packets {} bytes {}", self.rule, self.packets, self.bytes)
    }
}

/// A rule of this table, if the message describes one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The family of its table.
    pub family: Family,
    pub handle: u64,
    pub counter: RuleCounter,
}

impl Record {
    pub fn decode(message: &Message<'_>) -> Option<Self> {
        if message.kind != NFT_MSG_NEWRULE {
            return None;
        }
        let family = message.family()?;
        let mut record = Self { family, handle: 0, counter: RuleCounter::default() };
        let mut ours = false;
        for attribute in message.attributes() {
            match attribute.kind {
                NFTA_RULE_TABLE => ours = attribute.text() == Some(TABLE),
                NFTA_RULE_HANDLE => record.handle = u64::from_be_bytes(attribute.bytes()?),
                NFTA_RULE_USERDATA => read_comment(attribute.value)?.clone_into(&mut record.counter.rule),
                NFTA_RULE_EXPRESSIONS => {
                    for expression in attribute.nested().filter(|element| element.kind == NFTA_LIST_ELEM) {
                        record.read_counter(&expression);
                    }
                }
                _ => {}
            }
        }
        // Old kernels list the rules of all tables, whichever was requested.
        ours.then_some(record)
    }

    fn read_counter(&mut self, expression: &Attribute<'_>) {
        let mut name = None;
        for attribute in expression.nested() {
            match attribute.kind {
                NFTA_EXPR_NAME => name = attribute.text(),
                NFTA_EXPR_DATA if name == Some("counter") => {
                    for number in attribute.nested() {
                        let value = number.bytes().map_or(0, u64::from_be_bytes);
                        match number.kind {
                            NFTA_COUNTER_BYTES => self.counter.bytes = value,
                            NFTA_COUNTER_PACKETS => self.counter.packets = value,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nfnetlink::messages;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded(mut bytes in proptest::collection::vec(any::<u8>(), 20..300)) {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&NFT_MSG_NEWRULE.to_ne_bytes());
            for message in messages(&bytes) {
                let _ = Record::decode(&message);
            }
        }

        #[test]
        fn any_user_data_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_comment(&bytes);
        }
    }
}
