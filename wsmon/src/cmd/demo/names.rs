//! Names for the demo's processes: a process is known by its executable's, and this program is one
//! file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A folder with this program under other names, removed when this is dropped.
#[derive(Debug)]
pub struct Names(Option<TempDir>);

impl Names {
    pub fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("wsmon-demo-")
                .tempdir()
                .ok(),
        )
    }

    /// `program` as `demo-PART`; `None` if that cannot be had.
    pub fn program(&self, program: &Path, part: &str) -> Option<PathBuf> {
        let path = self.0.as_ref()?.path().join(format!("demo-{part}"));
        // A link costs nothing; on another file system it takes a copy.
        fs::hard_link(program, &path)
            .or_else(|_| fs::copy(program, &path).map(drop))
            .ok()?;
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_another_name_until_the_end() {
        let names = Names::new();
        let program = names
            .program(Path::new("/proc/self/exe"), "server")
            .unwrap();
        assert!(program.ends_with("demo-server") && program.exists());
        drop(names);
        assert!(!program.exists());
    }
}
