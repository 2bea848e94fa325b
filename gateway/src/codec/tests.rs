//! However the bytes are cut, the same messages come out, and no bytes panic.

use proptest::prelude::*;

use super::*;

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn wire(kind: ListenerKind, messages: &[String]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|text| match kind {
            ListenerKind::Web => masked(1, text.as_bytes()),
            ListenerKind::Text => format!("{text}\r\n").into_bytes(),
            ListenerKind::Frame => [&(text.len() as u32 + 4).to_be_bytes(), text.as_bytes()].concat(),
        })
        .collect()
}

/// In turns of a few frames, which must make no difference.
fn decode(codec: &mut Codec, mut input: &[u8], out: &mut Vec<ClientInput>) -> Result<Vec<u8>, Violation> {
    let mut answer = Vec::new();
    loop {
        let before = input.len();
        let mut allowance = Allowance::of(3);
        while let Some(message) = codec.next(&mut input, &mut answer, &mut allowance)? {
            out.push(message);
        }
        if input.is_empty() {
            return Ok(answer);
        }
        assert!(input.len() < before && allowance.left == 0, "what may be taken is taken");
    }
}

fn kinds() -> impl Strategy<Value = ListenerKind> {
    prop_oneof![Just(ListenerKind::Web), Just(ListenerKind::Text), Just(ListenerKind::Frame)]
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        kind in kinds(),
        messages in prop::collection::vec("[a-zé☕]{0,300}", 0..12),
        cuts in prop::collection::vec(1..50usize, 1..20),
    ) {
        let bytes = wire(kind, &messages);
        let mut codec = Codec::new(Protocol::raw(kind), 4096);
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decode(&mut codec, now, &mut got).unwrap();
            rest = later;
        }
        let expected: Vec<ClientInput> = messages.iter().map(|text| match kind {
            ListenerKind::Frame => ClientInput::Binary(text.clone().into_bytes().into()),
            _ => ClientInput::Text(text.clone()),
        }).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn fragments_and_cuts_do_not_matter(
        messages in prop::collection::vec(prop::collection::vec("[aé☕𝄞]{0,40}", 1..4), 1..6),
        binary: bool,
        cut in 1..50usize,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            // Cut within characters, too.
            let whole = message.concat().into_bytes();
            let part = whole.len() / message.len() + 1;
            let parts: Vec<&[u8]> = if whole.is_empty() { vec![&[]] } else { whole.chunks(part).collect() };
            for (index, part) in parts.iter().enumerate() {
                let opcode = if index > 0 { 0 } else if binary { 2 } else { 1 };
                let mut frame = masked(opcode, part);
                if index + 1 < parts.len() {
                    frame[0] &= 0x7f;
                }
                bytes.extend(frame);
                bytes.extend(masked(10, &[0xff]));
            }
        }
        let mut codec = Codec::new(Protocol::WebSocket, 4096);
        let mut got = Vec::new();
        for some in bytes.chunks(cut) {
            decode(&mut codec, some, &mut got).unwrap();
        }
        let expected = messages.iter().map(|message| match binary {
            true => ClientInput::Binary(message.concat().into_bytes().into()),
            false => ClientInput::Text(message.concat()),
        });
        prop_assert_eq!(got, expected.collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_panic(kind in kinds(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut codec = Codec::new(Protocol::raw(kind), 100);
        let _ = decode(&mut codec, &bytes, &mut Vec::new());
    }
}

/// Text that is wrong fails with its first wrong byte, however long its frame is.
#[test]
fn invalid_text_fails_before_its_frame_is_whole() {
    let good = "κόσμε 中 \u{10ffff}".as_bytes();
    for wrong in [&[0xf4, 0x90][..], &[0xff], &[0xc0, 0x80], &[0xed, 0xa0], &[0xe2, 0x28], &[0xf8]] {
        let text = [good, wrong, &[b'x'; 60]].concat();
        // The wrong byte is the last of `wrong`, or an earlier one.
        let first = std::str::from_utf8(&text).unwrap_err().valid_up_to() + 1;
        let last = good.len() + wrong.len();
        let whole = masked(1, &text);
        let mut fragments = masked(1, &good[..3]);
        fragments[0] &= 0x7f;
        fragments.extend(masked(9, b"\xff"));
        let mut second = masked(0, &text[3..]);
        second[0] &= 0x7f;
        for (bytes, head) in [(whole, 6), ([fragments.clone(), second].concat(), fragments.len() + 6 - 3)] {
            let bytes = [masked(1, b"before"), bytes].concat();
            let head = head + masked(1, b"before").len();
            let mut codec = Codec::new(Protocol::WebSocket, 4096);
            let mut got = Vec::new();
            let failed = bytes.iter().position(|byte| decode(&mut codec, &[*byte], &mut got).is_err());
            let failed = failed.expect("it fails");
            assert!((head + first..=head + last).contains(&(failed + 1)), "{wrong:x?}: {failed}, {head}");
            assert_eq!(got, [ClientInput::Text("before".into())]);
            // All at once: what was said before is passed on first.
            let mut codec = Codec::new(Protocol::WebSocket, 4096);
            let mut got = Vec::new();
            let cut = &bytes[..head + last];
            assert_eq!(decode(&mut codec, cut, &mut got), Err(Violation::Utf8), "{wrong:x?}");
            assert_eq!(got, [ClientInput::Text("before".into())]);
        }
    }
}

/// Whatever the frames are: 6 bytes of each would otherwise be tens of thousands in one turn.
#[test]
fn a_turn_takes_no_more_frames_than_it_may() {
    let fragment = |opcode: u8| {
        let mut frame = masked(opcode, b"");
        frame[0] &= 0x7f;
        frame
    };
    let lines = || b"\n".to_vec();
    let kinds: [(ListenerKind, Vec<u8>, Vec<u8>, bool); 7] = [
        (ListenerKind::Web, Vec::new(), masked(9, b"p"), false),
        (ListenerKind::Web, Vec::new(), masked(10, b""), false),
        (ListenerKind::Web, fragment(1), fragment(0), false),
        (ListenerKind::Web, Vec::new(), masked(1, b""), true),
        (ListenerKind::Web, Vec::new(), masked(2, b""), true),
        (ListenerKind::Text, Vec::new(), lines(), true),
        (ListenerKind::Frame, Vec::new(), vec![0, 0, 0, 4], true),
    ];
    for (kind, begin, one, is_message) in kinds {
        let mut codec = Codec::new(Protocol::raw(kind), 4096);
        let bytes = [begin, one.repeat(1000)].concat();
        let (mut input, mut answer, mut messages, mut no_messages) = (&bytes[..], Vec::new(), 0, 0);
        while !input.is_empty() {
            let before = input.len();
            let mut allowance = Allowance::of(64);
            let mut got = 0;
            while codec.next(&mut input, &mut answer, &mut allowance).unwrap().is_some() {
                got += 1;
            }
            assert!(before - input.len() <= 64 * one.len(), "{kind:?} {one:?}");
            assert!(got <= 64 && allowance.no_messages <= 64);
            messages += got;
            no_messages += allowance.no_messages;
        }
        let all = u32::try_from(bytes.len() / one.len()).unwrap();
        assert_eq!((messages, no_messages), if is_message { (all, 0) } else { (0, all) }, "{kind:?} {one:?}");
        assert_eq!(answer, if one == masked(9, b"p") { b"\x8a\x01p".repeat(1000) } else { Vec::new() });
    }
}

#[test]
fn nothing_is_read_after_a_close() {
    let mut codec = Codec::new(Protocol::WebSocket, 100);
    let bytes = [masked(8, b"\x03\xe8"), masked(9, b"").repeat(500)].concat();
    let (mut input, mut answer) = (&bytes[..], Vec::new());
    for turn in 0.. {
        assert!(turn < 500 / 64 + 4, "it goes on for ever");
        let mut allowance = Allowance::of(64);
        while codec.next(&mut input, &mut answer, &mut allowance).unwrap().is_some() {}
        if input.is_empty() {
            break;
        }
    }
    assert_eq!(answer, b"\x88\x02\x03\xe8");
}

#[test]
fn pings_and_closes_are_answered_in_place() {
    let mut codec = Codec::new(Protocol::WebSocket, 100);
    let mut got = Vec::new();
    let bytes = [masked(1, b"a"), masked(9, b"p"), masked(8, b"\x03\xe8bye")].concat();
    let answer = decode(&mut codec, &bytes, &mut got).unwrap();
    assert_eq!(got, [ClientInput::Text("a".into()), ClientInput::Close(1000, "bye".into())]);
    assert_eq!(answer, [&b"\x8a\x01p\x88"[..], b"\x05\x03\xe8bye"].concat());
}

#[test]
fn violations_have_their_codes() {
    let cases: [(ListenerKind, Vec<u8>, Violation); 6] = [
        (ListenerKind::Web, b"\x81\x02hi".to_vec(), Violation::Protocol),
        (ListenerKind::Web, masked(1, &[0xff, 0xfe]), Violation::Utf8),
        (ListenerKind::Web, masked(2, &[0; 101]), Violation::TooLarge),
        (ListenerKind::Text, vec![b'x'; 102], Violation::TooLarge),
        (ListenerKind::Frame, vec![0, 0, 0, 3], Violation::Protocol),
        (ListenerKind::Frame, vec![0, 0, 1, 0], Violation::TooLarge),
    ];
    for (kind, bytes, violation) in cases {
        let mut codec = Codec::new(Protocol::raw(kind), 100);
        assert_eq!(decode(&mut codec, &bytes, &mut Vec::new()).unwrap_err(), violation, "{kind:?}");
    }
}
