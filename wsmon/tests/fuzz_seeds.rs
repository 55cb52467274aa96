//! What the fuzzers check holds for their seeds, on any toolchain.

use std::fs;

use proptest::prelude::*;
use wsmon::decode;
use wsmon_common::event::{KIND_HEAD, RECEIVED, VERSION};

#[path = "../../fuzz/src/records.rs"]
mod records;

#[test]
fn the_seeds_of_records_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/records");
    for file in fs::read_dir(folder).expect("the seeds are there") {
        let path = file.expect("it is listed").path();
        records::check(&fs::read(path).expect("it can be read"));
    }
}

proptest! {
    #[test]
    fn any_head_comes_out_fit_to_print(
        line in prop_oneof![
            Just(&b"GET "[..]),
            Just(&b"GET / HTTP/1.1\r\nHost: "[..]),
            Just(&b"HTTP/1.1 101 S\r\nSec-WebSocket-Protocol: "[..]),
            Just(&b"GET / HTTP/1.1\r\nUser-Agent: "[..]),
        ],
        rest in proptest::collection::vec(prop_oneof![1 => Just(b'\n'), 60 => any::<u8>()], 0..900),
        last in 0u32..2,
    ) {
        let head = [line, &rest].concat();
        let mut record = vec![VERSION, KIND_HEAD, RECEIVED, 0];
        record.extend([7u32, 3, head.len() as u32].map(u32::to_ne_bytes).concat());
        record.extend(99u64.to_ne_bytes());
        record.extend([0, last].map(u32::to_ne_bytes).concat());
        record.extend(head);
        records::check(&[&(record.len() as u16).to_le_bytes()[..], &record].concat());
    }
}
