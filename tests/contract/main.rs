//! The contract with those who bring a configuration: what of a recording comes out, in which form, to which store, and
//! what never does. Without root.
#![forbid(unsafe_code)]

#[path = "../../benches/common/mod.rs"]
mod common;
mod configuration;
mod golden;
mod rollups;
mod secrets;
mod stores;
#[path = "../common/tools.rs"]
mod tools;
mod traffic;
