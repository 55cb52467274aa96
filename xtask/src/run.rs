//! `cargo xtask run`.

use std::{
    env, fs,
    fs::File,
    io::{ErrorKind, IsTerminal as _, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{build, shell};

/// Build wsmon, start the agent on this host and show what it sees
///
/// Needs root for the agent: through sudo, if you are not. On a terminal the open WebSockets are
/// shown live; q or Ctrl-C ends everything. Logs go to target/run.
#[derive(clap::Args)]
pub struct Args {
    /// Start a local chat with well- and ill-behaved clients too, so that there is something to see
    #[arg(long)]
    demo: bool,
    /// Arguments for `wsmon agent`
    #[arg(last = true)]
    agent: Vec<String>,
}

/// Where the agent listens unless it is told otherwise.
const LISTEN: &str = "127.0.0.1:9790";
/// How long the agent may take to load its programs.
const READY: Duration = Duration::from_secs(30);
/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the programs are looked after.
const TICK: Duration = Duration::from_millis(50);

pub fn run(args: &Args) -> Result<()> {
    let listen = listen(&args.agent, env::var("WSMON_LISTEN").ok())?;
    check_free(listen)?;
    let wsmon = build::wsmon(true)?;
    let logs = shell::root().join("target/run");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    if !shell::is_root() {
        // A password is asked for here, not in the middle of a table.
        shell::run(&mut shell::as_root("true")?)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot listen for signals")?;
    }
    let mut running = Running {
        listen,
        stop,
        agent: None,
        demo: None,
        table: None,
    };
    let done = running.show(&wsmon, &logs, args);
    running.end();
    done
}

/// What was started, and is to end with this program.
struct Running {
    listen: SocketAddr,
    /// A signal asks for the end.
    stop: Arc<AtomicBool>,
    agent: Option<Program>,
    demo: Option<Program>,
    table: Option<Program>,
}

impl Running {
    /// Starts everything, and returns when the user has seen enough.
    fn show(&mut self, wsmon: &Path, logs: &Path, args: &Args) -> Result<()> {
        let mut agent = shell::as_root(&wsmon.to_string_lossy())?;
        agent.arg("agent").args(&args.agent);
        let log = logs.join("agent.log");
        self.agent = Some(Program::start("wsmon agent", agent, Some(&log))?);
        if !self.is_ready()? {
            return Ok(());
        }
        let listen = self.listen;
        println!(
            "run: metrics at http://{listen}/metrics; the agent's log is {}",
            log.display()
        );
        if args.demo {
            let mut demo = Command::new(wsmon);
            demo.arg("demo");
            let log = logs.join("demo.log");
            self.demo = Some(Program::start("wsmon demo", demo, Some(&log))?);
            println!("run: the demo's output is {}", log.display());
        }
        if !std::io::stdout().is_terminal() {
            println!("run: no terminal, so no table; `wsmon ls` prints one; Ctrl-C ends");
        } else if !listen.ip().is_loopback() {
            println!(
                "run: no table, as the agent answers `wsmon top` on loopback only; Ctrl-C ends"
            );
        } else {
            let mut table = Command::new(wsmon);
            table.args(["top", "--agent", &format!("http://{listen}")]);
            self.table = Some(Program::start("wsmon top", table, None)?);
        }
        self.watch()
    }

    /// Waits until the agent answers. False if the user does not want to wait.
    fn is_ready(&mut self) -> Result<bool> {
        let began = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            self.check_agent()?;
            if answers(self.listen) {
                return Ok(true);
            }
            if began.elapsed() > READY {
                bail!(
                    "`wsmon agent` does not answer at {} after {} s",
                    self.listen,
                    READY.as_secs()
                );
            }
            thread::sleep(TICK);
        }
        Ok(false)
    }

    /// Until the table is left, a signal comes, or the agent ends.
    fn watch(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.check_agent()?;
            if let Some(table) = &mut self.table
                && let Some(status) = table.ended()?
            {
                if !status.success() {
                    bail!("`wsmon top` failed ({status})");
                }
                return Ok(());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// An error with the agent's own words if it has ended. On Ctrl-C it may do so first.
    fn check_agent(&mut self) -> Result<()> {
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let Some(status) = agent.ended()? else {
            return Ok(());
        };
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let said = agent.last_words();
        // The table would be drawn over the message.
        end(self.table.take(), false);
        bail!("`wsmon agent` ended ({status}):\n{said}");
    }

    /// Ends what still runs: first who looks, then who makes traffic, then who watches it.
    fn end(&mut self) {
        end(self.table.take(), false);
        end(self.demo.take(), false);
        end(self.agent.take(), !shell::is_root());
    }
}

struct Program {
    name: &'static str,
    child: Child,
    log: Option<PathBuf>,
}

impl Program {
    /// With its output in `log`; on the terminal without one.
    fn start(name: &'static str, mut command: Command, log: Option<&Path>) -> Result<Self> {
        if let Some(log) = log {
            let file =
                File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
            let errors = file.try_clone().context("cannot share a log")?;
            command.stdin(Stdio::null()).stdout(file).stderr(errors);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        Ok(Self {
            name,
            child,
            log: log.map(Path::to_owned),
        })
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for `{}`", self.name))
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = self.log.as_deref().map(fs::read_to_string);
        let log = log.and_then(Result::ok).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        format!("    {}", last.join("\n    "))
    }

    /// True if it ended within [`PATIENCE`].
    fn waits(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(TICK);
        }
        false
    }
}

/// Asks a program to end, and ends it if it does not. `as_root`: it is not ours to signal.
fn end(program: Option<Program>, as_root: bool) {
    let Some(mut program) = program else {
        return;
    };
    let pid = program.child.id();
    if matches!(program.child.try_wait(), Ok(Some(_))) {
        return;
    }
    signal("TERM", &[pid], as_root);
    if program.waits() {
        return;
    }
    eprintln!("run: `{}` does not end by itself: killed", program.name);
    // sudo cannot pass this one on.
    let mut pids = children(pid);
    pids.push(pid);
    signal("KILL", &pids, as_root);
    program.waits();
}

fn signal(name: &str, pids: &[u32], as_root: bool) {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let kill = format!("kill -s {name} {}", pids.join(" "));
    let shell = if as_root {
        shell::as_root("sh")
    } else {
        Ok(Command::new("sh"))
    };
    let sent = shell.and_then(|mut shell| shell::output(shell.args(["-c", &kill])));
    if let Err(error) = sent {
        eprintln!("run: {error:#}");
    }
}

fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Where the agent will listen.
fn listen(agent: &[String], environment: Option<String>) -> Result<SocketAddr> {
    let mut listen = environment.unwrap_or_else(|| LISTEN.to_owned());
    let mut args = agent.iter();
    while let Some(arg) = args.next() {
        if let Some(value) = arg.strip_prefix("--listen=") {
            value.clone_into(&mut listen);
        } else if arg == "--listen"
            && let Some(value) = args.next()
        {
            listen.clone_from(value);
        }
    }
    let address: SocketAddr = listen
        .parse()
        .with_context(|| format!("`{listen}` is not an address with a port, such as {LISTEN}"))?;
    if address.port() == 0 {
        bail!("name a port for --listen: the one that the agent chose could not be found");
    }
    Ok(address)
}

/// An error if somebody listens there already: that would be who answers.
fn check_free(listen: SocketAddr) -> Result<()> {
    match TcpListener::bind(listen) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "{listen} is taken, perhaps by another agent; end that, \
             or take another port: cargo xtask run -- --listen 127.0.0.1:{}",
            if listen.port() == 9791 { 9792 } else { 9791 }
        ),
        // The agent will say what else is wrong.
        _ => Ok(()),
    }
}

/// Whether the agent says that it is ready.
fn answers(listen: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&listen, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(
            format!("GET /readyz HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(agent: &[&str], environment: Option<&str>) -> Option<String> {
        let agent: Vec<String> = agent.iter().map(ToString::to_string).collect();
        let address = listen(&agent, environment.map(str::to_owned)).ok()?;
        Some(address.to_string())
    }

    #[test]
    fn the_agents_own_arguments_say_where_it_listens() {
        let at = |port: &str| Some(format!("127.0.0.1:{port}"));
        assert_eq!(listens(&[], None), at("9790"));
        assert_eq!(listens(&[], Some("127.0.0.1:1")), at("1"));
        assert_eq!(
            listens(
                &["--slots", "8", "--listen", "127.0.0.1:2"],
                Some("127.0.0.1:1")
            ),
            at("2")
        );
        assert_eq!(listens(&["--listen=127.0.0.1:3"], None), at("3"));
        assert_eq!(listens(&["--listen", "9790"], None), None);
        assert_eq!(listens(&["--listen", "127.0.0.1:0"], None), None);
    }

    #[test]
    fn a_port_that_is_taken_is_said_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = check_free(address).unwrap_err().to_string();
        assert!(error.contains("--listen 127.0.0.1:9791"), "{error}");
        drop(taken);
        check_free(address).unwrap();
    }

    #[test]
    fn only_an_agent_that_is_ready_answers() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let served = thread::spawn(move || {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = server.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /readyz "));
                write!(stream, "HTTP/1.1 {status}\r\n\r\n").unwrap();
            }
        });
        assert!(!answers(address));
        assert!(answers(address));
        served.join().unwrap();
        assert!(!answers(address));
    }

    #[test]
    fn a_program_that_does_not_want_to_end_is_killed() {
        let mut stubborn = Command::new("sh");
        stubborn.args([
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ]);
        let folder = env::temp_dir().join(format!("xtask-run-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        let program = Program::start("stubborn", stubborn, Some(&log)).unwrap();
        while !program.last_words().contains("ready") {
            thread::sleep(TICK);
        }
        let pid = program.child.id();
        end(Some(program), false);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
