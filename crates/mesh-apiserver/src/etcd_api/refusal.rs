//! Refusals with etcd's own codes and texts (etcd `api/v3rpc/rpctypes/error.go`), since clients compare them.

use kvstore::store::{CompactError, DiskFailure, LeaseError, ReadError, WriteError};
use tonic::Status;

pub(super) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(super) fn key_not_found() -> Status {
    Status::invalid_argument("etcdserver: key not found")
}

pub(super) fn value_provided() -> Status {
    Status::invalid_argument("etcdserver: value is provided")
}

pub(super) fn lease_provided() -> Status {
    Status::invalid_argument("etcdserver: lease is provided")
}

pub(super) fn too_many_operations() -> Status {
    Status::invalid_argument("etcdserver: too many operations in txn request")
}

pub(super) fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

pub(super) fn request_too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

pub(super) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub(super) fn lease(error: LeaseError) -> Status {
    match error {
        LeaseError::NotFound { .. } => lease_not_found(),
        LeaseError::Exists { .. } => Status::failed_precondition("etcdserver: lease already exists"),
        LeaseError::TooLong { .. } => Status::out_of_range("etcdserver: too large lease TTL"),
        LeaseError::TooMany => Status::resource_exhausted("etcdserver: too many requests"),
        LeaseError::Write(cause) => write(cause),
    }
}

/// As Go's gRPC says it.
pub(super) fn response_too_large(found: usize, most: usize) -> Status {
    Status::resource_exhausted(format!("grpc: trying to send message larger than max ({found} vs. {most})"))
}

/// The text is etcd's; a reason of ours follows it.
pub(super) fn permission_denied(reason: Option<&str>) -> Status {
    match reason {
        None => Status::permission_denied(PERMISSION_DENIED),
        Some(reason) => Status::permission_denied(format!("{PERMISSION_DENIED}: {reason}")),
    }
}

pub(super) fn read(error: ReadError) -> Status {
    Status::out_of_range(match error {
        ReadError::Compacted { .. } => "etcdserver: mvcc: required revision has been compacted",
        ReadError::Future { .. } => "etcdserver: mvcc: required revision is a future revision",
    })
}

/// The disk failed: nothing was acknowledged. A full one is what etcd calls a space that is exceeded.
pub(super) fn write(cause: WriteError) -> Status {
    match &cause {
        WriteError::Disk(failure) if failure.is_full() => {
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
        }
        WriteError::Abandoned => Status::internal(format!("etcdserver: {cause}")),
        WriteError::Disk(_) | WriteError::Closed | WriteError::Mirror => {
            Status::unavailable(format!("etcdserver: {cause}"))
        }
    }
}

pub(super) fn unsynced(cause: DiskFailure) -> Status {
    write(cause.into())
}

pub(super) fn compact(error: CompactError) -> Status {
    match error {
        CompactError::Revision(error) => read(error),
        CompactError::Write(error) => write(error),
    }
}

const PERMISSION_DENIED: &str = "etcdserver: permission denied";
