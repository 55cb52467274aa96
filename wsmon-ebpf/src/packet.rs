//! Tap `packet`: `cgroup_skb` on both directions.

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, cgroup_skb},
    programs::SkBuffContext,
};

/// The only verdict: wsmon never drops.
const PASS: i32 = 1;

const EGRESS: u32 = 0;
const INGRESS: u32 = 1;

#[btf_map]
static PACKETS: Array<u64, 2> = Array::new();

#[cgroup_skb(egress)]
pub fn packet_egress(_ctx: SkBuffContext) -> i32 {
    count(EGRESS);
    PASS
}

#[cgroup_skb(ingress)]
pub fn packet_ingress(_ctx: SkBuffContext) -> i32 {
    count(INGRESS);
    PASS
}

fn count(direction: u32) {
    if let Some(packets) = PACKETS.get_ptr_mut(direction) {
        // SAFETY: the map owns the value for as long as it exists; a lost update is harmless here.
        unsafe { *packets += 1 };
    }
}
