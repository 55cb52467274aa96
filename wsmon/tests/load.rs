//! The kernel programs load, attach and follow a handshake for real. Needs root; says so and
//! returns without.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use wsmon::kernel::{Kernel, Options};
use wsmon_common::slot::{ROLE_CLIENT, ROLE_SERVER, STATE_OPEN, Slot};

#[test]
fn the_packet_tap_follows_a_handshake_and_frames_on_both_sockets() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!(
            "SKIPPED the_packet_tap_follows_a_handshake_and_frames_on_both_sockets: needs root"
        );
        return;
    }
    let options = Options {
        slots: 64,
        buffers: 4,
        ..Options::default()
    };
    let (kernel, _ring) =
        Kernel::load(&options).unwrap_or_else(|error| panic!("{error:#}\n{error:?}"));

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("loopback connects");
    let (mut server, _) = listener.accept().expect("the client is there");
    client
        .write_all(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )
        .expect("the client writes");
    let mut buffer = [0; 1024];
    let _ = server.read(&mut buffer).expect("the server reads");
    server
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi\x82\x00",
        )
        .expect("the server writes");
    let _ = client.read(&mut buffer).expect("the client reads");
    client
        .write_all(b"\x88\x82\0\0\0\0\x03\xe8")
        .expect("the client writes");
    let _ = server.read(&mut buffer).expect("the server reads");

    let side = |role: u8| find(&kernel, port, role);
    let (served, asked) = (side(ROLE_SERVER), side(ROLE_CLIENT));
    for slot in [&served, &asked] {
        assert_eq!(slot.state, STATE_OPEN);
        assert_eq!(slot.status, 101);
        assert_eq!(slot.pid, std::process::id());
    }
    for (name, direction) in [
        ("server sent", &served.sent),
        ("client received", &asked.received),
    ] {
        assert_eq!(direction.frames, [0, 1, 1, 0, 0, 0, 0], "{name}");
        assert_eq!(
            (direction.payload_passed(), direction.messages),
            (2, [1, 1]),
            "{name}"
        );
    }
    for (name, direction) in [
        ("client sent", &asked.sent),
        ("server received", &served.received),
    ] {
        assert_eq!(direction.frames, [0, 0, 0, 1, 0, 0, 0], "{name}");
        assert_eq!(direction.close_code, 1000, "{name}");
        assert_eq!(
            (direction.violations, direction.unsynced_passed()),
            (0, 0),
            "{name}"
        );
    }

    drop((client, server));
    let deadline = Instant::now() + Duration::from_secs(5);
    while find(&kernel, port, ROLE_SERVER).end_ns == 0 {
        assert!(
            Instant::now() < deadline,
            "the end of the connection was not seen"
        );
        std::thread::yield_now();
    }
}

fn find(kernel: &Kernel, port: u16, role: u8) -> Slot {
    (0..kernel.slots())
        .filter_map(|index| kernel.slot(index))
        .find(|slot| {
            let server_port = if slot.role == ROLE_SERVER {
                slot.local_port
            } else {
                slot.remote_port
            };
            slot.role == role && server_port == port
        })
        .unwrap_or_else(|| panic!("no slot with role {role} for port {port}"))
}
