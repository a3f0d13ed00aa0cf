//! The labels of arrows: ports, flags, and relative sequence numbers.

use std::collections::HashMap;
use std::net::SocketAddr;

use faultlab_explain::hops::{Packet, Payload};
use faultlab_net::wire::segment::{Flags, Header};

/// Sequence numbers that differ by more than this belong to different connections.
const FAR: u32 = 1 << 30;

/// Labels packets in the order of time.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// The sequence number to which those of a direction are relative, by source and
    /// destination: that of its SYN, or of its first segment.
    first: HashMap<(SocketAddr, SocketAddr), u32>,
}

impl Labels {
    /// The label of a packet.
    pub(super) fn of(&mut self, packet: &Packet) -> String {
        match &packet.what {
            Payload::Tcp(header, length) => {
                format!("{}>{} {}", header.src.port(), header.dst.port(), self.segment(header, *length))
            }
            Payload::Udp(src, dst, length) => format!("{src}>{dst} UDP len {length}"),
            Payload::Icmp(word) => word.clone(),
            Payload::Fragment => "fragment".to_owned(),
        }
    }

    fn segment(&mut self, header: &Header, length: usize) -> String {
        let flags = header.flags;
        let mut words: Vec<String> = vec![];
        for (flag, word) in
            [(Flags::SYN, "SYN"), (Flags::FIN, "FIN"), (Flags::RST, "RST"), (Flags::ACK, "ACK")]
        {
            if flags.contains(flag) {
                words.push(word.to_owned());
            }
        }
        if words.is_empty() {
            words.push("no ACK".to_owned());
        }
        let way = (header.src, header.dst);
        if flags.contains(Flags::SYN) {
            self.first.insert(way, header.seq);
        }
        let acknowledges = flags.contains(Flags::ACK);
        let quiet = length == 0 && flags == Flags::ACK;
        if !quiet {
            words.push(format!("seq {}", relative(header.seq, self.first(way, header.seq))));
        }
        if acknowledges {
            let base = self.first((way.1, way.0), header.ack.wrapping_sub(1));
            words.push(format!("ack {}", relative(header.ack, base)));
        }
        if length > 0 {
            words.push(format!("len {length}"));
        }
        if let (true, Some(stamps)) = (flags.contains(Flags::SYN), header.timestamps) {
            words.push(format!("TSval {}", stamps.tsval));
        }
        words.join(" ")
    }

    /// The sequence number to which `number` is relative. After NAT a direction is recognised
    /// by an unchanged port and a sequence number that is close.
    fn first(&mut self, way: (SocketAddr, SocketAddr), number: u32) -> u32 {
        if let Some(first) = self.first.get(&way) {
            return *first;
        }
        let near = |first: u32| number.wrapping_sub(first) < FAR;
        let alike = |known: &(SocketAddr, SocketAddr)| {
            known.0.port() == way.0.port() || known.1.port() == way.1.port()
        };
        let others = self.first.iter().filter(|(known, first)| alike(known) && near(**first));
        let nearest = others.map(|(_, first)| *first).min_by_key(|first| number.wrapping_sub(*first));
        let first = nearest.unwrap_or(number);
        self.first.insert(way, first);
        first
    }
}

fn relative(number: u32, first: u32) -> String {
    let after = number.wrapping_sub(first);
    if after < FAR {
        after.to_string()
    } else if after.wrapping_neg() < FAR {
        format!("-{}", after.wrapping_neg())
    } else {
        format!("{number} (absolute)")
    }
}
