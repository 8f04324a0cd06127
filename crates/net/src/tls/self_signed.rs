//! The certificate that we make ourselves, so that TLS works from the first start. It encrypts; it proves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mail::{Clock, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use tracing::{info, warn};

use super::{Pair, write_private};
use crate::NetError;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where it is kept: chain and key in one file, so that they cannot come apart.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("tls").join("self-signed.pem")
}

/// The self-signed certificate for `hostname`: the one made earlier while it is valid and for this name, else a new
/// one, valid for ten years.
pub(super) fn load_or_make(data_dir: &Path, hostname: &str, clock: &Clock) -> Result<Pair, NetError> {
    let path = path(data_dir);
    match fs::read(&path) {
        Ok(pem) => match Pair::from_pem(&pem, &pem, &path.display().to_string()) {
            Ok(pair) if pair.facts.covers(hostname) && pair.facts.is_valid_at(clock.now()) => {
                return Ok(pair);
            }
            Ok(_) => {
                info!(path = %path.display(), hostname, "the self-signed certificate is for another name or expired")
            }
            Err(error) => warn!(path = %path.display(), %error, "the self-signed certificate is damaged"),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(NetError::disk(&path, e)),
    }
    let pem = make(hostname, clock.now())?;
    write_private(&path, pem.as_bytes())?;
    info!(path = %path.display(), hostname, "made a self-signed certificate; clients will not trust it by themselves");
    Pair::from_pem(pem.as_bytes(), pem.as_bytes(), &path.display().to_string())
}

fn make(hostname: &str, now: Timestamp) -> Result<String, NetError> {
    let failed = |e: rcgen::Error| {
        NetError::Configuration(format!("cannot make a certificate for hostname {hostname:?}: {e}"))
    };
    let mut parameters = CertificateParams::new(vec![hostname.to_owned()]).map_err(failed)?;
    let mut name = DistinguishedName::new();
    // An RFC 5280 common name ends at 64 characters; the full name is in the alternative names.
    name.push(DnType::CommonName, hostname.chars().take(64).collect::<String>());
    parameters.distinguished_name = name;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // From yesterday, for clients whose clocks are behind.
    let (year, month, date) = day(now.millis() - 24 * 3_600_000)?;
    parameters.not_before = rcgen::date_time_ymd(year, month, date);
    let (year, month, date) = day(now.plus(10 * YEAR).millis())?;
    parameters.not_after = rcgen::date_time_ymd(year, month, date);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

/// Year, month and day of `millis`, as rcgen takes them.
fn day(millis: i64) -> Result<(i32, u8, u8), NetError> {
    let wrong = || NetError::Configuration("the machine's clock is far off; set it".into());
    let instant = jiff::Timestamp::from_millisecond(millis).map_err(|_| wrong())?;
    let date = jiff::tz::Offset::UTC.to_datetime(instant).date();
    let part = |n: i8| u8::try_from(n).map_err(|_| wrong());
    Ok((i32::from(date.year()), part(date.month())?, part(date.day())?))
}
