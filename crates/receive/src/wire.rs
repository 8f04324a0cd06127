//! Writing without waiting.

use std::os::fd::AsRawFd;

use net::Stream;
use nix::libc::MSG_MORE;
use nix::sys::socket::{MsgFlags, send};

/// Gives the socket what it takes at once and tells how much that was. Zero under TLS, and where anything is in the
/// way: the usual write then waits, or meets the error.
///
/// A new connection's first write would else wait for the reactor to say that it may be written to, which it always may.
/// With `last`, the octets wait for the end of the connection, which is to follow at once, and travel with it in one
/// packet.
pub(crate) fn send_now(stream: &Stream, octets: &[u8], last: bool) -> usize {
    let Stream::Tcp(tcp) = stream else { return 0 };
    if octets.is_empty() {
        return 0;
    }
    let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    if last {
        flags |= MsgFlags::from_bits_retain(MSG_MORE);
    }
    send(tcp.as_raw_fd(), octets, flags).unwrap_or(0)
}
