//! The PROXY protocol, versions 1 and 2: a load balancer in front of us says whom it speaks for.
//!
//! Only to be read from connections out of networks that the operator named; from those the header is a must, as
//! the specification wants it: whoever guesses can be lied to. Exactly the header is taken off the connection, so TLS
//! or SMTP may follow at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{NetError, Stream, normalise};

/// The longest version 1 header, its CRLF included.
const V1_MAX: usize = 107;
/// The longest version 2 header we read: addresses and whatever a balancer says about TLS.
const V2_MAX: usize = 4096;
/// The part of a version 2 header that says how long the rest is.
const V2_FIXED: usize = 16;
/// Both versions are at least this long, and their first bytes tell them apart.
const START: usize = 12;

/// The connection that the balancer passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyInfo {
    /// The real client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// Reads the header off a new connection. None when the balancer speaks for itself (health checks: `LOCAL`,
/// `UNKNOWN`, Unix sockets): the connection's own addresses hold.
///
/// # Errors
/// [`NetError::Timeout`], or [`NetError::Peer`] when what comes is no such header: close the connection.
pub async fn read_header(stream: &mut Stream, limit: Duration) -> Result<Option<ProxyInfo>, NetError> {
    let Stream::Tcp(tcp) = stream else {
        return Err(NetError::Bug("the PROXY header goes before everything else".into()));
    };
    timeout(limit, read(tcp))
        .await
        .map_err(|_| NetError::Timeout { what: "waiting for the PROXY header", after: limit })?
}

async fn read(tcp: &mut TcpStream) -> Result<Option<ProxyInfo>, NetError> {
    let broken = |e| NetError::network("connection lost before the PROXY header was complete", e);
    let mut header = vec![0; START];
    tcp.read_exact(&mut header).await.map_err(broken)?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(V2_FIXED, 0);
        tcp.read_exact(&mut header[START..]).await.map_err(broken)?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if V2_FIXED + rest > V2_MAX {
            return Err(malformed("it is longer than 4096 octets"));
        }
        header.resize(V2_FIXED + rest, 0);
        tcp.read_exact(&mut header[V2_FIXED..]).await.map_err(broken)?;
        parse(&header)
    } else if header.starts_with(b"PROXY ") {
        read_line(tcp, &mut header).await?;
        parse(&header)
    } else {
        Err(malformed("the connection starts with something else; is proxy_protocol on at the balancer?"))
    }
}

/// Reads on to the line feed and no further.
async fn read_line(tcp: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), NetError> {
    let broken = |e| NetError::network("connection lost before the PROXY header was complete", e);
    while !header.ends_with(b"\n") {
        let mut ahead = [0; V1_MAX];
        let room = V1_MAX - header.len();
        if room == 0 {
            return Err(malformed("the line is longer than 107 octets"));
        }
        // Look before taking: what follows the line feed belongs to SMTP or TLS.
        let seen = tcp.peek(&mut ahead[..room]).await.map_err(broken)?;
        let take = ahead[..seen].iter().position(|b| *b == b'\n').map_or(seen, |at| at + 1);
        if take == 0 {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let from = header.len();
        header.resize(from + take, 0);
        tcp.read_exact(&mut header[from..]).await.map_err(broken)?;
    }
    Ok(())
}

fn malformed(why: impl std::fmt::Display) -> NetError {
    NetError::Peer(format!("not a PROXY protocol header: {why}"))
}

fn info(source: SocketAddr, destination: SocketAddr) -> ProxyInfo {
    let plain = |a: SocketAddr| SocketAddr::new(normalise(a.ip()), a.port());
    ProxyInfo { source: plain(source), destination: plain(destination) }
}

/// Parses a whole header of either version; none as for [`read_header`].
///
/// # Errors
/// [`NetError::Peer`] when it is none.
pub fn parse(header: &[u8]) -> Result<Option<ProxyInfo>, NetError> {
    if header.starts_with(v2::PROTOCOL_PREFIX) { parse_v2(header) } else { parse_v1(header) }
}

/// The header (version 2) by which a proxy in front of us is asked to connect from `source`, or from where it likes, to
/// `target`.
pub(crate) fn header(source: Option<IpAddr>, target: SocketAddr) -> Result<Vec<u8>, NetError> {
    let any =
        if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let source = SocketAddr::new(source.unwrap_or(any), 0);
    v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, (source, target))
        .build()
        .map_err(|e| NetError::Bug(format!("cannot build a PROXY header: {e}")))
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyInfo>, NetError> {
    let header = v1::Header::try_from(bytes).map_err(malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(a) => Some(info(
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        v1::Addresses::Tcp6(a) => Some(info(
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
    })
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyInfo>, NetError> {
    let header = v2::Header::try_from(bytes).map_err(malformed)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    if header.protocol == v2::Protocol::Datagram {
        return Err(malformed("it says UDP"));
    }
    Ok(match header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(a) => Some(info(
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        v2::Addresses::IPv6(a) => Some(info(
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
    })
}

#[cfg(test)]
mod tests;
