//! Offsets in the running kernel's structures, in bytes. User space finds them in its BTF and
//! sets them before the programs are loaded, so the verifier knows them as constants.

use aya_ebpf::Global;

/// The field is not there, or there is no BTF: what needs it is left out.
pub const MISSING: u32 = u32::MAX;

/// `struct sock`: `__sk_common.skc_num`, the local port in host byte order.
#[unsafe(no_mangle)]
pub static SKC_NUM: Global<u32> = Global::new(MISSING);
/// `struct sock`: `__sk_common.skc_dport`, the remote port in network byte order.
#[unsafe(no_mangle)]
pub static SKC_DPORT: Global<u32> = Global::new(MISSING);
/// `struct sock`: `sk_err`.
#[unsafe(no_mangle)]
pub static SOCK_ERR: Global<u32> = Global::new(MISSING);
/// `struct tcp_sock`: `write_seq`.
#[unsafe(no_mangle)]
pub static TCP_WRITE_SEQ: Global<u32> = Global::new(MISSING);
/// `struct tcp_sock`: `snd_nxt`.
#[unsafe(no_mangle)]
pub static TCP_SND_NXT: Global<u32> = Global::new(MISSING);
/// `struct tcp_sock`: `rcv_wup`.
#[unsafe(no_mangle)]
pub static TCP_RCV_WUP: Global<u32> = Global::new(MISSING);
/// `struct tcp_sock`: `rcv_wnd`.
#[unsafe(no_mangle)]
pub static TCP_RCV_WND: Global<u32> = Global::new(MISSING);
/// `struct sk_buff`: the byte that holds the bit `csum_valid`.
#[unsafe(no_mangle)]
pub static SKB_CSUM_VALID: Global<u32> = Global::new(MISSING);
/// Which bit of that byte.
#[unsafe(no_mangle)]
pub static SKB_CSUM_VALID_MASK: Global<u32> = Global::new(0);
/// `struct task_struct`: `flags`.
#[unsafe(no_mangle)]
pub static TASK_FLAGS: Global<u32> = Global::new(MISSING);

/// `struct task_struct`: `mm`.
#[unsafe(no_mangle)]
pub static TASK_MM: Global<u32> = Global::new(MISSING);
/// `struct mm_struct`: `exe_file`.
#[unsafe(no_mangle)]
pub static MM_EXE_FILE: Global<u32> = Global::new(MISSING);
/// `struct file`: `f_path.dentry`.
#[unsafe(no_mangle)]
pub static FILE_DENTRY: Global<u32> = Global::new(MISSING);
/// `struct dentry`: `d_name.name`.
#[unsafe(no_mangle)]
pub static DENTRY_NAME: Global<u32> = Global::new(MISSING);

/// Reads a field of a kernel structure.
///
/// # Safety
///
/// `base` is a pointer that the verifier knows by its BTF type, and `offset` is that of a field
/// of type `T` in it: the verifier refuses anything else.
#[inline(always)]
pub unsafe fn read<T: Copy>(base: *const core::ffi::c_void, offset: u32) -> T {
    // SAFETY: by the contract of this function.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast()) }
}
