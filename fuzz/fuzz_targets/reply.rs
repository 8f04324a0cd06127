//! Replies of a server, as the client reads them: wherever they are cut, the same comes out, and memory is bounded.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use smtp::client::ReplyParser;

fn replies(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut parser, mut input, mut found) = (ReplyParser::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input) {
                Ok(Some(reply)) => {
                    assert!(!reply.text.contains(['\r', '\0']));
                    found.push(reply.to_string());
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(|input: (&[u8], u16)| {
    let (octets, cut) = input;
    let (first, second) = octets.split_at(usize::from(cut) % (octets.len() + 1));
    assert_eq!(replies(&[first, second]), replies(&[octets]));
});
