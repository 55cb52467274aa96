//! What building for the kernel takes, and the one cargo command line that does it. Shared by
//! wsmon's build script and xtask, so it uses nothing but std.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

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
        "-Ctarget-cpu=v3".to_owned(),
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

/// True if the toolchain in use has the standard library's source, of its own version.
pub fn has_std_source() -> bool {
    let Some(folder) = std_source_folder() else {
        return false;
    };
    // Only sources that setup put there itself can be of another version: rustup's own ones go
    // when the toolchain is updated.
    let stale = fs::read_to_string(folder.join(VERSION_FILE))
        .is_ok_and(|version| Some(version) != rustc(&["--version"]));
    // The file by which cargo recognises the source.
    folder.join("library/Cargo.lock").exists() && !stale
}

/// Where cargo looks for the standard library's source.
pub fn std_source_folder() -> Option<PathBuf> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    Some(Path::new(&sysroot).join("lib/rustlib/src/rust"))
}

/// In the source's folder: what `rustc --version` said when setup put the source there.
pub const VERSION_FILE: &str = "wsmon-setup-version";

pub fn bpf_linker(root: &Path) -> PathBuf {
    root.join("target/tools/bin/bpf-linker")
}

/// What the rustc in use answers, trimmed.
pub fn rustc(args: &[&str]) -> Option<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

const TARGET: &str = "bpfel-unknown-none";

/// Cargo's target folder for them, one of its own: the outer cargo holds the lock on the usual one.
fn target_dir(root: &Path) -> PathBuf {
    root.join("target/ebpf")
}
