//! How connections to a domain would have to be protected now, for `explain`: by the function that deliveries ask.

use std::sync::Arc;

use mail::Security;
use net::MxAnswer;

use super::{Asked, Flags, requirement};
use crate::engine::Engine;

impl Engine {
    /// How a connection to the first of a domain's mail exchangers would have to be protected, and why; for a message that
    /// asks for nothing itself. Asks the DNS and, for MTA-STS, a web server, as a delivery does. None where there is no
    /// exchanger.
    pub async fn protection(&self, domain: &str, mx: &MxAnswer) -> Option<(Arc<str>, Security)> {
        let settings = self.settings();
        let host = mx.hosts.first()?;
        let asked = Asked { domain, mx, host, port: settings.mx_port, flags: Flags::default() };
        let found = requirement(&asked, &settings.resolver, &settings.tls_rules).await;
        Some((Arc::clone(&host.name), found.why))
    }
}
