//! Connections out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::{NetError, Stream, is_public};

/// How to connect.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Time for one address to answer.
    pub timeout: Duration,
    /// The address to connect from; of each family the one given is used, none leaves it to the system.
    pub source_v4: Option<std::net::Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<std::net::Ipv6Addr>,
    /// Whether private, loopback and other special addresses may be reached: true for hosts that the operator
    /// named, `dns.allow_private_targets` for those that the DNS named.
    pub allow_private: bool,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), source_v4: None, source_v6: None, allow_private: false }
    }
}

/// Connects to one address. The check for private targets is made here, on the very address that is connected to,
/// so that no later DNS answer can get around it.
///
/// # Errors
/// [`NetError::PrivateTarget`], [`NetError::Timeout`] or [`NetError::Network`].
pub async fn dial(address: SocketAddr, options: &DialOptions) -> Result<Stream, NetError> {
    if !options.allow_private && !is_public(address.ip()) {
        return Err(NetError::PrivateTarget(address.ip()));
    }
    let failed = |source| NetError::network(format!("cannot connect to {address}"), source);
    let (socket, source) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4(), options.source_v4.map(IpAddr::from)),
        SocketAddr::V6(_) => (TcpSocket::new_v6(), options.source_v6.map(IpAddr::from)),
    };
    let socket = socket.map_err(failed)?;
    if let Some(source) = source {
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|e| NetError::network(format!("cannot use source address {source}"), e))?;
    }
    let stream = timeout(options.timeout, socket.connect(address))
        .await
        .map_err(|_| NetError::Timeout { what: "connecting", after: options.timeout })?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(Stream::Tcp(stream))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn near() -> DialOptions {
        DialOptions { allow_private: true, timeout: Duration::from_secs(5), ..Default::default() }
    }

    #[tokio::test]
    async fn private_targets_are_refused_even_when_someone_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert!(dial(at, &near()).await.is_ok());
        let strict = DialOptions::default();
        for ip in [at.ip(), "::ffff:127.0.0.1".parse().unwrap(), "::1".parse().unwrap()] {
            let refused = dial(SocketAddr::new(ip, at.port()), &strict).await;
            assert!(matches!(refused, Err(NetError::PrivateTarget(_))), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn refusal_and_silence_are_told_apart() {
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let failed = dial(closed, &near()).await;
        assert!(matches!(failed, Err(NetError::Network { .. })), "{failed:?}");

        // A full queue: the kernel drops what comes, as a firewall would.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let hasty = DialOptions { timeout: Duration::from_millis(300), ..near() };
        let mut waiting = Vec::new();
        let failed = loop {
            match dial(at, &hasty).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue is never full");
        };
        assert!(matches!(failed, NetError::Timeout { .. }), "{failed:?}");
    }

    #[tokio::test]
    async fn the_source_address_is_used() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = DialOptions { source_v4: Some("127.0.0.9".parse().unwrap()), ..near() };
        let _stream = dial(listener.local_addr().unwrap(), &options).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), "127.0.0.9".parse::<IpAddr>().unwrap());
    }
}
