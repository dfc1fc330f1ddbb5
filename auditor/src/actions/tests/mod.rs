//! Tests which findings lead to a step, and which do not.

mod forced;
mod plan;
