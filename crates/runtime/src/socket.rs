//! The sockets of one member: UDP and TCP on one port.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::error::Error;
use crate::handle::lock;

/// Asked of the system for each direction of the UDP socket. Linux holds 256 small datagrams in its default buffer, and
/// one heal of 100 members is more.
const BUFFER_BYTES: usize = 4 << 20;
/// Ports tried when the system picks them: one may be free for UDP and taken for TCP.
const TRIES: usize = 32;
const BACKLOG: i32 = 256;
/// Age at which the kernel's count of drops is read anew.
const DROPS_AGE: Duration = Duration::from_millis(500);

/// Longest datagram that can arrive.
pub(crate) const DATAGRAM_MAX: usize = 65_536;

/// Bound sockets, not blocking.
pub(crate) struct Sockets {
    pub(crate) udp: std::net::UdpSocket,
    pub(crate) tcp: std::net::TcpListener,
    pub(crate) local: SocketAddr,
    pub(crate) receive_buffer_bytes: usize,
    pub(crate) send_buffer_bytes: usize,
}

/// Binds UDP and TCP to this address; port 0 picks one that is free for both.
///
/// # Errors
/// [`Error::Bind`].
pub(crate) fn bind(address: SocketAddr) -> Result<Sockets, Error> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(address) {
            Ok(sockets) => return Ok(sockets),
            Err(error) if tries > 0 && error.kind() == ErrorKind::AddrInUse => {}
            Err(source) => return Err(Error::Bind { address: address.to_string(), source }),
        }
    }
}

fn bind_once(address: SocketAddr) -> io::Result<Sockets> {
    let udp = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&udp, address)?;
    // A system that grants less is read back below.
    let _ = udp.set_recv_buffer_size(BUFFER_BYTES);
    let _ = udp.set_send_buffer_size(BUFFER_BYTES);
    udp.bind(&address.into())?;
    let (receive_buffer_bytes, send_buffer_bytes) = (udp.recv_buffer_size()?, udp.send_buffer_size()?);
    let udp = std::net::UdpSocket::from(udp);
    let local = udp.local_addr()?;

    let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&tcp, address)?;
    // On Unix this only ignores closed connections in TIME_WAIT; on Windows it would share the port.
    #[cfg(unix)]
    tcp.set_reuse_address(true)?;
    tcp.bind(&local.into())?;
    tcp.listen(BACKLOG)?;
    Ok(Sockets { udp, tcp: tcp.into(), local, receive_buffer_bytes, send_buffer_bytes })
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(())
}

/// The UDP socket under tokio, and a second view of it that bypasses tokio's notion of readiness.
pub(crate) struct Udp {
    socket: UdpSocket,
    direct: std::net::UdpSocket,
    is_v6: bool,
}

impl Udp {
    /// Must be called within the runtime.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Udp> {
        let direct = socket.try_clone()?;
        let is_v6 = socket.local_addr()?.is_ipv6();
        Ok(Udp { socket: UdpSocket::from_std(socket)?, direct, is_v6 })
    }

    /// Resolves when a datagram may have arrived.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Resolves when a datagram may be sent.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// The next datagram, as far as tokio knows of one.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.try_recv_from(buf).map(canonical)
    }

    /// The next datagram, asked of the kernel: after a stall tokio has not polled yet and knows of none (`D4`).
    pub(crate) fn receive_direct(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.direct.recv_from(buf).map(canonical)
    }

    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.try_send_to(datagram, self.fitted(to))
    }

    /// An IPv4 address as a socket of both families takes it.
    fn fitted(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }
}

fn canonical((bytes, from): (usize, SocketAddr)) -> (usize, SocketAddr) {
    (bytes, canonical_address(from))
}

/// An IPv4 address that came through a socket of both families, as IPv4.
pub(crate) fn canonical_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The TCP listener under tokio. Must be called within the runtime.
pub(crate) fn listener(tcp: std::net::TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(tcp)
}

/// Small frames at once, dead peers found out.
pub(crate) fn tune_stream(stream: &tokio::net::TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10));
    // Both are improvements only: a system without them loses nothing that timeouts do not catch.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Datagrams the kernel dropped because the receive buffer was full. Linux tells it in /proc/net/udp, by inode; other
/// systems do not tell it per socket.
pub(crate) struct KernelDrops {
    inode: Option<String>,
    is_v6: bool,
    last: Mutex<Option<(Instant, u64)>>,
}

impl KernelDrops {
    pub(crate) fn of(udp: &std::net::UdpSocket) -> KernelDrops {
        let is_v6 = udp.local_addr().is_ok_and(|local| local.is_ipv6());
        KernelDrops { inode: inode(udp), is_v6, last: Mutex::new(None) }
    }

    /// At most half a second old; after the socket is closed the last known count.
    pub(crate) fn read(&self) -> u64 {
        let mut last = lock(&self.last);
        match *last {
            Some((at, drops)) if at.elapsed() < DROPS_AGE => drops,
            known => {
                let drops = self.look().or(known.map(|(_, drops)| drops)).unwrap_or(0);
                *last = Some((Instant::now(), drops));
                drops
            }
        }
    }

    fn look(&self) -> Option<u64> {
        let inode = self.inode.as_deref()?;
        let table =
            std::fs::read_to_string(if self.is_v6 { "/proc/net/udp6" } else { "/proc/net/udp" }).ok()?;
        let line = table.lines().find(|line| line.split_ascii_whitespace().nth(9) == Some(inode))?;
        line.split_ascii_whitespace().nth(12)?.parse().ok()
    }
}

#[cfg(target_os = "linux")]
fn inode(udp: &std::net::UdpSocket) -> Option<String> {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", udp.as_raw_fd())).ok()?;
    Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn inode(_: &std::net::UdpSocket) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn binds_both_on_one_port_and_refuses_one_in_use() {
        let first = bind(loopback(0)).unwrap();
        assert_eq!(first.tcp.local_addr().unwrap(), first.local);
        assert!(first.receive_buffer_bytes > 0 && first.send_buffer_bytes > 0);
        let again = bind(first.local).err().unwrap();
        assert_eq!(again.code(), "ERR_HEARSAY_BIND");
        assert!(again.to_string().contains(&first.local.to_string()));
        let local = first.local;
        drop(first);
        assert_eq!(bind(local).unwrap().local, local);
    }

    #[test]
    fn a_port_taken_for_tcp_only_is_refused_too() {
        let tcp = std::net::TcpListener::bind(loopback(0)).unwrap();
        let error = bind(tcp.local_addr().unwrap()).err().unwrap();
        assert_eq!(error.code(), "ERR_HEARSAY_BIND");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_its_drops() {
        let sockets = bind(loopback(0)).unwrap();
        let drops = KernelDrops::of(&sockets.udp);
        assert_eq!(drops.look(), Some(0));
        SockRef::from(&sockets.udp).set_recv_buffer_size(4_096).unwrap();
        let sender = std::net::UdpSocket::bind(loopback(0)).unwrap();
        for _ in 0..500 {
            sender.send_to(&[0; 1_000], sockets.local).unwrap();
        }
        assert!(drops.look().unwrap() > 0);
    }
}
