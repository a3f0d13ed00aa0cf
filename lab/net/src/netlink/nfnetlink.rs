//! The netfilter netlink socket of a namespace: requests, batches, dumps.
//!
//! The kernel answers a request inside send(2), and continues a dump inside each
//! recv(2). So every read here is non-blocking: either something is there already,
//! or no answer will come. Events, which nobody requests, are read likewise.
//!
//! - net/netfilter/nfnetlink.c: nfnetlink_rcv_batch
//! - include/uapi/linux/netfilter/nfnetlink.h
//! - net/netlink/af_netlink.c: netlink_ack, netlink_dump

use std::cell::Cell;
use std::io;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::namespace::Namespace;
use crate::topology::Family;
use faultlab_base::error::{Error, Result};

/// The kernel builds no dump message larger than 32 KiB (netlink_dump). An error
/// message repeats the request, and no request here comes near the rest of the
/// buffer.
const DATAGRAM_MAX: usize = 64 * 1024;

/// The subsystem that a batch is for. include/uapi/linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES.
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// Length of struct nfgenmsg.
const NFGENMSG_LEN: usize = 4;

/// A netfilter netlink socket. It keeps its namespace alive.
#[derive(Debug)]
pub struct Nfnetlink {
    place: String,
    socket: Socket,
    sequence: Cell<u32>,
}

/// A request, its flags besides NLM_F_REQUEST, and its family: `None` for both.
#[derive(Debug)]
pub struct Request {
    /// The request.
    pub inner: NetfilterMessageInner,
    /// NLM_F_CREATE and the like.
    pub flags: u16,
    /// The family.
    pub family: Option<Family>,
}

/// The kernel's refusal of a batch.
#[derive(Debug)]
pub struct Refusal {
    /// The refused message, counted from 0; `None` if the whole batch was
    /// refused.
    pub message: Option<usize>,
    /// The reason.
    pub errno: Errno,
}

impl Nfnetlink {
    /// Opens a socket in the namespace.
    ///
    /// # Errors
    /// If no netlink socket can be opened.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let place = namespace.name().to_owned();
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = namespace.enter(open).map_err(|e: io::Error| match e.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => {
                Error::missing("nfnetlink (CONFIG_NETFILTER_NETLINK)", "load it, or use a kernel that has it")
            }
            _ => Error::kernel(&place, "socket(AF_NETLINK, NETLINK_NETFILTER)", e),
        })?;
        Ok(Self { place, socket, sequence: Cell::new(0) })
    }

    /// The namespace's name, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The socket itself.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends one request and passes the messages before the acknowledgement to
    /// `each`.
    ///
    /// # Errors
    /// The errno with which the kernel refuses the request.
    pub fn request(
        &self,
        family: Option<Family>,
        inner: impl Into<NetfilterMessageInner>,
        each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.transact(Request { inner: inner.into(), flags: NLM_F_ACK, family }, each)
    }

    /// Sends one dump request and passes every entry to `each`.
    ///
    /// # Errors
    /// The errno with which the kernel refuses the request.
    pub fn dump(
        &self,
        family: Option<Family>,
        inner: impl Into<NetfilterMessageInner>,
        each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.transact(Request { inner: inner.into(), flags: NLM_F_DUMP, family }, each)
    }

    fn transact(&self, request: Request, mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        let sequence = self.take_sequences(1);
        let mut bytes = Vec::new();
        write(&mut bytes, request, 0, sequence);
        self.socket.send(&bytes, 0)?;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram).filter(|message| message.sequence == sequence) {
                match message.end() {
                    Some(Ok(())) => return Ok(()),
                    Some(Err(errno)) => return Err(errno.into()),
                    None => each(message),
                }
            }
        }
    }

    /// Sends one nf_tables transaction: all of the messages take effect, or none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn commit(&self, requests: Vec<Request>) -> Result<(), Refusal> {
        self.batch(requests, true)
    }

    /// Sends a transaction without its end: the kernel validates it and rolls it
    /// back.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn rehearse(&self, requests: Vec<Request>) -> Result<(), Refusal> {
        self.batch(requests, false)
    }

    fn batch(&self, requests: Vec<Request>, commit: bool) -> Result<(), Refusal> {
        let count = requests.len();
        let begin = self.take_sequences(u32::try_from(count + 2).expect("a batch is short"));
        let mut bytes = Vec::new();
        write(&mut bytes, control(ControlMessage::BatchBegin), NFNL_SUBSYS_NFTABLES, begin);
        let mut sequence = begin;
        for (i, mut request) in requests.into_iter().enumerate() {
            sequence += 1;
            // Request one acknowledgement, for the last message: errors come
            // unrequested.
            request.flags |= if i + 1 == count { NLM_F_ACK } else { 0 };
            write(&mut bytes, request, 0, sequence);
        }
        if commit {
            write(&mut bytes, control(ControlMessage::BatchEnd), NFNL_SUBSYS_NFTABLES, sequence + 1);
        }

        let whole = |e: io::Error| Refusal { message: None, errno: errno(&e) };
        self.socket.send(&bytes, 0).map_err(whole)?;
        let mut answer = None;
        loop {
            let datagram = match self.receive() {
                Ok(datagram) => datagram,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(whole(e)),
            };
            for message in messages(&datagram).filter(|message| message.sequence >= begin) {
                match (message.end(), &answer) {
                    (Some(Err(errno)), None | Some(Ok(()))) => {
                        // A sequence number is its position plus one: the first
                        // is that of the batch itself.
                        let position = (message.sequence - begin).checked_sub(1);
                        answer = Some(Err(Refusal { message: position.map(|p| p as usize), errno }));
                    }
                    (Some(Ok(())), None) => answer = Some(Ok(())),
                    _ => {}
                }
            }
        }
        answer.unwrap_or(Err(Refusal { message: None, errno: Errno::ENOMSG }))
    }

    /// Returns one datagram, or else WouldBlock.
    ///
    /// # Errors
    /// The errno that the kernel returns.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
        self.socket.recv(&mut datagram, 0)?;
        Ok(datagram)
    }

    fn take_sequences(&self, count: u32) -> u32 {
        let first = self.sequence.get() + 1;
        self.sequence.set(first + count);
        first
    }
}

/// The errno of a failed call in this file, which makes no other errors.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn control(message: ControlMessage) -> Request {
    Request { inner: message.into(), flags: 0, family: None }
}

fn write(bytes: &mut Vec<u8>, Request { inner, flags, family }: Request, resource: u16, sequence: u32) {
    let family = match family {
        None => NetfilterProtoFamily::Unspec,
        Some(Family::V4) => NetfilterProtoFamily::IPv4,
        Some(Family::V6) => NetfilterProtoFamily::IPv6,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let body = NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(body));
    message.finalize();
    let start = bytes.len();
    bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// A message from the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Subsystem in the high byte, message in the low one.
    pub kind: u16,
    /// NLM_F_CREATE and the like.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Whether the message ends an answer, and with what result.
    fn end(&self) -> Option<Result<(), Errno>> {
        // NLMSG_DONE has an errno too: a dump may fail halfway.
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        Some(if code < 0 { Err(Errno::from_raw(code.wrapping_neg())) } else { Ok(()) })
    }

    /// nfgen_family; `None` if it is another family or unspecified.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        // NFPROTO_IPV4 is AF_INET, and NFPROTO_IPV6 is AF_INET6.
        match i32::from(*self.payload.first()?) {
            libc::AF_INET => Some(Family::V4),
            libc::AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }

    /// The attributes after struct nfgenmsg.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attributes(self.payload.get(NFGENMSG_LEN..).unwrap_or_default())
    }
}

/// The messages of a datagram, up to the first that is malformed.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(datagram).ok()?;
        let message = Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload: buffer.payload(),
        };
        let length = (buffer.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// A netlink attribute: its type without flags, and its value.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// The attribute's type, without its flags.
    pub kind: u16,
    /// Its payload.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The nested attributes.
    pub fn nested(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attributes(self.value)
    }

    /// The first N bytes of the value, if it has at least that length.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> Option<[u8; N]> {
        self.value.first_chunk().copied()
    }

    /// The value as text without its NUL.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value.strip_suffix(&[0]).unwrap_or(self.value)).ok()
    }
}

/// The attributes in `bytes`, up to the first that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    NlasIterator::new(bytes).map_while(|nla| {
        let nla = nla.ok()?;
        let (kind, end) = (nla.kind(), usize::from(nla.length()));
        Some(Attribute { kind, value: &nla.into_inner()[NLA_HEADER_SIZE..end] })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_may_end_without_padding() {
        let mut datagram = vec![17, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        datagram.push(0xff);
        let all: Vec<_> = messages(&datagram).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].sequence.to_le(), 7);
        assert_eq!(all[0].family(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let _ = (message.end(), message.family());
                for attribute in message.attributes() {
                    let _ = (attribute.bytes::<4>(), attribute.text(), attribute.nested().count());
                }
            }
        }

        /// Lengths that are almost valid reach further than random ones.
        #[test]
        fn any_lengths_are_walked(length in 0u32..80, inner in 0u16..80, filler in any::<u8>()) {
            let mut bytes = vec![filler; 64];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[20..22].copy_from_slice(&inner.to_ne_bytes());
            for message in messages(&bytes) {
                prop_assert!(message.attributes().flat_map(|a| a.nested()).count() <= 16);
            }
        }
    }
}
