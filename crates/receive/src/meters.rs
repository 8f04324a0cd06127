//! What is counted, for `/metrics`.

use metrics::{Counter, Gauge, counter, gauge};

/// The meters of a listener. The handles are looked up once.
#[derive(Clone)]
pub(crate) struct Meters {
    /// Sessions that are open.
    pub(crate) open: Gauge,
    /// Connections accepted.
    pub(crate) connections: Counter,
    /// Connections turned away because there are too many.
    pub(crate) turned_away: Counter,
    /// Messages taken over.
    pub(crate) messages: Counter,
    /// Octets of those.
    pub(crate) octets: Counter,
    /// Messages refused at their end or in the middle.
    pub(crate) messages_refused: Counter,
    /// Recipients refused.
    pub(crate) recipients_refused: Counter,
    /// Logins that succeeded.
    pub(crate) logins: Counter,
    /// Logins that failed.
    pub(crate) logins_failed: Counter,
    /// TLS handshakes that failed.
    pub(crate) tls_failed: Counter,
}

impl Meters {
    pub(crate) fn new(listener: &str) -> Self {
        let name = listener.to_owned();
        let of = |what: &'static str| counter!(what, "listener" => name.clone());
        Self {
            open: gauge!("posthouse_smtp_connections", "listener" => name.clone()),
            connections: of("posthouse_smtp_connections_total"),
            turned_away: of("posthouse_smtp_connections_turned_away_total"),
            messages: of("posthouse_smtp_messages_received_total"),
            octets: of("posthouse_smtp_received_bytes_total"),
            messages_refused: of("posthouse_smtp_messages_refused_total"),
            recipients_refused: of("posthouse_smtp_recipients_refused_total"),
            logins: of("posthouse_smtp_logins_total"),
            logins_failed: of("posthouse_smtp_logins_failed_total"),
            tls_failed: of("posthouse_smtp_tls_failed_total"),
        }
    }
}
