//! The program as it is started, without an agent.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn wsmon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsmon"));
    command
        .args(arguments)
        .env_remove("WSMON_AGENT")
        .stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    wsmon(arguments).output().unwrap()
}

#[test]
fn the_demo_runs_for_its_time_and_leaves_nothing_behind() {
    let start = Instant::now();
    let demo = output(&["demo", "--port", "0", "--for", "2s"]);
    let shown = String::from_utf8(demo.stdout).unwrap();
    assert!(demo.status.success(), "{shown}");
    assert!(start.elapsed() >= Duration::from_secs(2), "{shown}");
    let pids: Vec<&str> = shown
        .split("(pid ")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    assert_eq!(pids.len(), 2, "{shown}");
    for pid in pids {
        assert!(
            !std::path::Path::new("/proc").join(pid).exists(),
            "{pid} is still there"
        );
    }
}

#[test]
fn without_an_agent_ls_fails_and_says_how_to_start_one() {
    // Port 1 is nobody's.
    let ls = output(&["ls", "--agent", "http://127.0.0.1:1"]);
    let said = String::from_utf8(ls.stderr).unwrap();
    assert_eq!(ls.status.code(), Some(1), "{said}");
    assert!(said.contains("sudo wsmon agent"), "{said}");
    assert!(ls.stdout.is_empty());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["trace", "--only", "nonsense"][..],
        &["ls", "--remote", "nowhere"],
        &[],
    ] {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut demo = wsmon(&["doctor"]);
    let mut child = demo.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    // Whatever doctor finds, it is not heard.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
