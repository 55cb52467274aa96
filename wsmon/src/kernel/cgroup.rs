//! Which cgroup the packet tap is attached to.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

/// The inode of the root of the cgroup2 hierarchy; that of a cgroup namespace has another one.
const ROOT_INODE: u64 = 1;

/// Opens the cgroup that the user names, or the root of the whole host.
pub fn open(named: Option<&Path>) -> io::Result<File> {
    if let Some(path) = named {
        let folder = File::open(path)?;
        return if is_cgroup2(&folder) {
            Ok(folder)
        } else {
            Err(io::Error::other("this is no folder of a cgroup2 hierarchy"))
        };
    }
    let mounted = mounts()?.into_iter().find(|path| is_root(path));
    match mounted {
        Some(path) => File::open(path),
        None => open_unmounted(),
    }
}

fn is_cgroup2(folder: &File) -> bool {
    // SAFETY: plain integers; zero is a value of each.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the structure outlives the call.
    let result = unsafe { libc::fstatfs(folder.as_raw_fd(), &raw mut found) };
    result == 0 && found.f_type == libc::CGROUP2_SUPER_MAGIC
}

/// Where cgroup2 is mounted.
pub fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
        })
        .collect())
}

/// Whether this is the root of the hierarchy rather than that of a namespace.
pub fn is_root(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.ino() == ROOT_INODE)
}

/// Opens the root of cgroup2 on a host that has it mounted nowhere: mounts it for as long as it
/// takes to open it.
fn open_unmounted() -> io::Result<File> {
    let folder = tempfile::tempdir()?;
    let path = CString::new(folder.path().as_os_str().as_bytes())?;
    let kind = c"cgroup2";
    // SAFETY: the strings live through the call; no options are given.
    let mounted = unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if mounted != 0 {
        return Err(io::Error::last_os_error());
    }
    let opened = File::open(folder.path());
    let is_root = is_root(folder.path());
    // SAFETY: the path lives through the call; the open file keeps the hierarchy.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    if is_root {
        opened
    } else {
        Err(io::Error::other(
            "only the cgroup2 of a cgroup namespace can be seen; run in the host's",
        ))
    }
}
