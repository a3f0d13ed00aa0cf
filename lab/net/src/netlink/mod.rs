//! A netlink request and its complete answer.
//!
//! The kernel processes a request inside send(), and continues a dump inside each
//! recv(). So nothing here waits for an event: a request is as synchronous as a
//! system call.

pub mod nfnetlink;
pub mod rtnl;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

use crate::namespace::Namespace;

/// include/uapi/linux/netlink.h: NLMSG_ALIGNTO.
const ALIGN: usize = 4;
/// include/uapi/linux/netlink.h: NLMSG_HDRLEN.
const HEADER: usize = 16;

/// Requests a list and returns its items.
///
/// # Errors
/// The errno with which the kernel refuses the request.
pub fn dump<M>(namespace: &Namespace, protocol: isize, request: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    transact(namespace, protocol, NLM_F_DUMP, request)
}

/// Sends a query and returns the messages before the acknowledgement.
pub(crate) fn query<M>(namespace: &Namespace, protocol: isize, request: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    transact(namespace, protocol, NLM_F_ACK, request)
}

/// Requests a change and returns once the kernel has made it. `flags` are
/// NLM_F_CREATE and the like.
///
/// # Errors
/// The errno with which the kernel refuses the request.
pub fn change<M>(namespace: &Namespace, protocol: isize, flags: u16, request: M) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    transact(namespace, protocol, NLM_F_ACK | flags, request).map(drop)
}

fn transact<M>(namespace: &Namespace, protocol: isize, flags: u16, message: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let (socket, request) = prepare(namespace, protocol, flags, message)?;
    socket.send(&request, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read_datagram(&datagram, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Opens a socket and builds a request to send through it. `flags` are NLM_F_ACK
/// and the like.
///
/// # Errors
/// If no socket can be opened.
pub fn prepare<M: NetlinkSerializable>(
    namespace: &Namespace,
    protocol: isize,
    flags: u16,
    message: M,
) -> io::Result<(Socket, Vec<u8>)> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut request = vec![0; message.buffer_len()];
    message.serialize(&mut request);

    let mut socket = namespace.enter(|| Socket::new(protocol))?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok((socket, request))
}

/// Appends the datagram's messages to `answers`; returns true if it ends the
/// answer.
fn read_datagram<M: NetlinkDeserializable>(datagram: &[u8], answers: &mut Vec<M>) -> io::Result<bool> {
    let mut rest = datagram;
    while rest.len() >= HEADER {
        let message = NetlinkMessage::<M>::deserialize(rest)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            // A dump that fails halfway has the errno in its final message.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.wrapping_neg()));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => match error.code {
                Some(code) => return Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                None => return Ok(true),
            },
            _ => {}
        }
        let length = (message.header.length as usize).max(HEADER).next_multiple_of(ALIGN);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// The index of an interface in this thread's namespace.
///
/// # Errors
/// ENODEV if there is no such interface; EMFILE and the like if no socket can be
/// opened for the query, for which if_nametoindex(3) returns ENOENT.
pub(crate) fn index_of(interface: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(interface).map_err(|errno| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
        socket.err().unwrap_or_else(|| errno.into())
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(HEADER + body.len()).expect("short").to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn read(datagram: &[u8]) -> io::Result<bool> {
        read_datagram::<RouteNetlinkMessage>(datagram, &mut Vec::new())
    }

    #[test]
    fn an_acknowledgement_ends_the_answer() {
        let mut body = 0_i32.to_ne_bytes().to_vec();
        body.extend([0; 16]);
        assert!(read(&message(2, &body)).expect("no error"));
    }

    #[test]
    fn a_dump_that_ends_with_an_errno_fails() {
        let done = message(3, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&done).expect_err("ENOENT").raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&datagram);
        }

        #[test]
        fn no_body_panics(kind in 0_u16..120, body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&message(kind, &body));
        }
    }
}
