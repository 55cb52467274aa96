//! What building for the kernel takes, and the one cargo command line that does it. Shared by
//! wsmon's build script and xtask, so it uses nothing but std.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What setup installs: the newest that links with the LLVM that rustc 1.95 (LLVM 22) brings.
#[allow(dead_code, reason = "only xtask installs")]
pub const BPF_LINKER_VERSION: &str = "0.10.3";

/// The parts that `cargo xtask setup` installs and that are not there, in words.
pub fn missing(root: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    match rustc_prints("sysroot") {
        Some(sysroot) if std_source(Path::new(&sysroot)).exists() => {}
        Some(sysroot) => missing.push(format!(
            "the standard library's source ({})",
            std_source(Path::new(&sysroot)).display()
        )),
        None => missing.push("a rustc that runs".to_owned()),
    }
    if !bpf_linker(root).exists() {
        missing.push(format!("bpf-linker ({})", bpf_linker(root).display()));
    }
    missing
}

/// `cargo <subcommand>` for wsmon-ebpf and its target. `arch` is the machine whose kernel will run
/// the programs, as Rust names it.
///
/// Standard library from source needs an unstable flag; `RUSTC_BOOTSTRAP` allows it in this one
/// call, so that user space is built by plain stable Rust.
pub fn cargo(root: &Path, arch: &str, subcommand: &str) -> Command {
    let linker = bpf_linker(root);
    let rustflags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ]
    .join("\x1f");

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .arg(subcommand)
        .args(["--package", "wsmon-ebpf", "--profile", "ebpf"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir(root))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags)
        // Set by the cargo that runs a build script (and by clippy), meant for the host's crates.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    cargo
}

/// Where `cargo build` puts the object.
pub fn object(root: &Path) -> PathBuf {
    target_dir(root).join(TARGET).join("ebpf/wsmon-ebpf")
}

/// The file by which cargo recognises the standard library's source in a toolchain.
pub fn std_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock")
}

pub fn bpf_linker(root: &Path) -> PathBuf {
    root.join("target/tools/bin/bpf-linker")
}

/// `rustc --print <what>` of the toolchain in use.
pub fn rustc_prints(what: &str) -> Option<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", what]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

const TARGET: &str = "bpfel-unknown-none";

/// A folder of its own: the outer cargo holds the lock on the usual one.
fn target_dir(root: &Path) -> PathBuf {
    root.join("target/ebpf")
}
