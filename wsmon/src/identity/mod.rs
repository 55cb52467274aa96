//! Who a connection belongs to on this host.

/// The process behind a socket, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: Option<u32>,
    /// Base name of the executable; `unknown` if the process was gone before it could be read.
    pub name: String,
    /// Container id from the cgroup path.
    pub container: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    /// When the process started, in milliseconds since the epoch.
    pub start_ms: Option<u64>,
}
