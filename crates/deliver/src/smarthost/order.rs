//! Which host comes first: in the order written, by weight, or by sender.

use mail::Address;

use super::WeightedHost;

/// Smooth weighted round robin: over any run of choices each host gets its share, and gets it evenly spread. `credit`
/// is what each host is owed; it belongs to the same hosts from call to call. Only hosts at `places` take part.
pub(super) fn by_weight(hosts: &[WeightedHost], credit: &mut [i64], places: &mut [usize]) {
    let weight = |place: usize| i64::from(hosts[place].weight.max(1));
    let total: i64 = places.iter().map(|&place| weight(place)).sum();
    for &place in &*places {
        credit[place] += weight(place);
    }
    // The one that is owed most goes first; of two that are owed as much, the one written first.
    places.sort_by_key(|&place| std::cmp::Reverse(credit[place]));
    if let Some(&first) = places.first() {
        credit[first] -= total;
    }
}

/// Weighted rendezvous hashing: each host draws a lot for the sender, and the best lot wins. A host that is added can
/// only win senders, one that goes can only lose its own.
pub(super) fn by_sender(hosts: &[WeightedHost], sender: Option<&Address>, places: &mut [usize]) {
    let key = sender.map(|s| s.as_str().to_lowercase()).unwrap_or_default();
    let mut lots: Vec<(f64, usize)> = places.iter().map(|&place| (lot(&key, &hosts[place]), place)).collect();
    lots.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (place, (_, won)) in places.iter_mut().zip(lots) {
        *place = won;
    }
}

/// The lot of one host: `-weight / ln(h)` for a hash `h` between 0 and 1 wins as often as the weight says.
#[allow(clippy::cast_precision_loss, reason = "the upper 52 bits of a hash are as good as all 64")]
fn lot(key: &str, host: &WeightedHost) -> f64 {
    let hash = hash(&[key, "\0", &host.at.to_string()]);
    let between = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -f64::from(host.weight.max(1)) / between.ln()
}

/// FNV-1a with the finaliser of SplitMix64: the same on every machine and in every version, so that a restart or an
/// upgrade moves no sender.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
