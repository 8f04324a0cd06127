//! The smuggling table, and the decoder against a plain reading of RFC 5321 at every cut.

use proptest::prelude::*;

use super::*;

/// Content, fault and what follows the end, when `input` comes in pieces cut at `cuts`.
fn run(mut decoder: Decoder, input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Fault>, Option<Vec<u8>>) {
    let mut content = Vec::new();
    let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
    bounds.push(input.len());
    bounds.sort_unstable();
    let mut used = 0;
    for bound in bounds {
        loop {
            let (n, piece) = decoder.decode(&input[used..bound]);
            used += n;
            match piece {
                Piece::Content(octets) => content.extend_from_slice(octets),
                Piece::NewLine => content.extend_from_slice(b"\r\n"),
                Piece::End => {
                    return (content, decoder.fault().map(|f| f.0), Some(input[used..].to_vec()));
                }
                Piece::More => break,
            }
        }
        assert_eq!(used, bound, "everything given is used");
    }
    decoder.finish();
    (content, decoder.fault().map(|f| f.0), None)
}

#[test]
fn dots_come_off() {
    let input = b"one\r\n..two\r\n...\r\n.x\r\n\r\n.\r\nQUIT\r\n";
    for cut in 0..=input.len() {
        let (content, fault, rest) = run(Decoder::data(false), input, &[cut]);
        assert_eq!(content, b"one\r\n.two\r\n..\r\nx\r\n\r\n");
        assert_eq!((fault, rest), (None, Some(b"QUIT\r\n".to_vec())));
    }
    assert_eq!(run(Decoder::data(false), b".\r\n", &[]), (vec![], None, Some(vec![])));
}

#[test]
fn a_message_without_dots_is_one_slice() {
    let input = b"Subject: a\r\n\r\nline\r\nline\r\n";
    let (used, piece) = Decoder::data(false).decode(input);
    assert_eq!((used, piece), (input.len(), Piece::Content(input)));
}

/// Every false end of the conformance table is content with a fault, and never an end.
#[test]
fn false_ends_are_faults() {
    let table: [&[u8]; 12] = [
        b"\n.\n",
        b"\n.\r",
        b"\r.\n",
        b"\r.\r",
        b"\n.\r\n",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n.\r\r\n",
    ];
    for false_end in table {
        let input =
            [b"body".as_slice(), false_end, b"MAIL FROM:<a@b.example>\r\n", b"more\r\n.\r\nNOOP"].concat();
        for cut in 0..=input.len() {
            let (_, fault, rest) = run(Decoder::data(false), &input, &[cut]);
            assert!(fault.is_some(), "{false_end:?} cut at {cut}");
            assert_eq!(rest.as_deref(), Some(b"NOOP".as_slice()), "{false_end:?} cut at {cut}");
        }
    }
}

#[test]
fn faults_are_told_with_their_line() {
    let mut decoder = Decoder::data(false);
    decoder.decode(b"one\r\ntwo\nthree\0\r\n");
    assert_eq!(decoder.fault(), Some((Fault::BareLf, 2)));
}

#[test]
fn normalising_reads_a_line_feed_as_a_line_end() {
    let input = b"one\n..two\r\nthree\n.\nNOOP";
    for cut in 0..=input.len() {
        let (content, fault, rest) = run(Decoder::data(true), input, &[cut]);
        assert_eq!(content, b"one\r\n.two\r\nthree\r\n", "cut at {cut}");
        assert_eq!((fault, rest), (None, Some(b"NOOP".to_vec())));
    }
    assert_eq!(run(Decoder::data(true), b"a\rb\n.\n", &[]).1, Some(Fault::BareCr));
    assert_eq!(run(Decoder::bdat(true), b".\n.\n", &[2]).0, b".\r\n.\r\n");
}

#[test]
fn bdat_knows_no_dots_and_no_open_cr() {
    assert_eq!(run(Decoder::bdat(false), b".\r\n..\r\n", &[]), (b".\r\n..\r\n".to_vec(), None, None));
    assert_eq!(run(Decoder::bdat(false), b"a\r", &[]).1, Some(Fault::BareCr));
}

/// RFC 5321 section 4.5.2 read the plain way: the content, whether it is sound, and what follows.
fn reference(input: &[u8]) -> Option<(Vec<u8>, bool, Vec<u8>)> {
    let text = [b"\r\n", input].concat();
    let end = text.windows(5).position(|w| w == b"\r\n.\r\n")?;
    let stuffed = &text[..end + 2];
    let mut content = Vec::new();
    let mut sound = true;
    for (i, &octet) in stuffed.iter().enumerate() {
        let before = |n: usize| i.checked_sub(n).map(|j| stuffed[j]);
        match octet {
            b'.' if before(1) == Some(b'\n') && before(2) == Some(b'\r') => continue,
            0 => sound = false,
            b'\n' if before(1) != Some(b'\r') => sound = false,
            b'\r' if stuffed.get(i + 1) != Some(&b'\n') => sound = false,
            _ => {}
        }
        content.push(octet);
    }
    Some((content[2..].to_vec(), sound, text[end + 5..].to_vec()))
}

proptest! {
    #[test]
    fn agrees_with_the_reference(
        octets in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(0), Just(b'x')], 0..40),
        cuts in proptest::collection::vec(0usize..50, 0..6),
    ) {
        let mut input = octets;
        input.extend_from_slice(b"\r\n.\r\n");
        let (content, fault, rest) = run(Decoder::data(false), &input, &cuts);
        let (expected, sound, after) = reference(&input).unwrap();
        prop_assert_eq!(fault.is_none(), sound);
        prop_assert_eq!(rest, Some(after));
        if sound {
            prop_assert_eq!(content, expected);
        }
    }

    #[test]
    fn cuts_do_not_matter(
        octets in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x')], 0..40),
        cuts in proptest::collection::vec(0usize..50, 0..6),
        normalise: bool,
        dots: bool,
    ) {
        let decoder = || if dots { Decoder::data(normalise) } else { Decoder::bdat(normalise) };
        prop_assert_eq!(run(decoder(), &octets, &cuts), run(decoder(), &octets, &[]));
    }
}
