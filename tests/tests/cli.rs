//! The commands as people type them: what they print, how they end, what they leave behind.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use wsmon_e2e::{
    agent::{Agent, can_run, wsmon},
    bpf, port,
    process::Process,
    program::{Kind, Scratch, Server, find, python_script},
    raw::{FIN, PING, Pair, Side, TEXT, connect, read_head, request},
    skip, within,
};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(wsmon().expect("checked by can_run"));
    command.args(arguments);
    command
}

/// Runs a command to its end, which must come soon.
fn output(arguments: &[&str]) -> Output {
    let mut child = command(arguments);
    // `timeout` of coreutils: a command that hangs fails the test, and not the run.
    let mut bounded = Command::new("timeout");
    bounded
        .arg("30")
        .arg(child.get_program())
        .args(child.get_args());
    child = bounded;
    child.output().expect("coreutils are there")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One connection to a server that echoes: three texts, a ping, a Close with 1000.
fn converse(port: u16, path: &str) {
    let mut stream = connect((Ipv4Addr::LOCALHOST, port).into());
    stream.write_all(&request(path)).unwrap();
    assert!(read_head(&stream).starts_with("HTTP/1.1 101"));
    let client = Side::Client;
    for _ in 0..3 {
        exchange(&mut stream, &client.frame(FIN | TEXT, b"hello"));
    }
    exchange(&mut stream, &client.frame(FIN | PING, b"beat"));
    stream.write_all(&client.close(1000, "")).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// The answer is as long as the frame, less its mask.
fn exchange(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).unwrap();
    stream.read_exact(&mut vec![0; frame.len() - 4]).unwrap();
}

/// A trace that is under way: it has shown a first connection.
fn tracing(agent: &str, pid: u32, port: u16, more: &[&str]) -> Process {
    let pid = pid.to_string();
    let mut arguments = vec!["trace", "--agent", agent, "--pid", &pid, "--output", "json"];
    arguments.extend_from_slice(more);
    let mut trace = Process::start_with(command(&arguments), libc::SIGINT);
    let end = Instant::now() + Duration::from_secs(20);
    while trace.line_within(Duration::from_millis(500)).is_none() {
        assert!(Instant::now() < end, "no trace:\n{}", trace.errors());
        converse(port, "/first");
    }
    trace
}

/// Records of the connection with this path, up to its end.
fn records(trace: &mut Process, path: &str) -> Vec<Value> {
    let (mut found, mut connection): (Vec<Value>, Option<Value>) = (Vec::new(), None);
    loop {
        let line = trace.line_within(Duration::from_secs(10));
        let line = line.unwrap_or_else(|| panic!("it stopped at {found:#?}\n{}", trace.errors()));
        let record: Value = serde_json::from_str(&line).expect("a JSON object a line");
        if record["path"] == path {
            connection.get_or_insert_with(|| record["connection"].clone());
        }
        if connection.as_ref() == Some(&record["connection"]) {
            let ended = record["type"] == "close";
            found.push(record);
            if ended {
                return found;
            }
        }
    }
}

/// A server in a process of its own.
fn server() -> Server {
    Server::start(Kind::Tungstenite)
}

fn follows_from_the_first_frame(agent: &str) {
    let server = server();
    let mut trace = tracing(agent, server.process.pid(), server.port, &[]);
    converse(server.port, "/second");
    let records = records(&mut trace, "/second");
    let told: Vec<String> = records
        .iter()
        .map(|record| {
            assert_eq!(record["role"], "server");
            assert_eq!(record["pid"], server.process.pid());
            let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            match record["type"].as_str() {
                Some("frame") => {
                    assert_eq!(record["fin"], true);
                    assert_eq!(record["rsv"], 0);
                    assert_eq!(record["masked"], record["direction"] == "received");
                    format!(
                        "{} {} {}",
                        word("direction"),
                        word("opcode"),
                        record["length"]
                    )
                }
                Some("handshake") => format!("handshake {} {}", word("result"), record["status"]),
                Some("close") => {
                    format!(
                        "close {} {} {}",
                        record["code"],
                        word("cause"),
                        word("initiator")
                    )
                }
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let expected = [
        "handshake accepted 101",
        "received text 5",
        "sent text 5",
        "received text 5",
        "sent text 5",
        "received text 5",
        "sent text 5",
        "received ping 4",
        "sent pong 4",
        "received close 2",
        "sent close 2",
        "close 1000 close_frame remote",
    ];
    assert_eq!(told, expected);
    let pong = records
        .iter()
        .find(|record| record["opcode"] == "pong")
        .unwrap();
    let rtt = pong["rtt_seconds"]
        .as_f64()
        .expect("a pong that answers a ping");
    assert!((0.0..1.0).contains(&rtt), "{rtt}");
}

#[test]
fn trace_follows_a_process_from_its_first_frame_through_the_agent() {
    if !can_run("trace_follows_a_process_from_its_first_frame_through_the_agent") {
        return;
    }
    let agent = Agent::start();
    follows_from_the_first_frame(&format!("http://127.0.0.1:{}", agent.port));
}

#[test]
fn trace_follows_a_process_from_its_first_frame_without_an_agent() {
    if !can_run("trace_follows_a_process_from_its_first_frame_without_an_agent") {
        return;
    }
    follows_from_the_first_frame(&format!("http://127.0.0.1:{}", port::free()));
}

#[test]
fn trace_ends_by_count_and_by_time() {
    if !can_run("trace_ends_by_count_and_by_time") {
        return;
    }
    let (agent, server) = (Agent::start(), server());
    let url = format!("http://127.0.0.1:{}", agent.port);
    let mut trace = tracing(&url, server.process.pid(), server.port, &["--count", "5"]);
    within(Duration::from_secs(10), || {
        converse(server.port, "/more");
        trace
            .wait(Duration::ZERO)
            .ok_or_else(|| "it goes on".to_owned())
    });
    // The first line was read while it began.
    let mut lines = 1;
    while trace.line_within(Duration::from_millis(200)).is_some() {
        lines += 1;
    }
    assert_eq!(lines, 5);
    assert!(trace.wait(Duration::ZERO).expect("it ended").success());

    let start = Instant::now();
    let ended = output(&["trace", "--agent", &url, "--for", "1s"]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert!(
        (1..6).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn trace_shows_only_what_was_asked_for() {
    if !can_run("trace_shows_only_what_was_asked_for") {
        return;
    }
    let (agent, server) = (Agent::start(), server());
    let url = format!("http://127.0.0.1:{}", agent.port);
    let pid = server.process.pid();
    let mut trace = tracing(&url, pid, server.port, &["--only", "ping,pong"]);
    converse(server.port, "/only");
    while let Some(line) = trace.line_within(Duration::from_secs(2)) {
        let record: Value = serde_json::from_str(&line).unwrap();
        assert!(
            record["opcode"] == "ping" || record["opcode"] == "pong",
            "{record}"
        );
    }
    // By path: the other connection does not show.
    let mut trace = tracing(&url, pid, server.port, &["--path", "/first"]);
    converse(server.port, "/other");
    converse(server.port, "/first");
    while let Some(line) = trace.line_within(Duration::from_secs(2)) {
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["path"], "/first", "{record}");
    }
}

#[test]
fn ls_shows_the_open_connections() {
    if !can_run("ls_shows_the_open_connections") {
        return;
    }
    let (agent, mut pair) = (Agent::start(), Pair::open());
    for side in Side::BOTH {
        pair.write(side, &side.frame(FIN | TEXT, b"hello"));
    }
    pair.settle();
    agent.check("before ls", &pair.services(None));
    let url = format!("http://127.0.0.1:{}", agent.port);
    let port = pair.port.to_string();
    let ls = |format: &str| {
        let ls = output(&["ls", "--agent", &url, "--port", &port, "--output", format]);
        assert!(ls.status.success(), "{}", text(&ls.stderr));
        text(&ls.stdout)
    };
    let rows: Vec<Value> = serde_json::from_str(&ls("json")).expect("a JSON array");
    assert_eq!(rows.len(), 2, "{rows:#?}");
    for row in &rows {
        assert_eq!(row["state"], "open");
        assert_eq!(row["port"], pair.port);
        assert_eq!(row["pid"], std::process::id());
        assert_eq!(row["handshake"]["path"], "/raw");
        assert_eq!(row["handshake"]["status"], 101);
        for direction in ["sent", "received"] {
            assert_eq!(row[direction]["text_messages"], 1);
            assert_eq!(row[direction]["payload_bytes"], 5);
        }
    }
    let roles: BTreeSet<_> = rows
        .iter()
        .map(|row| row["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, BTreeSet::from(["client", "server"]));
    assert_eq!(ls("csv").lines().count(), 3);
    assert!(ls("table").contains(&port));
    pair.close(Side::Client, 1000);
    within(Duration::from_secs(10), || {
        let rows = ls("json");
        if rows.trim() == "[]" {
            Ok(())
        } else {
            Err(rows)
        }
    });
}

#[test]
fn doctor_says_which_tap_would_be_used() {
    if !can_run("doctor_says_which_tap_would_be_used") {
        return;
    }
    let doctor = output(&["doctor", "--output", "json"]);
    assert!(doctor.status.success(), "{}", text(&doctor.stderr));
    let told: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert!(told.to_string().contains("packet"), "{told:#}");
    assert!(output(&["doctor"]).status.success());
}

#[test]
fn no_program_stays_loaded_however_the_agent_ends() {
    if !can_run("no_program_stays_loaded_however_the_agent_ends") {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut agent = Agent::start();
        let pair = Pair::open();
        agent.check("it counts", &pair.services(None));
        let held = bpf::held_by(agent.process().pid());
        assert!(held.len() >= 2, "it holds only the programs {held:?}");
        assert!(held.iter().all(|id| bpf::is_loaded(*id)));
        if let Some(cgroup) = cgroup_root() {
            let attached = bpf::attached(&cgroup).expect("root may ask");
            assert!(
                held.iter().any(|id| attached.contains(id)),
                "{held:?} of {attached:?}"
            );
        }
        agent.process().signal(signal);
        let status = agent
            .process()
            .wait(Duration::from_secs(10))
            .expect("it ends");
        if signal != libc::SIGKILL {
            assert_eq!(status.code(), Some(0), "{}", agent.process().errors());
        }
        // The kernel lets go of them in its own time.
        within(Duration::from_secs(10), || {
            let left: Vec<_> = held.iter().filter(|id| bpf::is_loaded(**id)).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("signal {signal}: {left:?} stay"))
            }
        });
    }
}

/// Where cgroup2 is mounted with its real root.
fn cgroup_root() -> Option<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(line.split(' ').nth(1)?.into())
}

#[test]
fn without_privileges_one_line_names_the_capability() {
    if !can_run("without_privileges_one_line_names_the_capability") {
        return;
    }
    if find("setpriv").is_none() {
        return skip(
            "without_privileges_one_line_names_the_capability",
            "no setpriv",
        );
    }
    // Where nobody may read it.
    let folder = Path::new("/tmp").join(format!("wsmon-e2e-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(wsmon().unwrap(), folder.join("wsmon")).unwrap();
    let listen = format!("127.0.0.1:{}", port::free());
    let ended = Command::new("timeout")
        .args([
            "20",
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
        ])
        .args(["--inh-caps", "-all", "--bounding-set", "-all"])
        .arg(folder.join("wsmon"))
        .args(["agent", "--listen", &listen])
        .current_dir("/")
        .output();
    std::fs::remove_dir_all(&folder).unwrap();
    let ended = ended.expect("setpriv starts");
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("CAP_"), "{said}");
    assert!(ended.stdout.is_empty(), "{}", text(&ended.stdout));
}

#[test]
fn two_agents_at_once_count_the_same() {
    if !can_run("two_agents_at_once_count_the_same") {
        return;
    }
    let agents = [Agent::start(), Agent::start()];
    let mut pair = Pair::open();
    for side in Side::BOTH {
        pair.write(side, &side.frame(FIN | TEXT, &[b'x'; 300]).repeat(100));
    }
    pair.settle();
    pair.close(Side::Client, 1000);
    let ends = ("1000.close_frame.local", "1000.close_frame.remote");
    for agent in &agents {
        agent.check("either agent", &pair.services(Some(ends)));
    }
    // The one that stays is not disturbed when the other goes.
    let [stays, goes] = agents;
    let mut pair = Pair::open();
    pair.write(Side::Client, &Side::Client.frame(FIN | TEXT, b"before"));
    drop(goes);
    pair.write(Side::Client, &Side::Client.frame(FIN | TEXT, b"after"));
    pair.settle();
    stays.check("the agent that stays", &pair.services(None));
}

#[test]
fn the_port_of_another_agent_is_a_clear_error() {
    if !can_run("the_port_of_another_agent_is_a_clear_error") {
        return;
    }
    let agent = Agent::start();
    let listen = format!("127.0.0.1:{}", agent.port);
    let ended = output(&["agent", "--listen", &listen]);
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stderr).contains(&agent.port.to_string()),
        "{}",
        text(&ended.stderr)
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    if !can_run("wrong_usage_is_exit_code_2") {
        return;
    }
    for arguments in [
        &["agent", "--no-such-flag"][..],
        &["no-such-command"],
        &["trace", "--count", "x"],
    ] {
        let ended = output(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn checkers_find_nothing_to_say_about_the_metrics() {
    let name = "checkers_find_nothing_to_say_about_the_metrics";
    if !can_run(name) {
        return;
    }
    if find("promtool").is_none() {
        return skip(name, "promtool is not installed");
    }
    let (agent, mut pair) = (Agent::start(), Pair::open());
    pair.close(Side::Client, 1000);
    let ends = ("1000.close_frame.local", "1000.close_frame.remote");
    agent.check("there is something on the page", &pair.services(Some(ends)));
    let folder = Scratch::new("promtool");
    // promtool reads the text format only; for OpenMetrics there is the reference parser.
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let mut checks = vec![("", promtool)];
    if let Some(missing) = Kind::Websockets.missing() {
        skip(name, &format!("OpenMetrics: {missing} is not installed"));
    } else {
        let accept = "application/openmetrics-text; version=1.0.0";
        checks.push((accept, python_script("check_openmetrics.py")));
    }
    for (accept, mut check) in checks {
        let page = agent.text("/metrics", accept);
        assert_eq!(
            page.trim_end().ends_with("# EOF"),
            !accept.is_empty(),
            "{accept}"
        );
        let file = folder.path().join("page");
        std::fs::write(&file, page).unwrap();
        let checked = check
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let said = text(&checked.stdout) + &text(&checked.stderr);
        assert!(
            checked.status.success() && said.is_empty(),
            "{check:?}:\n{said}"
        );
    }
}
