//! Socket load balancing in the kernel: a connection to a global service goes to one of its backends.
//!
//! The programs hang on a cgroup and run when a process in it calls `connect`, `sendmsg`, `recvmsg` or
//! `getpeername`. They change the address in the call, never a packet:
//!
//! ```text
//!   connect, sendmsg      VIP -> services -> slots -> backends -> backend    (forward)
//!                                      `-> reverse[socket, backend] = VIP
//!   recvmsg, getpeername  backend -> reverse -> VIP                          (backward)
//! ```
//!
//! What is not a frontend of ours passes untouched after one lookup. `hook/` has one file a program; the way
//! there and back, the choice and the access to the kernel's structure have a module each.
#![no_std]
#![no_main]

mod backward;
mod choose;
mod count;
mod forward;
mod hook;
mod maps;
mod sock_addr;

/// Verdict of a sock_addr program: go on with the call.
const PASS: i32 = 1;
/// Verdict of a sock_addr program: fail the call, with the error set by `bpf_set_retval`.
const REFUSE: i32 = 0;

/// Read by the loader. None of the kernel functions that we call asks for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the verifier refuses a program that could come here, since it would never end.
    loop {}
}
