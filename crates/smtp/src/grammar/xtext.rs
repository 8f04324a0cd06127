//! xtext (RFC 3461 section 4): printable ASCII, everything else as `+` and two hexadecimal digits.

/// What `text` stands for; none when it is not valid xtext.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'+' => {
                let [high, low, after @ ..] = tail else { return None };
                octets.push(hex(*high)? << 4 | hex(*low)?);
                after
            }
            b'=' => return None,
            33..=126 => {
                octets.push(*first);
                tail
            }
            _ => return None,
        };
    }
    Some(octets)
}

/// `octets` as xtext.
pub fn encode(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for &octet in octets {
        if (33..=126).contains(&octet) && octet != b'+' && octet != b'=' {
            text.push(char::from(octet));
        } else {
            text.push_str(&format!("+{octet:02X}"));
        }
    }
    text
}

/// Capital letters only, says the RFC.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_xtext_decodes() {
        assert_eq!(decode("a+2Bb+3D").as_deref(), Some(b"a+b=".as_slice()));
        for bad in ["+", "+2", "+2b", "a=b", "a b", "é", "+GG"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&octets)), Some(octets));
        }
    }
}
