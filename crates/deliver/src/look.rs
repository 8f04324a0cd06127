//! A look at addresses that failed some time ago, beside the deliveries and not in their way.

use std::net::SocketAddr;
use std::sync::Arc;

use mail::HostPort;
use net::DialOptions;
use smtp::client::{OpenStep, Opening, OpeningConfig, TlsPolicy, Transcript};

use crate::engine::Engine;
use crate::settings::Settings;
use crate::source::SourceAddress;
use crate::wire::{Patience, Wire};

/// Where to look, from where.
pub(crate) struct Look {
    pub(crate) engine: Arc<Engine>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) source: Arc<SourceAddress>,
    pub(crate) due: Vec<(HostPort, SocketAddr)>,
}

impl Look {
    /// Sees in the background whether these addresses are back: connect, greeting, EHLO, QUIT. What is found stands in the
    /// engine's memory of hosts.
    pub(crate) fn begin(self) {
        metrics::counter!("posthouse_delivery_probes_total").increment(self.due.len() as u64);
        tokio::spawn(async move {
            for (host, address) in &self.due {
                let address = *address;
                let works = self.at(address).await;
                let (hosts, now) = (self.engine.hosts(), self.engine.clock().mono());
                if works {
                    tracing::info!(host = %host.host, %address, "the host works again");
                    hosts.worked(&self.source.name, address);
                } else {
                    hosts.failed(&self.source.name, address, now, self.settings.probe_interval);
                }
            }
        });
    }

    async fn at(&self, address: SocketAddr) -> bool {
        let options: DialOptions = self.source.dialing(&self.settings, false);
        let Ok(stream) = net::dial(address, &options).await else { return false };
        let mut wire = Wire::new(stream);
        let config = OpeningConfig {
            hostname: self.source.hello(&self.settings),
            lmtp: false,
            tls: TlsPolicy::Never,
            tls_active: false,
            binding: None,
            login: None,
        };
        let mut opening = Opening::new(config, Transcript::new(0));
        let mut patience = Patience::new(self.engine.clock(), &self.settings.timeouts);
        loop {
            match opening.input(&mut wire.input) {
                Ok(OpenStep::Ready) => break,
                Ok(OpenStep::Read(wait)) => {
                    let Ok(limit) = patience.left(wait, opening.replies()) else { return false };
                    if wire.exchange(opening.output(), limit).await.is_err() {
                        return false;
                    }
                }
                Ok(OpenStep::StartTls) | Err(_) => return false,
            }
        }
        let said = wire.write(b"QUIT\r\n", self.settings.timeouts.quit).await;
        tracing::trace!(?said, "QUIT");
        wire.shut(self.settings.timeouts.quit).await;
        true
    }
}
