//! Clusters of real daemons in network namespaces, joined into one mesh: what services, certificates and failures do.
//!
//! One program, as each would link the whole lab again.

mod affinity;
mod agent_cleanup;
mod agent_crash;
mod bad_input;
mod enrolment;
mod foreign_client;
mod global_service;
mod hostile_member;
mod hub_crash;
mod import_grants;
mod lab;
mod path_cut;
mod sharing;
