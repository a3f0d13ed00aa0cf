//! The log messages of conntrack about invalid segments.
//!
//! nf_conntrack_log_invalid makes conntrack pass messages to the logger of the
//! namespace, here nfnetlink_log. They stay in a netlink socket until the arm has
//! ended, so no process wakes up for them. Nothing but the logging changes.
//!
//! - net/netfilter/nf_conntrack_proto.c: nf_ct_l4proto_log_invalid
//! - net/netfilter/nf_conntrack_proto_tcp.c: tcp_in_window, nf_conntrack_tcp_packet
//! - net/netfilter/nfnetlink_log.c; include/uapi/linux/netfilter/nfnetlink_log.h

use std::io;

use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, ULogMessage};
use nix::sys::socket::{setsockopt, sockopt};

use faultlab_base::error::{Error, Result};
use faultlab_model::recording::InvalidLog;
use faultlab_net::network::nfnetlink::{Message, Nfnetlink, messages};
use faultlab_net::network::{Namespace, sysctl};
use faultlab_net::topology::Family;
use faultlab_net::wire::segment::Header;

// NFNL_SUBSYS_ULOG in the high byte, enum nfulnl_msg_types in the low one;
// enum nfulnl_attr_type.
const NFULNL_MSG_PACKET: u16 = 4 << 8;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;

/// The longest IPv4 and TCP headers, with all their options; IPv6 and TCP take less.
const HEADERS: u32 = 120;
/// Room for a few hundred packets of about 1 KiB.
const RECEIVE_BUFFER: usize = 1 << 18;
/// IPPROTO_TCP: the protocol for nf_conntrack_log_invalid.
const TCP: &str = "6";

fn decode(message: &Message<'_>) -> Option<InvalidLog> {
    if message.kind != NFULNL_MSG_PACKET {
        return None;
    }
    let (mut words, mut headers) = (None, None);
    for attribute in message.attributes() {
        match attribute.kind {
            NFULA_PREFIX => words = attribute.text().map(plain),
            NFULA_PAYLOAD => headers = Header::of_packet(attribute.value),
            _ => {}
        }
    }
    let (header, length) = headers?;
    Some(InvalidLog { header, length, words: words? })
}

/// The message without the prefix that conntrack adds: `nf_ct_proto_6: `, and
/// `nf_ct_tcp: ` before 4.16.
fn plain(prefix: &str) -> String {
    let words = match prefix.split_once(": ") {
        Some((who, words)) if who.starts_with("nf_ct_") => words,
        _ => prefix,
    };
    words.trim().to_owned()
}

/// A listener for conntrack's log messages in a namespace. It keeps the namespace
/// alive.
#[derive(Debug)]
pub struct InvalidLogs {
    nfnetlink: Nfnetlink,
}

impl InvalidLogs {
    /// Listens from now on: makes nfnetlink_log the namespace's logger for IPv4 and
    /// IPv6, and makes conntrack log invalid TCP segments.
    ///
    /// # Errors
    /// If the kernel has no nfnetlink_log or no nf_conntrack, or another process
    /// listens in this namespace.
    pub fn listen(namespace: &Namespace) -> Result<Self> {
        let nfnetlink = Nfnetlink::open(namespace)?;
        let place = nfnetlink.place();
        // By default the kernel sends a packet at once, so that no timer runs.
        let [v4, v6] = Family::BOTH;
        for (family, tried, configuration) in [
            (v4, "make nfnetlink_log the logger", ConfigNla::Cmd(ConfigCmd::PfBind)),
            (v6, "make nfnetlink_log the logger of IPv6", ConfigNla::Cmd(ConfigCmd::PfBind)),
            (v4, "bind nflog group 0", ConfigNla::Cmd(ConfigCmd::Bind)),
            (v4, "ask nflog for headers", ConfigNla::Mode(ConfigMode::new_packet(HEADERS))),
            (v4, "ask nflog for each packet", ConfigNla::QThresh(1)),
        ] {
            nfnetlink
                .request(Some(family), ULogMessage::Config(vec![configuration]), |_| {})
                .map_err(|e| Error::kernel(place, tried, e))?;
        }
        let socket = nfnetlink.socket();
        // Without CAP_NET_ADMIN on the machine, net.core.rmem_max is the limit.
        setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER))
            .map_err(|e| Error::kernel(place, "setsockopt(SO_RCVBUF)", e))?;
        sysctl::set(namespace, "net.netfilter.nf_conntrack_log_invalid", TCP)?;
        Ok(Self { nfnetlink })
    }

    /// The messages since the last `take`, in order, as far as the socket could hold
    /// them.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn take(&self) -> Result<Vec<InvalidLog>> {
        let mut said = vec![];
        loop {
            match self.nfnetlink.receive() {
                Ok(datagram) => said.extend(messages(&datagram).filter_map(|m| decode(&m))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(said),
                // The socket overflowed; the first messages are the informative ones.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(Error::kernel(self.nfnetlink.place(), "read conntrack's words", e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use faultlab_net::wire::segment::{Flags, Macs, Segment};

    #[test]
    fn words_are_told_without_their_module() {
        let said = "SEQ is over the upper bound (over the window of the receiver)";
        for module in ["nf_ct_proto_6: ", "nf_ct_tcp: ", ""] {
            assert_eq!(plain(&format!("{module}{said} ")), said);
        }
        assert_eq!(plain("a: b"), "a: b");
    }

    /// The bytes of an nfnetlink_log message.
    fn message(prefix: &[u8], packet: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&NFULNL_MSG_PACKET.to_ne_bytes());
        bytes.extend([2, 0, 0, 0]);
        for (kind, value) in [(NFULA_PREFIX, prefix), (NFULA_PAYLOAD, packet)] {
            bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_remark_is_read_with_its_segment() {
        let header = Header {
            src: "10.0.2.2:9000".parse().unwrap(),
            dst: "10.0.1.2:41000".parse().unwrap(),
            seq: 5,
            ack: 6,
            flags: Flags::PSH | Flags::ACK,
            window: 500,
            timestamps: None,
        };
        let frame = Segment { header, payload: &[0; 500] }.frame(Macs { src: [2; 6], dst: [4; 6] }).unwrap();
        let bytes = message(b"nf_ct_proto_6: ACK is over upper bound \0", &frame[14..14 + 120]);
        let invalid_logs: Vec<_> = messages(&bytes).filter_map(|m| decode(&m)).collect();
        assert_eq!(
            invalid_logs,
            [InvalidLog { header, length: 500, words: "ACK is over upper bound".into() }]
        );
    }

    proptest! {
        #[test]
        fn any_packet_is_decoded(
            prefix in proptest::collection::vec(any::<u8>(), 0..40),
            packet in proptest::collection::vec(any::<u8>(), 0..140),
        ) {
            for message in messages(&message(&prefix, &packet)) {
                let _ = decode(&message);
            }
        }
    }
}
