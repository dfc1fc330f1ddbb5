//! The auditor on the real kernel. These tests need root.

mod churn;
mod common;
mod methods;
mod recheck;
mod walk;
