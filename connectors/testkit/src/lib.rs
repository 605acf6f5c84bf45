//! Test doubles and the contract that every sink must pass.
