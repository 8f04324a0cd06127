//! SOCKS 5, the client's side (RFC 1928), with user name and password (RFC 1929).

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::SocksLogin;
use crate::NetError;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Asks the proxy at the other end for a connection to `target`. What comes after it is the target's own.
pub(super) async fn ask<S>(
    proxy: &mut S,
    target: SocketAddr,
    login: Option<&SocksLogin>,
) -> Result<(), NetError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |e: io::Error| NetError::network("the SOCKS proxy broke the connection", e);
    // Offered is only what we would do: a proxy must not choose to know the password or not.
    let method = if login.is_some() { PASSWORD } else { NO_LOGIN };
    proxy.write_all(&[VERSION, 1, method]).await.map_err(lost)?;
    let mut chosen = [0; 2];
    proxy.read_exact(&mut chosen).await.map_err(lost)?;
    if chosen[0] != VERSION {
        return Err(peer("what answers at the proxy's address does not speak SOCKS 5"));
    }
    match (chosen[1], login) {
        (NO_LOGIN, None) => {}
        (PASSWORD, Some(login)) => log_in(proxy, login).await?,
        (_, None) => return Err(peer("the SOCKS proxy wants a user name and password")),
        (_, Some(_)) => return Err(peer("the SOCKS proxy does not take a user name and password")),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match target.ip() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
    }
    request.extend_from_slice(&target.port().to_be_bytes());
    proxy.write_all(&request).await.map_err(lost)?;
    let mut head = [0; 4];
    proxy.read_exact(&mut head).await.map_err(lost)?;
    if head[0] != VERSION || head[1] != 0 {
        return Err(peer(format!("the SOCKS proxy cannot connect to {target}: {}", refusal(head[1]))));
    }
    let bound = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(proxy.read_u8().await.map_err(lost)?),
        _ => return Err(peer("the SOCKS proxy answers with a kind of address that does not exist")),
    };
    let mut address_and_port = [0; 255 + 2];
    proxy.read_exact(&mut address_and_port[..bound + 2]).await.map_err(lost)?;
    Ok(())
}

async fn log_in<S>(proxy: &mut S, login: &SocksLogin) -> Result<(), NetError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |e: io::Error| NetError::network("the SOCKS proxy broke the connection", e);
    let mut request = vec![1];
    for part in [login.username(), login.password()] {
        let length = u8::try_from(part.len())
            .map_err(|_| NetError::Bug("a SOCKS login longer than 255 octets".into()))?;
        request.push(length);
        request.extend_from_slice(part.as_bytes());
    }
    proxy.write_all(&request).await.map_err(lost)?;
    let mut answer = [0; 2];
    proxy.read_exact(&mut answer).await.map_err(lost)?;
    if answer[1] == 0 {
        return Ok(());
    }
    Err(peer(format!("the SOCKS proxy does not take the password of {}", login.username())))
}

fn peer(why: impl Into<String>) -> NetError {
    NetError::Peer(why.into())
}

/// RFC 1928 section 6.
fn refusal(code: u8) -> String {
    match code {
        1 => "general failure".into(),
        2 => "its rules do not allow it".into(),
        3 => "network unreachable".into(),
        4 => "host unreachable".into(),
        5 => "connection refused".into(),
        6 => "it took too long (TTL expired)".into(),
        7 => "it does not know CONNECT".into(),
        8 => "it does not know this kind of address".into(),
        other => format!("error {other}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What the client says is compared with `said`, piece by piece, and answered.
    async fn talk(
        target: &str,
        login: Option<SocksLogin>,
        dialogue: &[(&[u8], &[u8])],
    ) -> Result<(), NetError> {
        let (mut ours, mut proxy) = duplex(1024);
        let client = async {
            let result = ask(&mut ours, target.parse().unwrap(), login.as_ref()).await;
            drop(ours);
            result
        };
        let server = async {
            for (wanted, answer) in dialogue {
                let mut said = vec![0; wanted.len()];
                proxy.read_exact(&mut said).await.unwrap();
                assert_eq!(said, *wanted);
                proxy.write_all(answer).await.unwrap();
            }
            let mut rest = Vec::new();
            // After a refusal the client says nothing more.
            proxy.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"");
        };
        tokio::join!(client, server).0
    }

    #[tokio::test]
    async fn a_target_is_asked_for_by_address() {
        let done: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 4, 0];
        talk("192.0.2.1:25", None, &[(&[5, 1, 0], &[5, 0]), (&[5, 1, 0, 1, 192, 0, 2, 1, 0, 25], done)])
            .await
            .unwrap();
        let mut six = vec![5, 1, 0, 4, 0x20, 1, 0xd, 0xb8];
        six.extend([0; 11]);
        six.extend([1, 0, 25]);
        // The answer may name a host.
        let named: &[u8] = &[5, 0, 0, 3, 1, b'x', 0, 0];
        talk("[2001:db8::1]:25", None, &[(&[5, 1, 0], &[5, 0]), (&six, named)]).await.unwrap();
    }

    #[tokio::test]
    async fn logins_and_refusals() {
        let login = SocksLogin::new("me", "pw").unwrap();
        let connect: &[u8] = &[5, 1, 0, 1, 192, 0, 2, 1, 0, 25];
        let hello: (&[u8], &[u8]) = (&[5, 1, 2], &[5, 2]);
        let password: &[u8] = b"\x01\x02me\x02pw";
        let at = "192.0.2.1:25";
        let done: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        talk(at, Some(login.clone()), &[hello, (password, &[1, 0]), (connect, done)]).await.unwrap();
        let wrong = talk(at, Some(login.clone()), &[hello, (password, &[1, 1])]).await.unwrap_err();
        assert!(wrong.to_string().contains("does not take the password of me"), "{wrong}");
        // A proxy that wants no password does not get one.
        let none = talk(at, Some(login), &[(&[5, 1, 2], &[5, 0xff])]).await.unwrap_err();
        assert!(matches!(none, NetError::Peer(_)), "{none}");
        let wants = talk(at, None, &[(&[5, 1, 0], &[5, 0xff])]).await.unwrap_err();
        assert!(wants.to_string().contains("wants a user name"), "{wants}");
        let refused = talk(at, None, &[(&[5, 1, 0], &[5, 0]), (connect, &[5, 5, 0, 1])]).await.unwrap_err();
        assert!(refused.to_string().contains("connection refused"), "{refused}");
        let http = talk(at, None, &[(&[5, 1, 0], b"HT")]).await.unwrap_err();
        assert!(http.to_string().contains("does not speak SOCKS"), "{http}");
    }
}
