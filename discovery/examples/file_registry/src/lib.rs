//! The example of a registry that is implemented outside of the library. It is one file,
//! `registry.rs`, which is also in the documentation of `discovery::NodeRegistry`. The scenarios in
//! `discovery/tests/registry.rs` run with it as with every other registry.

mod registry;

pub use registry::FileRegistry;
