//! Frames however they are cut, and frames that are none.

use proptest::prelude::*;

use super::*;

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(MASKED | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What comes out when `bytes` come in pieces of these sizes, over and over.
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), Violation> {
    let (mut decoder, mut rest, mut sizes) = (Decoder::default(), bytes, pieces.iter().cycle());
    let (mut payload, mut answers) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().unwrap().clamp(&1, &rest.len()).to_owned());
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece, &mut answers)?;
        payload.extend_from_slice(&piece[..decoded.payload]);
        if decoded.closed {
            return Ok((payload, answers, true));
        }
        rest = behind;
    }
    Ok((payload, answers, false))
}

fn data(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload, [1, 2, 3, 4])
}

#[test]
fn packets_may_span_frames_and_frames_may_hold_several() {
    let frames = [data(b"one two th"), data(b"ree"), data(b""), data(&[7; 300])].concat();
    let (payload, answers, closed) = decode(&frames, &[usize::MAX]).unwrap();
    assert_eq!((payload, answers.len(), closed), ([&b"one two three"[..], &[7; 300]].concat(), 0, false));
}

#[test]
fn fragments_are_one_stream_and_pings_between_them_are_answered() {
    let frames = [
        frame(BINARY, b"a", [9; 4]),
        frame(FIN | PING, b"there?", [8; 4]),
        frame(CONTINUATION, b"b", [7; 4]),
        frame(FIN | PONG, b"never asked", [7; 4]),
        frame(FIN | CONTINUATION, b"c", [6; 4]),
        data(b"d"),
    ];
    let (payload, answers, closed) = decode(&frames.concat(), &[usize::MAX]).unwrap();
    assert_eq!((&payload[..], &answers[..], closed), (&b"abcd"[..], &b"\x8a\x06there?"[..], false));
}

#[test]
fn the_end_is_the_end() {
    let frames = [data(b"a"), frame(FIN | CLOSE, b"\x03\xe8bye", [5; 4]), data(b"b"), vec![0xFF; 9]].concat();
    assert_eq!(decode(&frames, &[usize::MAX]).unwrap(), (b"a".to_vec(), vec![], true));
    assert!(decode(&frame(FIN | CLOSE, b"", [5; 4]), &[1]).unwrap().2);
}

#[test]
fn what_is_against_the_rules_is_refused_with_its_code() {
    let unmasked = b"\x82\x01a".to_vec();
    let huge = [&[FIN | BINARY, MASKED | 127][..], &(FRAME_IN_MAX_BYTES + 1).to_be_bytes(), &[0; 4]].concat();
    let endless = [&[FIN | BINARY, MASKED | 127][..], &[0xFF; 8], &[0; 4]].concat();
    for (bytes, code) in [
        (frame(FIN | TEXT, b"hello", [1; 4]), 1003),
        (huge, 1009),
        (endless, 1009),
        (unmasked, 1002),
        (frame(FIN | 0x40 | BINARY, b"compressed", [1; 4]), 1002),
        (frame(FIN | CONTINUATION, b"of nothing", [1; 4]), 1002),
        ([frame(BINARY, b"a", [1; 4]), data(b"b")].concat(), 1002),
        (frame(PING, b"in pieces", [1; 4]), 1002),
        (frame(FIN | PING, &[0; 126], [1; 4]), 1002),
        (frame(FIN | 3, b"", [1; 4]), 1002),
        (frame(FIN | 11, b"", [1; 4]), 1002),
    ] {
        for pieces in [1, 7, usize::MAX] {
            assert_eq!(decode(&bytes, &[pieces]).unwrap_err().code(), code, "{bytes:?}");
        }
    }
}

#[test]
fn headers_say_how_long_their_frame_is() {
    let mut room = [0; HEADER_OUT_MAX_BYTES];
    assert_eq!(binary(125, &mut room), [0x82, 125]);
    assert_eq!(binary(126, &mut room), [0x82, 126, 0, 126]);
    assert_eq!(binary(0xFFFF, &mut room), [0x82, 126, 0xFF, 0xFF]);
}

fn any_frames() -> impl Strategy<Value = Vec<(Vec<u8>, [u8; 4], u8)>> {
    prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), any::<[u8; 4]>(), 0_u8..4), 0..12)
}

proptest! {
    #[test]
    fn whatever_the_frames_and_pieces_the_bytes_come_through(
        frames in any_frames(),
        pieces in prop::collection::vec(1_usize..700, 1..8),
    ) {
        let (mut sent, mut wanted, mut pongs, mut open) = (Vec::new(), Vec::new(), Vec::new(), false);
        for (payload, mask, kind) in &frames {
            if *kind == 3 {
                let ping = &payload[..payload.len().min(125)];
                sent.extend(frame(FIN | PING, ping, *mask));
                pongs.extend([&[FIN | PONG, ping.len() as u8], ping].concat());
                continue;
            }
            let begins = if open { CONTINUATION } else { BINARY };
            open = *kind == 1;
            sent.extend(frame(if open { begins } else { FIN | begins }, payload, *mask));
            wanted.extend_from_slice(payload);
        }
        prop_assert_eq!(decode(&sent, &pieces).unwrap(), (wanted, pongs, false));
    }

    #[test]
    fn no_bytes_do_harm_and_nothing_grows(bytes in prop::collection::vec(any::<u8>(), 0..2_000), piece in 1_usize..500) {
        let (mut decoder, mut answers) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            match decoder.decode(&mut part, &mut answers) {
                Ok(decoded) => prop_assert!(decoded.payload <= part.len()),
                Err(_) => break,
            }
            prop_assert!(decoder.control.len() <= CONTROL_MAX_BYTES as usize);
        }
        prop_assert!(answers.len() <= bytes.len());
    }
}
