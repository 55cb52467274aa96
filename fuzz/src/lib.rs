//! What must hold whatever bytes come in. Each module has one `check`, which panics where it does
//! not; the tests of wsmon-common and wsmon run it over the seeds, the fuzzers over what they
//! make of them.

#[path = "../../wsmon/src/decode/mod.rs"]
pub mod decode;
pub mod heads;
pub mod records;
pub mod stream;

/// Stands for wsmon's module, of which decode needs a name.
pub mod identity {
    #[derive(Debug)]
    pub struct Process;
}
