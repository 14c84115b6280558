//! The API server for tests answers the real client as it should. No lab, no root.

mod answers;
mod faults;
mod support;
