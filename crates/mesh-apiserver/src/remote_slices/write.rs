//! One write to the API server, and what became of it.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use mesh_runtime::Chain;

use super::plan::Write;

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// What the API server, or the connection, said.
    pub text: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The slice is not as it was known: it will be known better in a moment.
    Conflict,
    /// Another object has the name.
    NameTaken,
    /// 422 or the like: the API server does not take such a slice.
    Refused,
    /// 403 or 401: for this hub, or for the whole namespace, which may be about to go.
    Denied,
    /// It cannot at present, or does not answer: no other write will succeed.
    Unavailable,
}

/// Writes, as the field manager of its own.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes a write; gives the slice as it then is, `None` if it is gone. What is gone already is deleted.
    pub async fn write(&self, namespace: &str, write: &Write) -> Result<Option<EndpointSlice>, Failure> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let made = match write {
            Write::Create(slice) => api.create(&params, slice).await.map(Some),
            Write::Update(slice) => api.replace(write.name(), &params, slice).await.map(Some),
            Write::Delete { name, uid, revision, .. } => {
                let preconditions = Preconditions { uid: uid.clone(), resource_version: revision.clone() };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                api.delete(name, &params).await.map(|_| None)
            }
        };
        match made {
            Ok(slice) => Ok(slice),
            Err(kube::Error::Api(status)) if status.code == 404 && matches!(write, Write::Delete { .. }) => {
                Ok(None)
            }
            Err(error) => Err(Failure::of(&error)),
        }
    }
}

impl Failure {
    fn of(error: &kube::Error) -> Self {
        let (class, text) = match error {
            kube::Error::Api(status) => {
                let class = match status.code {
                    409 if status.reason == "AlreadyExists" => Class::NameTaken,
                    // 404: the slice, or its namespace, is gone.
                    404 | 409 => Class::Conflict,
                    401 | 403 => Class::Denied,
                    408 | 429 | 500.. => Class::Unavailable,
                    _ => Class::Refused,
                };
                (class, format!("{} {}", status.code, status.message))
            }
            error => (Class::Unavailable, Chain(error).to_string()),
        };
        Self { class, text }
    }
}

/// Who owns the fields, as the API server notes it.
const MANAGER: &str = "isthmus-remote-slices";
