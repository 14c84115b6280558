//! Who asks, and what the stored roles let them do.
//!
//! The one user of the kubeconfig may do everything. A service account, whose token `serviceaccounts/token` gives, may do
//! what the roles say that are bound to it, to its groups, in its namespace or everywhere; discovery is open to all, as by
//! `system:discovery`. Not done: aggregated cluster roles, other users, and the rule that nobody may grant what they have
//! not.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::failure::Failure;
use super::kinds::KindId;
use super::names;
use super::request::{Address, Verb};
use super::store::{Key, State};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The user of the kubeconfig, who may do everything.
    Lab,
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The account for which the token was made; another one of that name is another user.
        uid: String,
    },
}

/// The tokens of service accounts; their number is bounded.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<BTreeMap<String, User>>);

/// Most tokens that are known at a time.
const TOKEN_LIMIT: usize = 10_000;

const RBAC: &str = "rbac.authorization.k8s.io";

impl User {
    /// Its name in messages and bindings.
    pub fn name(&self) -> String {
        match self {
            Self::Lab => "lab".to_owned(),
            Self::ServiceAccount { namespace, name, .. } => {
                format!("system:serviceaccount:{namespace}:{name}")
            }
        }
    }

    fn is_subject(&self, subject: &Value, binding_namespace: &str) -> bool {
        let Self::ServiceAccount { namespace, name, .. } = self else { return false };
        let text = |field: &str| subject[field].as_str().unwrap_or_default();
        match text("kind") {
            "ServiceAccount" => {
                let place = if text("namespace").is_empty() { binding_namespace } else { text("namespace") };
                place == namespace && text("name") == name
            }
            "User" => text("name") == self.name(),
            "Group" => {
                let mine = format!("system:serviceaccounts:{namespace}");
                ["system:authenticated", "system:serviceaccounts", &mine].contains(&text("name"))
            }
            _ => false,
        }
    }
}

impl Tokens {
    /// Makes a token for an account.
    pub fn make(&self, user: User) -> Result<String, Failure> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKEN_LIMIT {
            return Err(Failure::new(429, "TooManyRequests", "too many tokens"));
        }
        let token = names::token();
        tokens.insert(token.clone(), user);
        Ok(token)
    }

    /// Whose token this is. Fails with 401 if it is nobody's, or if the account is gone.
    pub fn user(&self, token: &str, state: &State) -> Result<User, Failure> {
        let user = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let user = user.ok_or_else(Failure::unauthorized)?;
        if let User::ServiceAccount { namespace, name, uid } = &user {
            let accounts = KindId { group: String::new(), plural: "serviceaccounts".to_owned() };
            let key = Key { namespace: namespace.clone(), name: name.clone() };
            let account = state.get(&accounts, &key).filter(|account| account.meta("uid") == Some(uid));
            account.ok_or_else(Failure::unauthorized)?;
        }
        Ok(user)
    }
}

/// Fails with 403 unless a role lets the user do this. O(bindings and their rules).
pub fn check(
    state: &State,
    user: &User,
    verb: &str,
    address: &Address,
    selected_name: Option<&str>,
) -> Result<(), Failure> {
    let named = address.name.as_deref().or(selected_name);
    let is_allowed =
        |rules: &Value| rules.as_array().into_iter().flatten().any(|rule| covers(rule, verb, address, named));
    let everywhere = bindings(state, "clusterrolebindings", None)
        .into_iter()
        .filter(|binding| is_bound(user, binding, ""))
        .any(|binding| is_allowed(&rules(state, &binding, "")));
    let here = || {
        let Some(namespace) = address.namespace.as_deref() else { return false };
        bindings(state, "rolebindings", Some(namespace))
            .into_iter()
            .filter(|binding| is_bound(user, binding, namespace))
            .any(|binding| is_allowed(&rules(state, &binding, namespace)))
    };
    if *user == User::Lab || everywhere || here() { Ok(()) } else { Err(denied(user, verb, address)) }
}

/// What the API server says to a user who may not.
pub fn denied(user: &User, verb: &str, address: &Address) -> Failure {
    let Address { group, plural, namespace, name, subresource, .. } = address;
    let resource = subresource.as_ref().map_or_else(|| plural.clone(), |below| format!("{plural}/{below}"));
    let place = match namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let group_suffix = if group.is_empty() { String::new() } else { format!(".{group}") };
    let name = name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    Failure::forbidden(format!(
        "{plural}{group_suffix}{name} is forbidden: User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}",
        user.name()
    ))
}

/// The verb of RBAC; applying is patching.
pub fn word(verb: Verb) -> &'static str {
    if verb == Verb::Apply { "patch" } else { verb.word() }
}

fn bindings(state: &State, plural: &str, namespace: Option<&str>) -> Vec<Value> {
    let id = KindId { group: RBAC.to_owned(), plural: plural.to_owned() };
    let objects = state.objects(&id);
    State::select(&objects, namespace).map(|(_, object)| object.value.clone()).collect()
}

fn is_bound(user: &User, binding: &Value, namespace: &str) -> bool {
    let subjects = binding["subjects"].as_array();
    subjects.into_iter().flatten().any(|subject| user.is_subject(subject, namespace))
}

/// The rules of the role that a binding names.
fn rules(state: &State, binding: &Value, namespace: &str) -> Value {
    let is_role = binding["roleRef"]["kind"] == "Role";
    let plural = if is_role { "roles" } else { "clusterroles" };
    let namespace = if is_role { namespace.to_owned() } else { String::new() };
    let key = Key { namespace, name: binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned() };
    let id = KindId { group: RBAC.to_owned(), plural: plural.to_owned() };
    state.get(&id, &key).map(|role| role.value["rules"].clone()).unwrap_or_default()
}

fn covers(rule: &Value, verb: &str, address: &Address, named: Option<&str>) -> bool {
    let has = |field: &str, wanted: &[&str]| {
        let listed = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        listed.into_iter().any(|found| found == "*" || wanted.contains(&found))
    };
    let Address { group, plural, subresource, .. } = address;
    let resources = match subresource {
        None => vec![plural.clone()],
        Some(below) => vec![format!("{plural}/{below}"), format!("*/{below}")],
    };
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    has("verbs", &[verb])
        && has("apiGroups", &[group])
        && has("resources", &resources)
        && names.is_none_or(|names| named.is_some_and(|named| names.contains(&json!(named))))
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;

    fn user() -> User {
        let (namespace, name) = ("isthmus".to_owned(), "hub".to_owned());
        User::ServiceAccount { namespace, name, uid: String::new() }
    }

    fn address(plural: &str, namespace: Option<&str>, name: Option<&str>) -> Address {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Address {
            plural: plural.to_owned(),
            namespace: owned(namespace),
            name: owned(name),
            ..Address::default()
        }
    }

    fn put(state: &mut State, plural: &str, namespace: &str, value: Value) {
        let id = KindId { group: RBAC.to_owned(), plural: plural.to_owned() };
        let name = value["metadata"]["name"].as_str().expect("named").to_owned();
        state.put(&id, Key { namespace: namespace.to_owned(), name }, value);
    }

    fn store() -> Store {
        let store = Store::new(10);
        let account = json!([{"kind": "ServiceAccount", "namespace": "isthmus", "name": "hub"}]);
        store.with(|state| {
            put(
                state,
                "clusterroles",
                "",
                json!({"metadata": {"name": "reader"}, "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ca"], "verbs": ["*"]}]}),
            );
            put(
                state,
                "clusterroles",
                "",
                json!({"metadata": {"name": "writer"}, "rules": [
                {"apiGroups": ["*"], "resources": ["*", "*/status"], "verbs": ["update"]}]}),
            );
            put(
                state,
                "clusterrolebindings",
                "",
                json!({"metadata": {"name": "a"}, "subjects": account,
                "roleRef": {"kind": "ClusterRole", "name": "reader"}}),
            );
            put(
                state,
                "rolebindings",
                "shop",
                json!({"metadata": {"name": "b"},
                "subjects": [{"kind": "Group", "name": "system:serviceaccounts:isthmus"}],
                "roleRef": {"kind": "ClusterRole", "name": "writer"}}),
            );
        });
        store
    }

    #[test]
    fn roles_let_and_do_not_let() {
        let store = store();
        for (verb, plural, namespace, name, allowed) in [
            ("list", "services", None, None, true),
            ("list", "services", Some("shop"), None, true),
            ("watch", "services", None, None, false),
            ("list", "pods", None, None, false),
            ("get", "secrets", Some("shop"), Some("ca"), true),
            ("get", "secrets", Some("shop"), Some("cb"), false),
            ("list", "secrets", Some("shop"), None, false),
            ("create", "secrets", Some("shop"), None, false),
            ("update", "pods", Some("shop"), Some("a"), true),
            ("update", "pods", Some("other"), Some("a"), false),
        ] {
            let address = address(plural, namespace, name);
            let checked = store.with(|state| check(state, &user(), verb, &address, None));
            assert_eq!(checked.is_ok(), allowed, "{verb} {address:?}: {checked:?}");
            assert!(store.with(|state| check(state, &User::Lab, verb, &address, None)).is_ok());
        }
        let one = address("secrets", Some("shop"), None);
        assert!(
            store.with(|state| check(state, &user(), "watch", &one, Some("ca"))).is_ok(),
            "by field selector"
        );
    }

    #[test]
    fn a_subresource_is_named_apart() {
        let store = store();
        let status =
            Address { subresource: Some("status".to_owned()), ..address("pods", Some("shop"), Some("a")) };
        assert!(store.with(|state| check(state, &user(), "update", &status, None)).is_ok());
        let refused =
            store.with(|state| check(state, &user(), "patch", &status, None)).expect_err("not granted");
        assert_eq!(
            refused.message,
            "pods \"a\" is forbidden: User \"system:serviceaccount:isthmus:hub\" cannot patch resource \"pods/status\" in API group \"\" in the namespace \"shop\""
        );
    }
}
