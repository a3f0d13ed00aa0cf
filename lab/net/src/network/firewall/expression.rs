//! A rule as the list of expressions that the kernel evaluates.
//!
//! - include/uapi/linux/netfilter/nf_tables.h: every NFT_ and NFTA_ number
//! - net/netfilter/nft_nat.c, nft_masq.c, nft_ct.c: what each expression reads

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

use crate::topology::Family;
use crate::topology::rule::{Action, Choice, Ports, Prefix, Rule};

// enum nft_payload_bases.
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

// Offsets in struct iphdr and in struct ipv6hdr.
const IPHDR_SADDR: u32 = 12;
const IPHDR_DADDR: u32 = 16;
const IPV6HDR_SADDR: u32 = 8;
const IPV6HDR_DADDR: u32 = 24;
// Offsets in struct tcphdr, of which the ports are as in struct udphdr.
const TCPHDR_SOURCE: u32 = 0;
const TCPHDR_DEST: u32 = 2;
const TCPHDR_FLAGS: u32 = 13;

// include/uapi/linux/netfilter.h.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFPROTO_IPV6: u32 = 10;

// enum nft_ct_attributes, enum nft_ct_keys.
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;

// enum nft_nat_attributes, enum nft_nat_types.
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
const NFTA_NAT_FLAGS: u16 = 7;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;

// enum nft_ng_attributes, enum nft_ng_types.
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_INCREMENTAL: u32 = 0;

// enum nft_reject_attributes, enum nft_reject_types.
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
// include/uapi/linux/icmp.h, icmpv6.h.
const ICMP_PORT_UNREACH: u8 = 3;
const ICMPV6_PORT_UNREACH: u8 = 4;

// enum nft_masq_attributes.
const NFTA_MASQ_FLAGS: u16 = 1;
const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;

// include/uapi/linux/netfilter/nf_nat.h.
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 1 << 1;
const NF_NAT_RANGE_PROTO_RANDOM: u32 = 1 << 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

// enum nft_rt_attributes, enum nft_rt_keys.
const NFTA_RT_DREG: u16 = 1;
const NFTA_RT_KEY: u16 = 2;
const NFT_RT_TCPMSS: u32 = 3;

// enum nft_byteorder_attributes, enum nft_byteorder_ops.
const NFTA_BYTEORDER_SREG: u16 = 1;
const NFTA_BYTEORDER_DREG: u16 = 2;
const NFTA_BYTEORDER_OP: u16 = 3;
const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;
const NFT_BYTEORDER_HTON: u32 = 1;

// enum nft_exthdr_attributes, enum nft_exthdr_op.
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_EXTHDR_OFFSET: u16 = 3;
const NFTA_EXTHDR_LEN: u16 = 4;
const NFTA_EXTHDR_OP: u16 = 6;
const NFTA_EXTHDR_SREG: u16 = 7;
const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
/// include/net/tcp.h: TCPOPT_MSS, the kind of the option; its two bytes of value
/// follow kind and length.
const TCPOPT_MSS: u8 = 2;
const MSS_OFFSET: u32 = 2;
const MSS_LENGTH: u32 = 2;

/// Every match uses this register.
const REG: Register = Register::Reg1;

/// The expressions of a rule in the table of a family.
pub(super) fn of_rule(family: Family, rule: &Rule) -> Vec<Expressions> {
    let mut list = Vec::new();
    of_matches(family, rule, &mut list);
    list.push(other("counter", vec![]));
    of_action(family, rule.action(), &mut list);
    list
}

fn of_matches(family: Family, rule: &Rule, list: &mut Vec<Expressions>) {
    let matches = rule.matches();
    if let Some(device) = &matches.in_device {
        list.extend([load_meta(MetaKey::Iifname), compare(Operator::Equal, device_name(device))]);
    }
    if let Some(device) = &matches.out_device {
        list.extend([load_meta(MetaKey::Oifname), compare(Operator::Equal, device_name(device))]);
    }
    let (source, destination) = match family {
        Family::V4 => (IPHDR_SADDR, IPHDR_DADDR),
        Family::V6 => (IPV6HDR_SADDR, IPV6HDR_DADDR),
    };
    if let Some(prefix) = matches.source {
        of_prefix(source, prefix, list);
    }
    if let Some(prefix) = matches.destination {
        of_prefix(destination, prefix, list);
    }
    if let Some(protocol) = matches.protocol {
        list.extend([load_meta(MetaKey::L4Proto), compare(Operator::Equal, [protocol.number()])]);
    }
    if let Some(ports) = matches.source_port {
        of_ports(TCPHDR_SOURCE, ports, list);
    }
    if let Some(ports) = matches.destination_port {
        of_ports(TCPHDR_DEST, ports, list);
    }
    if let Some((mask, value)) = matches.tcp_flags {
        list.push(load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, TCPHDR_FLAGS, 1));
        list.extend([and([mask.bits()]), compare(Operator::Equal, [value.bits()])]);
    }
    if let Some(states) = matches.ct_state {
        list.push(other(
            "ct",
            vec![u32_attribute(NFTA_CT_DREG, REG.into()), u32_attribute(NFTA_CT_KEY, NFT_CT_STATE)],
        ));
        list.extend([and(states.bits().to_ne_bytes()), compare(Operator::NotEqual, 0u32.to_ne_bytes())]);
    }
    if let Some(modulus) = matches.one_in {
        of_one_in(modulus, list);
    }
}

fn of_one_in(modulus: u32, list: &mut Vec<Expressions>) {
    let attributes = vec![
        u32_attribute(NFTA_NG_DREG, REG.into()),
        u32_attribute(NFTA_NG_MODULUS, modulus),
        u32_attribute(NFTA_NG_TYPE, NFT_NG_INCREMENTAL),
    ];
    list.push(other("numgen", attributes));
    list.push(compare(Operator::Equal, 0u32.to_ne_bytes()));
}

fn of_action(family: Family, action: &Action, list: &mut Vec<Expressions>) {
    match action {
        Action::Accept => list.push(verdict(NF_ACCEPT)),
        Action::Drop => list.push(verdict(NF_DROP)),
        Action::Reject => {
            let code = match family {
                Family::V4 => ICMP_PORT_UNREACH,
                Family::V6 => ICMPV6_PORT_UNREACH,
            };
            let code = DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![code]);
            list.push(other("reject", vec![u32_attribute(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH), code]));
        }
        Action::Count => {}
        Action::Notrack => list.push(other("notrack", vec![])),
        Action::ClampMss => list.extend(clamp_mss()),
        Action::SourceNat { to: Some(to), ports, choice } => {
            let mut attributes = nat(NFT_NAT_SNAT, *to, list);
            if let Some(ports) = ports {
                attributes.extend(load_ports(*ports, NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX, list));
            }
            attributes.push(u32_attribute(NFTA_NAT_FLAGS, range_flags(*ports, *choice)));
            list.push(other("nat", attributes));
        }
        Action::SourceNat { to: None, ports, choice } => {
            let mut attributes = Vec::new();
            if let Some(ports) = ports {
                attributes.extend(load_ports(*ports, NFTA_MASQ_REG_PROTO_MIN, NFTA_MASQ_REG_PROTO_MAX, list));
            }
            attributes.push(u32_attribute(NFTA_MASQ_FLAGS, range_flags(*ports, *choice)));
            list.push(other("masq", attributes));
        }
        Action::DestinationNat { to, port } => {
            let mut attributes = nat(NFT_NAT_DNAT, *to, list);
            list.push(immediate(Register::Reg2, DataAttribute::Value(port.to_be_bytes().into())));
            attributes.push(u32_attribute(NFTA_NAT_REG_PROTO_MIN, Register::Reg2.into()));
            list.push(other("nat", attributes));
        }
    }
}

/// Writes the MSS that fits the routes into the option. The kernel never raises it
/// (net/netfilter/nft_exthdr.c: nft_exthdr_tcp_set_eval).
fn clamp_mss() -> [Expressions; 3] {
    let register = |kind| u32_attribute(kind, REG.into());
    let load = vec![register(NFTA_RT_DREG), u32_attribute(NFTA_RT_KEY, NFT_RT_TCPMSS)];
    let swap = vec![
        register(NFTA_BYTEORDER_SREG),
        register(NFTA_BYTEORDER_DREG),
        u32_attribute(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON),
        u32_attribute(NFTA_BYTEORDER_LEN, MSS_LENGTH),
        u32_attribute(NFTA_BYTEORDER_SIZE, MSS_LENGTH),
    ];
    let write = vec![
        register(NFTA_EXTHDR_SREG),
        DefaultNla::new(NFTA_EXTHDR_TYPE, vec![TCPOPT_MSS]),
        u32_attribute(NFTA_EXTHDR_OFFSET, MSS_OFFSET),
        u32_attribute(NFTA_EXTHDR_LEN, MSS_LENGTH),
        u32_attribute(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT),
    ];
    [other("rt", load), other("byteorder", swap), other("exthdr", write)]
}

/// Loads `to`, and refers to its register in the attributes of a nat expression.
fn nat(kind: u32, to: IpAddr, list: &mut Vec<Expressions>) -> Vec<DefaultNla> {
    let family = match Family::of(to) {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    };
    list.push(immediate(Register::Reg1, DataAttribute::Value(octets(to))));
    vec![
        u32_attribute(NFTA_NAT_TYPE, kind),
        u32_attribute(NFTA_NAT_FAMILY, family),
        u32_attribute(NFTA_NAT_REG_ADDR_MIN, Register::Reg1.into()),
    ]
}

fn load_ports(ports: Ports, min: u16, max: u16, list: &mut Vec<Expressions>) -> [DefaultNla; 2] {
    list.push(immediate(Register::Reg2, DataAttribute::Value(ports.first.to_be_bytes().into())));
    list.push(immediate(Register::Reg3, DataAttribute::Value(ports.last.to_be_bytes().into())));
    [u32_attribute(min, Register::Reg2.into()), u32_attribute(max, Register::Reg3.into())]
}

/// nft_nat detects by itself that ports were given; nft_masq needs a flag.
fn range_flags(ports: Option<Ports>, choice: Choice) -> u32 {
    let specified = if ports.is_some() { NF_NAT_RANGE_PROTO_SPECIFIED } else { 0 };
    specified
        | match choice {
            Choice::Keep => 0,
            Choice::Random => NF_NAT_RANGE_PROTO_RANDOM,
            Choice::FullyRandom => NF_NAT_RANGE_PROTO_RANDOM_FULLY,
        }
}

fn of_prefix(offset: u32, prefix: Prefix, list: &mut Vec<Expressions>) {
    let length = u32::from(prefix.family().bits()) / 8;
    list.push(load_payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length));
    if !prefix.is_one_address() {
        list.push(and(octets(prefix.netmask())));
    }
    list.push(compare(Operator::Equal, octets(prefix.address())));
}

/// An address as in a packet header, and in registers.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

fn of_ports(offset: u32, ports: Ports, list: &mut Vec<Expressions>) {
    list.push(load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2));
    if ports.first == ports.last {
        list.push(compare(Operator::Equal, ports.first.to_be_bytes()));
    } else {
        list.push(compare(Operator::GreatherThanEqual, ports.first.to_be_bytes()));
        list.push(compare(Operator::LessThanEqual, ports.last.to_be_bytes()));
    }
}

/// A device's name as the kernel compares it: IFNAMSIZ bytes.
fn device_name(device: &str) -> [u8; libc::IFNAMSIZ] {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays NUL: no device has a longer name.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *to = from;
    }
    name
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(REG)])
}

fn load_payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(REG),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn compare(operator: Operator, value: impl Into<Vec<u8>>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(REG),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.into())),
    ])
}

fn and(mask: impl Into<Vec<u8>>) -> Expressions {
    let mask = mask.into();
    let length = mask.len();
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(REG),
        Bitwise::DestinationRegister(REG),
        Bitwise::Length(u32::try_from(length).expect("a register has 16 bytes")),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; length])),
    ])
}

fn immediate(register: Register, data: DataAttribute) -> Expressions {
    Expressions::Immediate(vec![Immediate::DestinationRegister(register), Immediate::Data(data)])
}

fn verdict(code: u32) -> Expressions {
    let verdict = vec![VerdictAttribute::Code(Verdict::Other(code))];
    immediate(Register::Verdict, DataAttribute::Verdict(verdict))
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

fn u32_attribute(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().into())
}

/// The module and the CONFIG name of an expression that a kernel may lack; the
/// other expressions are part of nf_tables itself.
pub(super) fn module(expression: &Expressions) -> Option<&'static str> {
    match expression {
        Expressions::Meta(_) => Some("nft_meta (CONFIG_NFT_META)"),
        Expressions::Other { expression_type, .. } => match expression_type.as_str() {
            "counter" => Some("nft_counter (CONFIG_NFT_COUNTER)"),
            "ct" => Some("nft_ct (CONFIG_NFT_CT)"),
            "notrack" => Some("notrack of nft_ct (CONFIG_NFT_CT, commit 254432613c58)"),
            "numgen" => Some("nft_numgen (CONFIG_NFT_NUMGEN)"),
            "reject" => {
                Some("nft_reject (CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_IPV4, CONFIG_NFT_REJECT_IPV6)")
            }
            "rt" => Some("nft_rt (CONFIG_NFT_RT)"),
            "exthdr" => Some("nft_exthdr (CONFIG_NFT_EXTHDR)"),
            "nat" => Some("nft_nat (CONFIG_NFT_NAT)"),
            "masq" => Some("nft_masq (CONFIG_NFT_MASQ)"),
            _ => None,
        },
        _ => None,
    }
}
