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

fn decode(codec: &mut Codec, mut input: &[u8], out: &mut Vec<Input>) -> Result<Vec<u8>, Violation> {
    let mut answer = Vec::new();
    while let Some(message) = codec.next(&mut input, &mut answer)? {
        out.push(message);
    }
    assert!(input.is_empty(), "what was fed is taken");
    Ok(answer)
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
        let expected: Vec<Input> = messages.iter().map(|text| match kind {
            ListenerKind::Frame => Input::Binary(text.clone().into_bytes().into()),
            _ => Input::Text(text.clone()),
        }).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_panic(kind in kinds(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut codec = Codec::new(Protocol::raw(kind), 100);
        let _ = decode(&mut codec, &bytes, &mut Vec::new());
    }
}

#[test]
fn pings_and_closes_are_answered_in_place() {
    let mut codec = Codec::new(Protocol::WebSocket, 100);
    let mut got = Vec::new();
    let bytes = [masked(1, b"a"), masked(9, b"p"), masked(8, b"\x03\xe8bye")].concat();
    let answer = decode(&mut codec, &bytes, &mut got).unwrap();
    assert_eq!(got, [Input::Text("a".into()), Input::Close(1000, "bye".into())]);
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
