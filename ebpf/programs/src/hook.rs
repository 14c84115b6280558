//! The programs, one file each. A function carries the name that the loader attaches it by.

mod connect4;
mod connect6;
mod getpeername4;
mod getpeername6;
mod recvmsg4;
mod recvmsg6;
mod sendmsg4;
mod sendmsg6;
