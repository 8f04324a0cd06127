//! Content by DATA: wherever it is cut, the same comes out; nothing but whole line ends gets in; what was taken off
//! can be put on again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::stuffing::decode::{Decoder, Piece};
use smtp::stuffing::encode::DotEncoder;

/// The content, whether it is sound, and how much was used up to the end.
fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<u8>, bool, Option<usize>) {
    let (mut content, mut total) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, found) = decoder.decode(rest);
            (total, rest) = (total + used, &rest[used..]);
            match found {
                Piece::Content(octets) => content.extend_from_slice(octets),
                Piece::NewLine => content.extend_from_slice(b"\r\n"),
                Piece::End => return (content, decoder.fault().is_none(), Some(total)),
                Piece::More => break,
            }
        }
        assert!(rest.is_empty());
    }
    decoder.finish();
    (content, decoder.fault().is_none(), None)
}

fuzz_target!(|input: (&[u8], u16, bool, bool)| {
    let (octets, cut, normalise, dots) = input;
    let new = || if dots { Decoder::data(normalise) } else { Decoder::bdat(normalise) };
    let (first, second) = octets.split_at(usize::from(cut) % (octets.len() + 1));
    let whole = decode(new(), &[octets]);
    assert_eq!(decode(new(), &[first, second]), whole);
    let (content, sound, end) = whole;
    if sound && content.ends_with(b"\r\n") {
        let mut encoder = DotEncoder::default();
        let mut out = Vec::new();
        encoder.encode(&content, &mut out).expect("only whole line ends got in");
        encoder.finish(&mut out).expect("it ends with a line end");
        if end.is_some() {
            assert_eq!(decode(Decoder::data(false), &[&out]), (content, true, Some(out.len())));
        }
    }
});
