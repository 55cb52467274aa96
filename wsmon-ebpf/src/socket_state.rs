//! The end of connections: the BTF tracepoint `sock:inet_sock_set_state`, which runs once with
//! the state CLOSE for each connection (Linux 4.16 to 6.18).

use aya_ebpf::{
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_skc_to_tcp_sock},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ffi::c_void;
use wsmon_common::slot::{STATE_CANDIDATE, STATE_FREE, STATE_HANDSHAKE, Slot};

use crate::{
    emit,
    maps::{clear_socket_ref, connection, port_pair, socket_ref},
    offsets::{
        MISSING, SKC_DPORT, SKC_NUM, SOCK_ERR, TASK_FLAGS, TCP_SND_NXT, TCP_WRITE_SEQ, read,
    },
    packet::receive,
};

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;
/// `current->flags`: the task is exiting (include/linux/sched.h).
const PF_EXITING: u32 = 0x4;

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    let new: i32 = ctx.arg(2);
    if new == TCP_ESTABLISHED || new == TCP_SYN_SENT {
        forget_socket(sk);
    }
    // SAFETY: a socket, as the tracepoint's first argument.
    let Some(of) = (unsafe { socket_ref(sk) }) else {
        return 0;
    };
    if new == TCP_SYN_SENT {
        // A socket that was disconnected connects again: what it was is another connection.
        // SAFETY: as above.
        unsafe { clear_socket_ref(sk) };
        return 0;
    }
    let Some((slot, cursor)) = connection(of.slot) else {
        return 0;
    };
    // SAFETY: the maps' values live as long as the programs.
    let (slot, cursor) = unsafe { (&mut *slot, &mut *cursor) };
    if slot.generation != of.generation || slot.state == STATE_FREE {
        return 0;
    }
    if is_exiting(slot) {
        slot.process_exit = 1;
    }
    if new != TCP_CLOSE {
        return 0;
    }
    receive::end(cursor);
    if slot.end_ns != 0 {
        return 0;
    }
    // SAFETY: a socket, as the tracepoint's first argument; the offsets are those of the fields.
    unsafe {
        if SOCK_ERR.load() != MISSING {
            slot.error = read(sk, SOCK_ERR.load());
        }
        let (write_seq, snd_nxt) = (TCP_WRITE_SEQ.load(), TCP_SND_NXT.load());
        if write_seq != MISSING && snd_nxt != MISSING {
            let tcp = bpf_skc_to_tcp_sock(sk);
            if !tcp.is_null() {
                let written: u32 = read(tcp.cast(), write_seq);
                let sent: u32 = read(tcp.cast(), snd_nxt);
                let unsent = written.wrapping_sub(sent) as i32;
                // A FIN takes a sequence number too.
                slot.unsent = if unsent > 0 { unsent as u64 } else { 0 };
            }
        }
    }
    slot.end_ns = emit::now();
    emit::state(of, slot.state, true);
    0
}

/// Whether this program runs, and can tell which connection a socket has: without it nothing may
/// be remembered by a socket's address.
#[inline(always)]
pub fn forgets_reused_sockets() -> bool {
    SKC_NUM.load() != MISSING && SKC_DPORT.load() != MISSING
}

/// The socket begins another connection, of which nothing is known.
#[inline(always)]
fn forget_socket(sk: *mut c_void) {
    if !forgets_reused_sockets() {
        return;
    }
    // SAFETY: a socket, as the tracepoint's first argument; the offsets are those of the fields.
    // The table's entries live as long as the programs.
    unsafe {
        let local: u16 = read(sk, SKC_NUM.load());
        let remote: u16 = read(sk, SKC_DPORT.load());
        if let Some(pair) = port_pair(u32::from(local), u32::from(u16::from_be(remote)))
            && (*pair).socket == sk as u64
        {
            (*pair).socket = 0;
        }
    }
}

/// Whether the process that owns the connection is exiting, and this is its doing.
#[inline(always)]
fn is_exiting(slot: &Slot) -> bool {
    if TASK_FLAGS.load() == MISSING
        || slot.state == STATE_CANDIDATE
        || slot.state == STATE_HANDSHAKE
    {
        return false;
    }
    // SAFETY: no preconditions; the offset is that of the field.
    unsafe {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let flags: u32 = read(bpf_get_current_task_btf().cast(), TASK_FLAGS.load());
        slot.pid == tgid && flags & PF_EXITING != 0
    }
}
