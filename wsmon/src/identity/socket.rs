//! From a socket's addresses to the process that holds it, where the kernel did not say.
//!
//! `/proc/PID/net/tcp{,6}` of each network namespace gives the socket's inode, `/proc/PID/fd/*`
//! who holds it. That costs a system call for every descriptor on the host, so it is asked for
//! many sockets at once, in a thread that may block.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A TCP socket by its addresses. Where two network namespaces have the same, the first that is
/// found counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Socket {
    /// IPv4-mapped IPv6 addresses are taken as the IPv4 addresses that they are.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        let canonical = |of: SocketAddr| SocketAddr::new(of.ip().to_canonical(), of.port());
        Self {
            local: canonical(local),
            remote: canonical(remote),
        }
    }
}

/// Descriptors that are read between two looks at the clock.
const CLOCK_EVERY: usize = 256;

/// The process ids that hold these sockets, as far as they are found within `patience`. Of several
/// processes that hold one (after a fork) it is the one with the highest id.
pub fn owners(proc_root: &Path, wanted: &[Socket], patience: Duration) -> HashMap<Socket, u32> {
    if wanted.is_empty() {
        return HashMap::new();
    }
    let deadline = Instant::now() + patience;
    let pids = pids(proc_root);
    let by_inode = inodes(proc_root, &pids, wanted, deadline);
    holders(proc_root, &pids, by_inode, deadline)
}

/// All processes, the highest id first.
fn pids(proc_root: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = std::fs::read_dir(proc_root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable_by(|left, right| right.cmp(left));
    pids
}

/// Inodes of the wanted sockets, by the tables of each network namespace.
fn inodes(
    proc_root: &Path,
    pids: &[u32],
    wanted: &[Socket],
    deadline: Instant,
) -> HashMap<u64, Socket> {
    let mut missing: HashSet<Socket> = wanted.iter().copied().collect();
    let mut by_inode = HashMap::new();
    let mut namespaces: HashSet<PathBuf> = HashSet::new();
    for pid in pids {
        if missing.is_empty() || Instant::now() >= deadline {
            break;
        }
        let root = proc_root.join(pid.to_string());
        let Ok(namespace) = std::fs::read_link(root.join("ns/net")) else {
            continue;
        };
        if !namespaces.insert(namespace) {
            continue;
        }
        let Ok(process) = procfs::process::Process::new_with_root(root) else {
            continue;
        };
        let tables = [process.tcp(), process.tcp6()];
        for entry in tables.into_iter().flatten().flatten() {
            let socket = Socket::new(entry.local_address, entry.remote_address);
            // One that waits for its last segments belongs to nobody.
            if entry.inode != 0 && missing.remove(&socket) {
                by_inode.insert(entry.inode, socket);
            }
        }
    }
    by_inode
}

/// Who holds the sockets with these inodes.
fn holders(
    proc_root: &Path,
    pids: &[u32],
    mut missing: HashMap<u64, Socket>,
    deadline: Instant,
) -> HashMap<Socket, u32> {
    let mut found = HashMap::new();
    let mut read = 0_usize;
    for &pid in pids {
        if missing.is_empty() {
            break;
        }
        let directory = proc_root.join(pid.to_string()).join("fd");
        let descriptors = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for descriptor in descriptors {
            read += 1;
            if read.is_multiple_of(CLOCK_EVERY) && Instant::now() >= deadline {
                return found;
            }
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = socket_inode(target.as_os_str());
            if let Some(socket) = inode.and_then(|inode| missing.remove(&inode)) {
                found.insert(socket, pid);
            }
        }
    }
    found
}

/// `socket:[4711]`
fn socket_inode(target: &OsStr) -> Option<u64> {
    let inner = target
        .as_bytes()
        .strip_prefix(b"socket:[")?
        .strip_suffix(b"]")?;
    str::from_utf8(inner).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn owners_of(sockets: &[Socket], patience: Duration) -> HashMap<Socket, u32> {
        owners(Path::new("/proc"), sockets, patience)
    }

    #[test]
    fn both_ends_of_a_connection_are_found_in_one_scan() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("SKIPPED: no {address} here");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let [ours, theirs] = [&client, &server].map(|stream| {
                Socket::new(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
            });
            let found = owners_of(&[ours, theirs], PATIENCE);
            let own = std::process::id();
            assert_eq!(found, HashMap::from([(ours, own), (theirs, own)]));
        }
    }

    #[test]
    fn an_ipv4_peer_on_an_ipv6_socket_is_found() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            eprintln!("SKIPPED: no IPv6 here");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let server = Socket::new(client.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(
            owners_of(&[server], PATIENCE).get(&server),
            Some(&std::process::id())
        );
    }

    #[test]
    fn a_socket_that_nobody_has_is_not_found() {
        let nobody = Socket::new(
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        assert!(owners_of(&[nobody], PATIENCE).is_empty());
        assert!(owners_of(&[], PATIENCE).is_empty());
    }

    #[test]
    fn without_time_nothing_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(owners_of(&[socket], Duration::ZERO).is_empty());
    }

    #[test]
    fn links_of_descriptors() {
        assert_eq!(socket_inode(OsStr::new("socket:[4711]")), Some(4711));
        assert_eq!(socket_inode(OsStr::new("/dev/null")), None);
        assert_eq!(socket_inode(OsStr::new("socket:[x]")), None);
    }
}
