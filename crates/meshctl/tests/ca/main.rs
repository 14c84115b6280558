//! `meshctl ca` as an operator uses it.

mod issue;
mod ledger;
mod stage;
