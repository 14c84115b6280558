//! The `bpf(2)` commands that aya 0.14 does not offer. Structures as in the kernel's include/uapi/linux/bpf.h.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands, `enum bpf_cmd`.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `enum bpf_link_type`: a link to a cgroup.
pub(crate) const LINK_TYPE_CGROUP: u32 = 3;

/// The head of `struct bpf_link_info`, with the part for cgroup links.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    /// `enum bpf_link_type`.
    pub(crate) link_type: u32,
    /// The kernel's number for the link.
    pub(crate) id: u32,
    /// The kernel's number for the program that the link runs now.
    pub(crate) program_id: u32,
    _pad: u32,
    /// Inode number of the cgroup; 0 when the cgroup is gone.
    pub(crate) cgroup_id: u64,
    /// `enum bpf_attach_type`.
    pub(crate) attach_type: u32,
    _pad2: u32,
}

/// The part of `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The part of `union bpf_attr` for BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// The part of `union bpf_attr` for BPF_LINK_DETACH.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Opens the object pinned at a path.
pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: on success BPF_OBJ_GET returns a new descriptor that nobody else owns.
    #[expect(unsafe_code, reason = "takes ownership of the descriptor that the kernel returned")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the kernel what a link is. Fails with EINVAL-like errors if the descriptor is no link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoByFd {
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        info_len: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Exchanges the program behind a link, in one step for all processes of the cgroup.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_program_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(|_| ())
}

/// Takes the program behind a link off its cgroup now, whoever else holds the link.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetach { link_fd: link.as_raw_fd().cast_unsigned() };
    bpf(BPF_LINK_DETACH, &mut attr).map(|_| ())
}

/// Calls `bpf(2)` with the part of `union bpf_attr` that belongs to the command.
fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is a live, initialised repr(C) value without uninitialised padding and the size given is its
    // own, so the kernel reads no further; what a command writes goes through pointers inside `attr`, which the
    // callers above take from live values (`info` with its true length, a NUL-terminated path).
    #[expect(unsafe_code, reason = "aya offers no way to these commands")]
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
