//! Reload: the configuration and the certificates are read again. What is wrong changes nothing; live sessions go on with
//! what they began with.

use std::sync::Arc;

use api::types::Reloaded;

use super::{Relay, convert, convert_forward};
use crate::config::Config;

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The relay was started without a file.
    #[error("there is no configuration file to read again; start with --config FILE")]
    NoFile,
    /// The file has errors.
    #[error("{0}")]
    Config(String),
}

impl Relay {
    /// Reads everything again and swaps it in, all or nothing.
    ///
    /// # Errors
    /// The old configuration stays in force.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.reloading.lock().await;
        let path = self.config_path.clone().ok_or(ReloadError::NoFile)?;
        let wrong = |error: &dyn std::fmt::Display| ReloadError::Config(error.to_string());
        let new = Config::load(&path).map_err(|e| wrong(&e))?;
        let old = self.config.load_full();
        let routes = convert::routes(&new).map_err(ReloadError::Config)?;
        // Everything that can fail comes before anything is changed.
        let snapshot = self.directory.snapshot();
        convert::delivering(&new, &snapshot, &self.clock).map_err(|e| wrong(&e))?;
        let forwarding =
            Arc::new(convert_forward::forwarding(&new, &snapshot, &self.keys).map_err(ReloadError::Config)?);
        convert::driving(&new, &snapshot, &forwarding, 0, self.clock.now()).map_err(ReloadError::Config)?;
        super::Gate::new(&new, self.clock.clone()).map_err(ReloadError::Config)?;
        self.tls.reconfigure(convert::server_tls(&new)).map_err(|e| wrong(&e))?;
        self.directory.set_config(routes, convert::config_smarthosts(&new)).await.map_err(|e| wrong(&e))?;
        self.directory.set_config_rules(new.rules()).await.map_err(|e| wrong(&e))?;
        let report = compare(&old, &new);
        self.config.store(Arc::new(new));
        self.derive().map_err(ReloadError::Config)?;
        Ok(report)
    }

    /// Makes anew what is derived from the configuration and the directory.
    ///
    /// # Errors
    /// In words; then what can be derived has been.
    pub(crate) fn derive(&self) -> Result<(), String> {
        let config = self.config.load_full();
        let snapshot = self.directory.snapshot();
        self.policy.store(Arc::new(convert::policy(&config, &self.tls, &snapshot)));
        self.gate.configure(&config)?;
        let forwarding = Arc::new(convert_forward::forwarding(&config, &snapshot, &self.keys)?);
        let driving = convert::driving(&config, &snapshot, &forwarding, self.seed(), self.clock.now())?;
        let mut delivering =
            convert::delivering(&config, &snapshot, &self.clock).map_err(|error| error.to_string())?;
        self.security.rule(&config, &mut delivering);
        self.forwarding.store(forwarding);
        self.engine.configure(delivering);
        self.driver.configure(driving);
        Ok(())
    }

    fn seed(&self) -> u64 {
        self.store.ids().next().0
    }
}

/// Which sections changed, and which of them only count after a restart.
fn compare(old: &Config, new: &Config) -> Reloaded {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Reloaded::default();
    };
    let changed: Vec<String> = new
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| old.get(key.as_str()) != Some(value))
        .map(|(key, _)| key.clone())
        .chain(old.as_object().into_iter().flatten().map(|(k, _)| k.clone()).filter(|k| new.get(k).is_none()))
        .collect();
    let fixed =
        ["data_dir", "user", "group", "listener", "api", "acme", "store", "cluster", "history", "log"];
    let needs_restart = changed.iter().filter(|key| fixed.contains(&key.as_str())).cloned().collect();
    Reloaded { changed, needs_restart }
}
