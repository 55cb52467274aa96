//! A cgroup of the bench's own: what else the host does passes none of its programs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};
use wsmon::kernel::cgroup;

/// An empty cgroup below the one of this process; removed when it is dropped.
pub struct Cgroup {
    path: PathBuf,
    parent: PathBuf,
}

impl Cgroup {
    pub fn new() -> Result<Self> {
        let mount = cgroup::mounts()?
            .into_iter()
            .find(|path| cgroup::is_root(path))
            .context("cgroup2 is mounted nowhere: `mount -t cgroup2 none /sys/fs/cgroup`")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .context("this process is in no cgroup2")?;
        let parent = mount.join(own);
        let path = parent.join(format!("wsmon-bench-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, parent })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self) -> Result<File> {
        Ok(File::open(&self.path)?)
    }

    /// Runs `make` inside: the sockets that it makes belong to the cgroup for good, others do not.
    pub fn inside<T>(&self, make: impl FnOnce() -> T) -> Result<T> {
        enter(&self.path)?;
        let made = make();
        enter(&self.parent)?;
        Ok(made)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whatever failed, this process must not stay inside.
        let removed = enter(&self.parent).and_then(|()| Ok(fs::remove_dir(&self.path)?));
        if let Err(error) = removed {
            eprintln!("bench: {} is left behind: {error}", self.path.display());
        }
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string())
        .with_context(|| format!("cannot move into {}", cgroup.display()))
}
