//! What the fuzzers check holds for their seeds, and for bytes at random: on any toolchain.

use std::fs;

use proptest::prelude::*;

#[path = "../../fuzz/src/heads.rs"]
mod heads;
#[path = "../../fuzz/src/stream.rs"]
mod stream;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(folder).expect("the seeds are there");
    files
        .map(|file| fs::read(file.expect("it is listed").path()).expect("it can be read"))
        .collect()
}

#[test]
fn the_seeds_of_stream_and_heads_hold() {
    for seed in seeds("stream") {
        stream::check(&seed);
    }
    for seed in seeds("heads") {
        heads::check(&seed);
    }
}

proptest! {
    #[test]
    fn any_bytes_hold(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        stream::check(&bytes);
        heads::check(&bytes);
    }
}
