//! Reads records of the ring buffer, joins the heads in them and reads those.
//!
//! Input: records, each behind its length in two bytes, low byte first.

use crate::decode::http::{Key, Request, Response};
use crate::decode::{Event, heads::Heads};

/// Panics if a record does, or if text comes out that a terminal would obey.
pub fn check(mut data: &[u8]) {
    let mut heads = Heads::default();
    while let Some((len, rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (record, rest) = rest.split_at(len);
        data = rest;
        match Event::parse(record) {
            Ok(Event::Head {
                id,
                direction,
                at,
                last,
                bytes,
                time_ns,
            }) => {
                assert!(bytes.len() < record.len());
                if let Some(head) = heads.add(id, direction, at, last, bytes, time_ns) {
                    read(&head.bytes, head.whole);
                } else if time_ns & 1 != 0
                    && let Some(head) = heads.take(id, direction)
                {
                    read(&head.bytes, head.whole);
                }
                heads.expire(time_ns);
            }
            Ok(Event::Frame { frame, .. }) => assert!(frame.len() < record.len()),
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn read(head: &[u8], whole: bool) {
    assert!(head.len() <= 8192);
    let Request {
        method,
        path,
        host,
        user_agent,
        origin,
        version,
        offered_extensions,
        proxied_client: _,
        key,
    } = Request::parse(head, whole);
    let key = match key {
        Key::Accept(accept) => Some(accept),
        _ => None,
    };
    let Response {
        status: _,
        subprotocol,
        extensions,
        deflate: _,
        accept,
        cut: _,
    } = Response::parse(head, whole);
    let request = [
        method,
        path,
        host,
        user_agent,
        origin,
        version,
        offered_extensions,
        key,
    ];
    for text in request
        .iter()
        .chain(&[subprotocol, extensions, accept])
        .flatten()
    {
        assert!(!text.chars().any(is_obeyed), "{text:?}");
        assert!(text.chars().count() < 4000, "{text:?}");
    }
}

/// Control characters, and those that turn the direction of text.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
