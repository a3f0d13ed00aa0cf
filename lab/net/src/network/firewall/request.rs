//! The requests of a transaction: table, chains, rules.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Expressions, Hook as HookAttribute, HookNumber, InetHookNumber,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};

use super::expression;
use crate::netlink::nfnetlink::Request;
use crate::topology::Family;
use crate::topology::rule::{Hook, Rule};

/// The table of a firewall, in the family ip or ip6.
pub(super) const TABLE: &str = "faultlab";
/// nft's comment in a rule's user data: one type-length-value.
/// libnftnl: NFTNL_UDATA_RULE_COMMENT.
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;

fn request(family: Family, message: NfTablesMessage, flags: u16) -> Request {
    Request { inner: message.into(), flags, family: Some(family) }
}

pub(super) fn new_table(family: Family, name: &str) -> Request {
    let table = TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] };
    request(family, NfTablesMessage::NewTable(table), NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn new_chain(family: Family, table: &str, hook: Hook) -> Request {
    let number = match hook {
        Hook::RawPrerouting | Hook::NatPrerouting => InetHookNumber::PreRouting,
        Hook::NatInput | Hook::Input => InetHookNumber::LocalIn,
        Hook::Forward => InetHookNumber::Forward,
        Hook::RawOutput | Hook::NatOutput | Hook::Output => InetHookNumber::LocalOut,
        Hook::NatPostrouting => InetHookNumber::PostRouting,
    };
    let attributes = vec![
        ChainAttribute::Table(table.to_owned()),
        ChainAttribute::Name(hook.chain().to_owned()),
        ChainAttribute::Hook(vec![
            HookAttribute::Number(HookNumber::Inet(number)),
            HookAttribute::Priority(hook.priority().cast_unsigned()),
        ]),
        ChainAttribute::Type(if hook.is_nat() { "nat" } else { "filter" }.to_owned()),
    ];
    request(family, NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE)
}

pub(super) fn new_rule(family: Family, rule: &Rule) -> Request {
    let mut attributes = rule_attributes(TABLE, rule.hook(), expression::of_rule(family, rule));
    attributes.push(RuleAttribute::UserData(comment(rule.name())));
    let message = NfTablesMessage::NewRule(RuleMessage { attributes });
    request(family, message, NLM_F_CREATE | NLM_F_APPEND)
}

/// A rule of one expression.
pub(super) fn new_rule_of(family: Family, table: &str, hook: Hook, expression: Expressions) -> Request {
    let attributes = rule_attributes(table, hook, vec![expression]);
    let message = NfTablesMessage::NewRule(RuleMessage { attributes });
    request(family, message, NLM_F_CREATE | NLM_F_APPEND)
}

fn rule_attributes(table: &str, hook: Hook, expressions: Vec<Expressions>) -> Vec<RuleAttribute> {
    vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(hook.chain().to_owned()),
        RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
    ]
}

pub(super) fn get_rules() -> NfTablesMessage {
    NfTablesMessage::GetRule(RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.to_owned())] })
}

pub(super) fn delete_rule(family: Family, hook: Hook, handle: u64) -> Request {
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(hook.chain().to_owned()),
        RuleAttribute::Handle(handle),
    ];
    request(family, NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0)
}

fn comment(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len() + 1).expect("names are checked to be shorter");
    let mut bytes = vec![NFTNL_UDATA_RULE_COMMENT, length];
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes
}

/// The name in a rule's user data.
pub(super) fn read_comment(mut bytes: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == NFTNL_UDATA_RULE_COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok();
        }
        bytes = &rest[value.len()..];
    }
    None
}
