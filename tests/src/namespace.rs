//! Two hosts on a wire: network namespaces with a veth pair between them.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use crate::bpf::Dropper;

/// A network namespace with one interface, removed when dropped.
pub struct Host {
    name: String,
    pub address: Ipv4Addr,
    handle: Arc<File>,
}

/// Two hosts that see each other.
pub struct Link {
    pub left: Host,
    pub right: Host,
    droppers: Vec<Dropper>,
}

impl Link {
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("wsmon-e2e-{}-{number}{side}", std::process::id());
        let left = Host::new(name('a'), Ipv4Addr::new(10, 213, number, 1))?;
        let right = Host::new(name('b'), Ipv4Addr::new(10, 213, number, 2))?;
        ip(&format!(
            "link add name veth0 netns {} type veth peer name veth0 netns {}",
            left.name, right.name
        ))?;
        left.up()?;
        right.up()?;
        Ok(Self {
            left,
            right,
            droppers: Vec::new(),
        })
    }

    /// From now on so many of a thousand packets are lost in each direction.
    pub fn lose(&mut self, permille: u32) -> io::Result<()> {
        for host in [&self.left, &self.right] {
            let dropper = host.inside(move || {
                // SAFETY: a constant string.
                let index = unsafe { libc::if_nametoindex(c"veth0".as_ptr()) };
                Dropper::attach(index, permille)
            })?;
            self.droppers.push(dropper);
        }
        Ok(())
    }
}

impl Host {
    fn new(name: String, address: Ipv4Addr) -> io::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let handle = Arc::new(File::open(format!("/run/netns/{name}"))?);
        Ok(Self {
            name,
            address,
            handle,
        })
    }

    fn up(&self) -> io::Result<()> {
        ip(&format!(
            "-n {} addr add {}/24 dev veth0",
            self.name, self.address
        ))?;
        ip(&format!("-n {} link set veth0 up", self.name))?;
        // A packet a segment: more of them to lose.
        ip(&format!("-n {} link set veth0 gso_max_segs 1", self.name))?;
        ip(&format!("-n {} link set lo up", self.name))
    }

    /// Lets a program start on this host.
    pub fn adopt(&self, command: &mut Command) {
        let handle = self.handle.clone();
        // SAFETY: setns is async-signal-safe, and the descriptor is open as long as the command.
        unsafe { command.pre_exec(move || enter(&handle)) };
    }

    /// Runs on this host.
    pub fn inside<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let handle = self.handle.clone();
        let thread = thread::spawn(move || enter(&handle).and_then(|()| run()));
        thread.join().map_err(|_| io::Error::other("it panicked"))?
    }

    /// Segments that this host's TCP had to send again.
    pub fn retransmitted(&self) -> io::Result<u64> {
        self.inside(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
            let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
            let (names, values) = (tcp.next().unwrap_or(""), tcp.next().unwrap_or(""));
            let found = names
                .split(' ')
                .zip(values.split(' '))
                .find(|(name, _)| *name == "RetransSegs");
            Ok(found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn enter(handle: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    if unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn ip(arguments: &str) -> io::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {arguments}: {said}")))
}
