//! Postfix's smtp-sink, counting; and a server of ours where TLS is needed, which smtp-sink does not speak.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthouse_tests::neighbours::program;
use posthouse_tests::sink;
use posthouse_tests::tls::Certificate;
use posthouse_tests::wait::{eventually, free_port, loopback, until_listening};

/// A running sink that throws away what it is given and counts it.
pub(crate) enum Sink {
    Postfix { addr: SocketAddr, child: Child, messages: Arc<AtomicU64> },
    Ours(sink::Sink),
}

impl Sink {
    pub(crate) fn start() -> Self {
        Self::on(loopback(free_port()))
    }

    /// An smtp-sink at a given address.
    pub(crate) fn on(addr: SocketAddr) -> Self {
        let mut command = Command::new(program("smtp-sink").unwrap());
        // Its own bound of 256 connections at a time would hold up whoever keeps more of them.
        command.args(["-c", "-m", "10000", "-u", "postfix", &addr.to_string(), "1024"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let messages = Arc::new(AtomicU64::new(0));
        let mut out = child.stdout.take().unwrap();
        let count = Arc::clone(&messages);
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            let mut text = String::new();
            while let Ok(n) = out.read(&mut buffer) {
                if n == 0 {
                    return;
                }
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                if let Some(n) = last_count(&text) {
                    count.store(n, Ordering::Relaxed);
                }
                text = text.rsplit('\r').next().unwrap_or_default().to_owned();
            }
        });
        until_listening("smtp-sink", addr);
        Self::Postfix { addr, child, messages }
    }

    /// A server of ours that offers STARTTLS.
    pub(crate) fn ours(certificate: Certificate) -> Self {
        let options =
            sink::Options { certificate: Some(certificate), keep_content: false, ..sink::Options::default() };
        Self::Ours(sink::Sink::with(options))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Postfix { addr, .. } => *addr,
            Self::Ours(sink) => sink.addr(),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Postfix { messages, .. } => messages.load(Ordering::Relaxed),
            Self::Ours(sink) => sink.count() as u64,
        }
    }

    /// Waits until the count has reached `n`.
    pub(crate) fn wait(&self, n: u64, within: Duration) {
        eventually(&format!("{n} messages at the sink"), within, || (self.count() >= n).then_some(()));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::Postfix { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The message count of the last whole line: `sess=20 quit=3 mesg=17 max=20`, each ended by a carriage return.
fn last_count(text: &str) -> Option<u64> {
    let whole = &text[..text.rfind('\r')?];
    let line = whole.rsplit('\r').next()?;
    line.split_whitespace().find_map(|w| w.strip_prefix("mesg="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::last_count;

    #[test]
    fn the_last_whole_line_counts() {
        assert_eq!(
            last_count("sess=1 quit=0 mesg=1 max=1\rsess=2 quit=1 mesg=17 max=1\rsess=3 quit=1 mesg=2"),
            Some(17)
        );
        assert_eq!(last_count("sess=1 quit=0 mesg=1"), None);
    }
}
