//! Which process uses a socket: the BTF tracepoints `sock:sock_send_length` and
//! `sock:sock_recv_length` (Linux 6.3 and newer), which run in the caller's context.

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::maps::{SLOTS, socket_ref};

/// `TP_PROTO(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub fn process_send(ctx: BtfTracePointContext) -> i32 {
    note_process(&ctx);
    0
}

/// `TP_PROTO(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn process_receive(ctx: BtfTracePointContext) -> i32 {
    note_process(&ctx);
    0
}

#[inline(always)]
fn note_process(ctx: &BtfTracePointContext) {
    // SAFETY: a socket, as the tracepoint's first argument.
    let Some(of) = (unsafe { socket_ref(ctx.arg(0)) }) else {
        return;
    };
    let Some(slot) = SLOTS.get_ptr_mut(of.slot) else {
        return;
    };
    // SAFETY: the map's values live as long as the programs.
    unsafe {
        if (*slot).generation == of.generation && (*slot).pid == 0 {
            (*slot).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        }
    }
}
