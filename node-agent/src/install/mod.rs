//! What stands on the node so that a container runtime calls us: the plugin's program, its
//! entry in the runtime's configuration, and how both come and go.

pub mod binary;
pub mod cached;
pub mod undo;
