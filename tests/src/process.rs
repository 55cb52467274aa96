//! Child processes that never outlive the test: each leads a group that is killed when its
//! handle is dropped, and dies with the test program however that ends.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How long a program may take over one answer.
const ANSWER: Duration = Duration::from_mins(1);

/// A running program, its standard streams as lines.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    /// What it gets first when it is to go.
    farewell: libc::c_int,
}

impl Process {
    /// Starts a program; it is killed when the handle is dropped.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(command: Command) -> Self {
        Self::start_with(command, libc::SIGKILL)
    }

    /// Starts a program that ends by itself when it gets `farewell`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_with(mut command: Command, farewell: libc::c_int) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: prctl and setrlimit are async-signal-safe and touch no memory of the parent.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, farewell) != 0 {
                    return Err(io::Error::last_os_error());
                }
                raise_open_files();
                Ok(())
            });
        }
        let shown = format!("{command:?}");
        let mut child = spawn(command).unwrap_or_else(|error| panic!("{shown}: {error}"));
        Self {
            stdin: child.stdin.take(),
            stdout: Lines::read(child.stdout.take().expect("piped")),
            stderr: Lines::read(child.stderr.take().expect("piped")),
            child,
            farewell,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Base name of its executable: the `process` label.
    pub fn name(&self) -> String {
        executable_name(self.pid())
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    ///
    /// If it reads no more.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        writeln!(stdin, "{line}").unwrap_or_else(|error| {
            panic!(
                "program {} takes no input: {error}\n{}",
                self.child.id(),
                self.stderr.all()
            )
        });
    }

    /// The next line of its standard output.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn answer(&mut self) -> String {
        self.line_within(ANSWER).unwrap_or_else(|| {
            panic!(
                "no answer from {}; it said:\n{}",
                self.pid(),
                self.stderr.all()
            )
        })
    }

    /// The next line of its standard output, if it comes in time.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        self.stdout.next.lock().ok()?.recv_timeout(limit).ok()
    }

    /// All that it wrote to standard error so far.
    pub fn errors(&self) -> String {
        self.stderr.all()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is not reaped, so the id is its own.
        unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
    }

    /// Sends a signal to it and what it started.
    pub fn signal_group(&self, signal: libc::c_int) {
        // SAFETY: as in `signal`; it leads its group.
        unsafe { libc::kill(-(self.pid() as libc::pid_t), signal) };
    }

    /// Kills it and what it started at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.signal_group(libc::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if self.farewell != libc::SIGKILL {
            self.signal(self.farewell);
            if self.wait(Duration::from_secs(5)).is_some() {
                return;
            }
        }
        self.signal_group(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Base name of a process's executable.
///
/// # Panics
///
/// If the process is gone.
pub fn executable_name(pid: u32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).expect("the process runs");
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Base name of this process's executable.
pub fn own_name() -> String {
    executable_name(std::process::id())
}

/// Takes as many open files as the host allows.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place to read from and write to.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Lines of a stream as they come.
struct Lines {
    next: Mutex<mpsc::Receiver<String>>,
    all: std::sync::Arc<Mutex<String>>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let (send, next) = mpsc::channel();
        let all = std::sync::Arc::new(Mutex::new(String::new()));
        let keep = all.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                {
                    let mut keep = keep.lock().expect("not poisoned");
                    if keep.len() < 1 << 16 {
                        keep.push_str(&line);
                        keep.push('\n');
                    }
                }
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            next: Mutex::new(next),
            all,
        }
    }

    fn all(&self) -> String {
        self.all.lock().expect("not poisoned").clone()
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The death signal is sent when the *thread* that started the child ends, and tests are threads:
/// one thread that lives as long as the program starts them all.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (send, orders) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in orders {
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(send)
});

fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    SPAWNER
        .lock()
        .expect("not poisoned")
        .send((command, reply))
        .expect("the spawner lives");
    answer.recv().expect("the spawner answers")
}
