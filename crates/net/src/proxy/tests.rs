//! Headers as balancers send them, and as attackers would.

use ppp::v2::{Builder, Command, Protocol, Version};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// A client that has sent `parts`, each in a packet of its own, and the server's end.
async fn connected(parts: &'static [&'static [u8]]) -> (tokio::task::JoinHandle<TcpStream>, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        let mut client = TcpStream::connect(at).await.unwrap();
        client.set_nodelay(true).unwrap();
        for part in parts {
            client.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client
    });
    let (server, _) = listener.accept().await.unwrap();
    (client, Stream::Tcp(server))
}

async fn header_of(parts: &'static [&'static [u8]]) -> Result<Option<ProxyInfo>, NetError> {
    let (client, mut server) = connected(parts).await;
    let info = read_header(&mut server, LIMIT).await?;
    client.await.unwrap();
    let mut rest = [0; 4];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"EHLO", "more or less than the header was taken");
    Ok(info)
}

fn clients(source: &str, destination: &str) -> Option<ProxyInfo> {
    Some(ProxyInfo { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

#[tokio::test]
async fn version_1() {
    let four = clients("203.0.113.7:40000", "192.0.2.1:25");
    assert_eq!(header_of(&[b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 25\r\nEHLO"]).await.unwrap(), four);
    // In pieces, the last of them with the first bytes of the session.
    assert_eq!(
        header_of(&[b"PRO", b"XY TCP4 203.0.113.7 192", b".0.2.1 40000 25\r", b"\nEHLO"]).await.unwrap(),
        four
    );
    assert_eq!(
        header_of(&[b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\nEHLO"]).await.unwrap(),
        clients("[2001:db8::7]:40000", "[2001:db8::1]:25")
    );
    assert_eq!(
        header_of(&[b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 40000 25\r\nEHLO"]).await.unwrap(),
        four
    );
    assert_eq!(header_of(&[b"PROXY UNKNOWN\r\nEHLO"]).await.unwrap(), None);
}

#[tokio::test]
async fn version_2() {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const TCP4: &[u8] = b"\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x00\x19";
    let four = clients("203.0.113.7:40000", "192.0.2.1:25");
    assert_eq!(header_of(&[SIGNATURE, TCP4, b"EHLO"]).await.unwrap(), four);
    // With a TLV behind the addresses (PP2_TYPE_NOOP).
    const NOOP: &[u8] = b"\x21\x11\x00\x0f\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x00\x19\x04\x00\x00EHLO";
    assert_eq!(header_of(&[SIGNATURE, NOOP]).await.unwrap(), four);
    // LOCAL: a health check.
    assert_eq!(header_of(&[SIGNATURE, b"\x20\x00\x00\x00", b"EHLO"]).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_header_is_refused() {
    const BAD: &[&[&[u8]]] = &[
        &[b"EHLO client.example\r\n"],
        &[b"GET / HTTP/1.1\r\n\r\n"],
        &[b"PROXY TCP4 203.0.113.7 192.0.2.1 40000\r\nEHLO"],
        &[b"PROXY TCP4 203.0.113.300 192.0.2.1 40000 25\r\nEHLO"],
        &[b"PROXY TCP4 203.0.113.7 192.0.2.1 400000 25\r\nEHLO"],
        &[b"PROXY UDP4 203.0.113.7 192.0.2.1 40000 25\r\nEHLO"],
        // Longer than any header may be.
        &[b"PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567\
            890123456789\r\n"],
        // Version 2 that announces 64 KB, and one for UDP.
        &[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"],
        &[b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x00\x19"],
        // Too short for its addresses.
        &[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04\xcb\x00\x71\x07"],
    ];
    for bad in BAD {
        let (client, mut server) = connected(bad).await;
        let result = read_header(&mut server, LIMIT).await;
        assert!(matches!(result, Err(NetError::Peer(_))), "{bad:?} {result:?}");
        client.await.unwrap();
    }
}

#[tokio::test]
async fn silence_and_hanging_up_end_the_wait() {
    let (client, mut server) = connected(&[b"PROXY TCP4 203.0"]).await;
    let result = read_header(&mut server, Duration::from_millis(100)).await;
    assert!(matches!(result, Err(NetError::Timeout { .. })), "{result:?}");
    drop(client.await.unwrap());

    let (client, mut server) = connected(&[b"PROXY TCP4 203.0"]).await;
    drop(client.await.unwrap());
    let result = read_header(&mut server, LIMIT).await;
    assert!(matches!(result, Err(NetError::Network { .. })), "{result:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let mut signed = v2::PROTOCOL_PREFIX.to_vec();
        signed.extend(&bytes);
        let _ = parse(&signed);
        let mut line = b"PROXY TCP".to_vec();
        line.extend(&bytes);
        let _ = parse(&line);
    }

    #[test]
    fn what_is_written_is_read(source: [u8; 4], from: u16, destination: [u8; 4], to: u16) {
        let wanted = ProxyInfo { source: (source, from).into(), destination: (destination, to).into() };
        let line = format!("PROXY TCP4 {} {} {from} {to}\r\n", wanted.source.ip(), wanted.destination.ip());
        prop_assert_eq!(parse(line.as_bytes()).unwrap(), Some(wanted));
        let addresses = v2::IPv4::new(source, destination, from, to);
        let header = Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses);
        prop_assert_eq!(parse(&header.build().unwrap()).unwrap(), Some(wanted));
    }
}
