//! The ports of a relay.

use std::sync::Arc;

use api::types::ListenerStatus;
use net::{Activation, Listener};
use receive::ListenerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Relay, RelayControl, ServeError, convert};
use crate::config::Config;
use crate::pipeline::Pipeline;

/// Every port we listen on, bound before privileges are dropped.
pub(super) struct Doors {
    smtp: Vec<(Arc<Listener>, ListenerConfig)>,
    http: Vec<std::net::TcpListener>,
    acme: Option<Arc<net::acme::Acme>>,
}

impl Doors {
    /// Binds them.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let mut activation = Activation::from_env()?;
        let mut smtp = Vec::new();
        for wanted in &config.listener {
            let given = activation.take(&wanted.name);
            let listener = if given.is_empty() {
                Listener::bind(&wanted.address)?
            } else {
                Listener::from_sockets(given)?
            };
            for address in listener.addresses() {
                tracing::info!(name = %wanted.name, mode = wanted.mode.as_str(), %address, "listening");
            }
            smtp.push((Arc::new(listener), convert::listener(wanted)));
        }
        for name in activation.left() {
            tracing::warn!(name, "a socket was handed over for which there is no listener of this name");
        }
        let bind = |address: &std::net::SocketAddr| -> Result<_, ServeError> {
            let listener = std::net::TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|source| ServeError::Http { address: *address, source })?;
            let address = listener.local_addr().unwrap_or(*address);
            tracing::info!(name = "api", mode = "http", %address, "listening");
            Ok(listener)
        };
        let http = config.api.listen.iter().map(bind).collect::<Result<_, _>>()?;
        let acme = convert::acme(config).map(net::acme::Acme::bind).transpose()?.map(Arc::new);
        Ok(Self { smtp, http, acme })
    }

    /// Where they really are.
    pub(super) fn status(&self) -> Vec<ListenerStatus> {
        let of = |(listener, config): &(Arc<Listener>, ListenerConfig)| ListenerStatus {
            name: config.name.to_string(),
            mode: match config.mode {
                receive::Mode::Smtp => "smtp",
                receive::Mode::Submission => "submission",
                receive::Mode::Submissions => "submissions",
            }
            .into(),
            addresses: listener.addresses().map(|address| address.to_string()).collect(),
        };
        self.smtp.iter().map(of).collect()
    }

    /// Lets clients in until `stop`. The ports stay bound, for another time.
    pub(super) fn serve(
        &self,
        relay: &Arc<Relay>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), ServeError> {
        for (listener, config) in &self.smtp {
            let (listener, pipeline) = (Arc::clone(listener), Pipeline(Arc::clone(relay)));
            tasks.spawn(receive::serve(listener, config.clone(), pipeline, stop.clone()));
        }
        let control = RelayControl(Arc::clone(relay));
        let socket = api::bind_socket(&relay.config.load().socket())?;
        tasks.spawn(api::serve_socket(socket, api::router(control.clone()), stop.clone().cancelled_owned()));
        for listener in &self.http {
            let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
            let listener = listener
                .try_clone()
                .and_then(tokio::net::TcpListener::from_std)
                .map_err(|source| ServeError::Http { address, source })?;
            tasks.spawn(api::serve_tcp(
                listener,
                api::public(control.clone()),
                stop.clone().cancelled_owned(),
            ));
        }
        if let Some(acme) = self.acme.clone() {
            let (client, stop) = (relay.acme_client()?, stop.clone());
            let (tls, clock) = (relay.tls.clone(), relay.clock.clone());
            tasks.spawn(async move { acme.run(tls, client, clock, stop).await });
        }
        Ok(())
    }
}
