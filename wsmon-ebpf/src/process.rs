//! Which process uses a socket: the BTF tracepoints `sock:sock_send_length` and
//! `sock:sock_recv_length` (Linux 6.3 and newer), which run in the caller's context.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_probe_read_kernel_str,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ffi::c_void;
use wsmon_common::slot::Slot;

use crate::{
    emit,
    maps::{SLOTS, socket_ref},
    offsets::{DENTRY_NAME, FILE_DENTRY, MISSING, MM_EXE_FILE, TASK_MM, read},
};

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
            note_executable(&mut *slot);
            // Soon, as the process may not live long.
            emit::state(of, (*slot).state, false);
        }
    }
}

/// Notes the file name of the current process's executable: by the time that user space looks,
/// the process may be gone.
#[inline(always)]
fn note_executable(slot: &mut Slot) {
    let offsets = [
        TASK_MM.load(),
        MM_EXE_FILE.load(),
        FILE_DENTRY.load(),
        DENTRY_NAME.load(),
    ];
    if offsets.contains(&MISSING) {
        return;
    }
    // SAFETY: the offsets are those of pointers in the structures that one leads to the next; the
    // kernel checks each access. The helper ends the name with a zero.
    unsafe {
        let task: *const c_void = bpf_get_current_task_btf().cast();
        let mm: *const c_void = read(task, offsets[0]);
        if mm.is_null() {
            return;
        }
        let file: *const c_void = read(mm, offsets[1]);
        if file.is_null() {
            return;
        }
        let dentry: *const c_void = read(file, offsets[2]);
        if dentry.is_null() {
            return;
        }
        let name: *const c_void = read(dentry, offsets[3]);
        let to = (&raw mut slot.executable).cast();
        bpf_probe_read_kernel_str(to, size_of_val(&slot.executable) as u32, name);
    }
}
