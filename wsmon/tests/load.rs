//! The kernel programs load and attach for real. Needs root; says so and passes without.

use std::{fs, fs::File, path::PathBuf, thread, time::Duration};

use aya::{
    Ebpf,
    maps::Array,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};

#[test]
fn the_packet_tap_loads_attaches_and_sees_traffic() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED the_packet_tap_loads_attaches_and_sees_traffic: needs root");
        return;
    }
    let cgroup = File::open(cgroup2_root()).expect("the cgroup2 root opens");
    let mut ebpf = Ebpf::load(wsmon::kernel::OBJECT).expect("the object loads");
    for (name, direction) in [
        ("packet_egress", CgroupSkbAttachType::Egress),
        ("packet_ingress", CgroupSkbAttachType::Ingress),
    ] {
        let program: &mut CgroupSkb = ebpf
            .program_mut(name)
            .unwrap_or_else(|| panic!("the object has the program {name}"))
            .try_into()
            .expect("it is a cgroup_skb program");
        program.load().expect("the verifier accepts it");
        program
            .attach(&cgroup, direction, CgroupAttachMode::Single)
            .expect("it attaches to the cgroup2 root");
    }
    let packets: Array<_, u64> =
        Array::try_from(ebpf.map("PACKETS").expect("the map is there")).expect("it is an array");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let _client = std::net::TcpStream::connect(listener.local_addr().expect("it is bound"))
        .expect("loopback connects");
    thread::sleep(Duration::from_millis(50));

    for direction in [0, 1] {
        let seen = packets.get(&direction, 0).expect("the map reads");
        assert!(seen > 0, "no packet was counted in direction {direction}");
    }
}

fn cgroup2_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields[2] == "cgroup2")
        .map(|fields| PathBuf::from(fields[1]))
        .expect("cgroup2 is mounted")
}
