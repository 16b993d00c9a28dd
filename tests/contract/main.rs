//! The contract with those who bring a configuration: what of a recording comes out, in which form, to which store, and
//! what never does. Without root.
#![forbid(unsafe_code)]

mod buckets;
mod commands;
#[path = "../../benches/common/mod.rs"]
mod common;
mod configuration;
mod golden;
mod otlp;
#[path = "../live/programs.rs"]
#[allow(dead_code, unused_imports, reason = "the live tests use the rest")]
mod programs;
#[path = "../common/receiver.rs"]
mod receiver;
mod recipes;
mod reference;
mod rollups;
mod secrets;
mod show;
mod stores;
#[path = "../common/tools.rs"]
mod tools;
mod traffic;
