//! Listening sockets, and connections whose peer disappears.
//!
//! A peer whose link is cut sends neither FIN nor RST. Without keep-alive ([RFC 9293, section
//! 3.8.4][1]) such a connection stays open without end, unless there is a limit for idle ones; a
//! WebSocket has none. Linux copies the options of a listening socket to each connection that it
//! accepts, so they cost no system call there.
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9293#section-3.8.4

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};

/// Connections waiting to be accepted. The standard library allows 128: too few when a load test
/// opens all of its connections at once.
const BACKLOG: i32 = 1024;

/// The unread bytes of a response that the kernel holds for each connection. The default is
/// megabytes. Linux doubles this value.
const UNREAD_BYTES: usize = 64 << 10;

/// The silence after which the peer is probed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// The time between two probes without a response.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The probes without a response after which the connection is closed.
const KEEPALIVE_PROBES: u32 = 5;

/// The time after which a connection is closed whose peer does not acknowledge what it was sent
/// ([RFC 5482](https://www.rfc-editor.org/rfc/rfc5482)). Linux would go on for a quarter of an hour,
/// and does not probe meanwhile.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(90);

/// Which processes may listen on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortUse {
    /// One process. For any other the port is in use.
    #[default]
    Exclusive,
    /// All processes of this user that share it (`SO_REUSEPORT`). The kernel distributes new
    /// connections among them.
    Shared,
}

/// Opens a non-blocking listening socket. Its connections detect a peer that has disappeared, as
/// [`detect_lost_peer`] describes.
///
/// # Errors
/// If the address is not local, or its port is in use or not permitted.
pub fn listen(address: SocketAddr, port_use: PortUse) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?; // or a restart would wait for the last run's connections
    if port_use == PortUse::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_send_buffer_size(UNREAD_BYTES)?;
    detect_lost_peer(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the kernel close a connection within 120 seconds after its peer has disappeared, whether it is
/// idle or has sent data that is not acknowledged.
///
/// # Errors
/// If the system refuses an option.
pub fn detect_lost_peer(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    Ok(())
}

/// Takes part in no new handshake from now on. Handshakes that have begun complete, and their
/// connections can be accepted.
///
/// A listening socket that is closed resets the connections that wait to be accepted, and breaks the
/// handshakes that have begun. That matters on a port which another process shares: those clients
/// would have been served there. The SYN of a client that comes meanwhile is dropped, so the client
/// repeats it after a second, when the other process is the only one that listens.
///
/// # Errors
/// If the system has no socket filters, or refuses this one.
#[cfg(target_os = "linux")]
pub fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    /// Offset of the flags in a TCP header; SYN and ACK among them.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    // Classic BPF, see linux/filter.h.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0), // drops it
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Does nothing: there are no socket filters here.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn refuse_handshakes(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    fn accept(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap().0
    }

    #[test]
    fn accepted_connections_detect_a_lost_peer() {
        let listener = listen(ANY.into(), PortUse::Exclusive).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = accept(&listener);
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(UNACKNOWLEDGED_TIMEOUT));
    }

    #[test]
    fn a_port_is_shared_only_if_both_share_it() {
        let in_use = |listened: io::Result<TcpListener>| {
            listened.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        };
        for first in [PortUse::Exclusive, PortUse::Shared] {
            let listener = listen(ANY.into(), first).unwrap();
            let address = listener.local_addr().unwrap();
            assert!(in_use(listen(address, PortUse::Exclusive)));
            let second = listen(address, PortUse::Shared);
            assert_eq!(second.is_ok(), first == PortUse::Shared);
        }
    }

    /// A client whose SYN is dropped connects later, to the socket that is left.
    #[test]
    fn a_shared_port_loses_no_connection_when_one_socket_closes() {
        let leaving = listen(ANY.into(), PortUse::Shared).unwrap();
        let address = leaving.local_addr().unwrap();
        let staying = listen(address, PortUse::Shared).unwrap();
        refuse_handshakes(&leaving).unwrap();
        let clients: Vec<_> = (0..32)
            .map(|_| std::thread::spawn(move || TcpStream::connect(address)))
            .collect();
        let _first = accept(&staying); // by now the kernel chooses among the two
        assert_eq!(leaving.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(leaving);
        let _others: Vec<_> = (1..clients.len()).map(|_| accept(&staying)).collect();
        for client in clients {
            client.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_handshake_that_has_begun_completes() {
        let listener = listen(ANY.into(), PortUse::Shared).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        refuse_handshakes(&listener).unwrap();
        let mut accepted = accept(&listener);
        io::Write::write_all(&mut client, b"hi").unwrap();
        let mut received = [0; 2];
        io::Read::read_exact(&mut accepted, &mut received).unwrap();
        assert_eq!(&received, b"hi");
    }
}
