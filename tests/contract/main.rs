//! The contract with those who bring a configuration: what of a recording comes out, in which form, to which store, and
//! what never does. Without root.
#![forbid(unsafe_code)]

mod configuration;
mod golden;
mod secrets;
mod stores;
mod traffic;
